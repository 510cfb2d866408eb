// The list of trajectories: rows are made as they come into view; one is chosen.
const ROWS_AT_ONCE = 80;
let matching = [], made = 0, chosen = null;

function rowOf(trajectory, position) {
  const marks = trajectory.kinds.map((kind) => element('span', { class: `kind ${kind}` }, KINDS[kind][0]));
  const question = prompts[trajectory.prompt].split('<|im_start|>user').pop().split('<|im_end|>')[0].trim().slice(0, 160);
  return element('div', {
    class: 'row', role: 'option', id: `row-${position}`, 'aria-selected': String(trajectory === chosen),
    'aria-setsize': matching.length, 'aria-posinset': position + 1, onclick: () => { choose(position, true); },
  }, element('div', { class: 'row-head' }, element('b', {}, shortSource(trajectory)),
    element('span', { class: 'quiet' }, trajectory.phase === 'val' ? `validation ${trajectory.step}` : `step ${trajectory.step}`), rewardMark(trajectory)),
  element('p', { class: 'question' }, question),
  element('div', { class: 'marks' }, marks, trajectory.errors.length
    ? element('span', { class: 'quiet errors' }, trajectory.errors.join(', ')) : null));
}

function makeRows(upTo) {
  const end = Math.min(matching.length, Math.max(upTo, made));
  for (; made < end; made++) byId('list').append(rowOf(matching[made], made));
}

function applyFilter() {
  const before = chosen;
  matching = trajectories.filter((trajectory) => passes(trajectory, true));
  chosen = matching.includes(before) ? before : matching[0] || null;
  made = 0;
  byId('list').replaceChildren();
  byId('list').setAttribute('aria-label', plural(matching.length, 'trajectory'));
  const position = matching.indexOf(chosen);
  makeRows(Math.max(ROWS_AT_ONCE, position + 20));
  if (!matching.length) {
    byId('list').append(element('p', { class: 'empty' }, trajectories.length ? 'No trajectory matches. Reset the filters.' : 'Nothing to show.'));
  }
  countKinds();
  markChosen(position);
  if (chosen !== before || !chosen) showDetail();
}

function markChosen(position) {
  const old = byId('list').querySelector('[aria-selected=true]');
  if (old) old.setAttribute('aria-selected', 'false');
  const row = byId(`row-${position}`);
  if (!row) {
    byId('list').removeAttribute('aria-activedescendant');
    return;
  }
  row.setAttribute('aria-selected', 'true');
  byId('list').setAttribute('aria-activedescendant', row.id);
  const list = byId('list'), above = row.offsetTop;
  // The list scrolls, never the page.
  if (above < list.scrollTop) list.scrollTop = above;
  else if (above + row.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = above + row.offsetHeight - list.clientHeight;
}

function choose(position, open) {
  if (!matching.length) return;
  const bounded = Math.min(Math.max(position, 0), matching.length - 1);
  makeRows(bounded + 20);
  chosen = matching[bounded];
  markChosen(bounded);
  showDetail();
  if (open) document.body.classList.add('detail-open');
}

const move = (by) => choose(matching.indexOf(chosen) + by, document.body.classList.contains('detail-open'));

function showDetail() {
  byId('detail').scrollTop = 0;
  byId('detail').replaceChildren(...(chosen ? trajectoryView(chosen) : []));
}

function closeDetail() {
  document.body.classList.remove('detail-open');
  byId('list').focus();
}

function toggleRaw() {
  rawText = !rawText;
  showDetail();
}

// The next or previous repair of the trajectory that is shown.
function moveRepair(by) {
  const cards = [...byId('detail').querySelectorAll('.repair')];
  if (!cards.length) return;
  const now = cards.indexOf(document.activeElement);
  const card = cards[Math.min(Math.max(now + by, 0), cards.length - 1)];
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: 'start' });
}
