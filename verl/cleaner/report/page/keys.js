// Keys, the help that names them, and the switch between dark and light.
const KEYS = [
  [['j', '→'], 'next trajectory', () => move(1)], [['k', '←'], 'previous trajectory', () => move(-1)],
  [['n'], 'next repair in it', () => moveRepair(1)], [['p'], 'previous repair in it', () => moveRepair(-1)],
  [['/'], 'search', () => { byId('trajectories').scrollIntoView(); byId('filters').elements.text.focus(); }],
  [['x'], 'reset the filters', () => resetFilter()], [['r'], 'tokens as they are', () => toggleRaw()],
  [['t'], 'dark or light', () => switchTheme()], [['?'], 'these keys', () => byId('keys').showModal()],
];
const ARROWS = { ArrowRight: '→', ArrowLeft: '←' };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape' && !byId('keys').open) {
    if (document.activeElement !== document.body) document.activeElement.blur();
    document.body.classList.remove('detail-open');
    return;
  }
  if (byId('keys').open || event.target.closest('input[type=search], select, textarea')) return;
  const inList = event.target === byId('list');
  if (inList && ['ArrowDown', 'ArrowUp', 'Home', 'End', 'Enter'].includes(event.key)) {
    event.preventDefault();
    if (event.key === 'Enter') choose(matching.indexOf(chosen), true);
    else if (event.key === 'Home' || event.key === 'End') choose(event.key === 'Home' ? 0 : matching.length - 1);
    else move(event.key === 'ArrowDown' ? 1 : -1);
    return;
  }
  const entry = KEYS.find(([names]) => names.includes(ARROWS[event.key] || event.key));
  if (!entry) return;
  event.preventDefault();
  entry[2]();
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  setTheme(dark ? 'light' : 'dark');
  // A page that was opened from a file may have no storage.
  try { localStorage.setItem('cleaner-theme', dark ? 'light' : 'dark'); } catch { /* not kept */ }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function showKeys() {
  byId('keys').append(element('h2', { id: 'keys-title' }, 'Keys'), element('dl', {}, KEYS.flatMap(([names, meaning]) => [
    element('dt', {}, names.map((name) => element('kbd', {}, name))), element('dd', {}, meaning)])),
  element('p', { class: 'note' }, 'In the list: ↑ ↓ Home End choose, Enter opens. On a curve: ← → read the steps. Esc leaves.'),
  element('button', { type: 'button', class: 'plain', onclick: () => byId('keys').close() }, 'Close'));
  byId('help').addEventListener('click', () => byId('keys').showModal());
  byId('theme').addEventListener('click', switchTheme);
  let kept = null;
  try { kept = localStorage.getItem('cleaner-theme'); } catch { /* none */ }
  if (kept === 'dark' || kept === 'light') setTheme(kept);
  document.addEventListener('keydown', onKey);
}
