// The table of runs, an arm a row: what changed, what was repaired, what it cost; and the switches of the curves.
function change(entry) {
  if (!entry) return '–';
  if (entry.before_step === entry.after_step) return formatNumber(entry.after, 'share');
  return [formatNumber(entry.before, 'share'), element('span', { class: 'arrow', 'aria-label': 'to' }, ' → '),
    element('b', {}, formatNumber(entry.after, 'share'))];
}

function meanOf(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function meanChange(members, name) {
  const known = members.map((run) => run[name]).filter(Boolean);
  if (!known.length) return null;
  return { ...known[0], before: meanOf(known.map((entry) => entry.before)), after: meanOf(known.map((entry) => entry.after)) };
}

function duration(seconds) {
  if (seconds === null) return '–';
  return seconds < 90 ? `${seconds.toFixed(0)} s` : seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function switchOf(label, indices, number) {
  const box = element('input', { type: 'checkbox', 'aria-label': `show ${label} in the curves` });
  box.checked = true;
  box.addEventListener('change', () => {
    for (const index of indices) shownRuns[box.checked ? 'add' : 'delete'](index);
    syncSwitches();
    drawCharts();
  });
  box.runIndices = indices;
  return element('label', { class: `switch run-${number % 8}` }, box, element('span', {}, label));
}

function syncSwitches() {
  for (const box of document.querySelectorAll('#runs input[type=checkbox]')) {
    const shown = box.runIndices.filter((index) => shownRuns.has(index)).length;
    box.checked = shown > 0;
    box.indeterminate = shown > 0 && shown < box.runIndices.length;
  }
}

// A value of the configuration: of a path its end, of a long text its beginning.
function brief(value) {
  const text = value.replace(/^"|"$/g, '');
  const short = text.startsWith('/') ? text.split('/').slice(-2).join('/') : text;
  return short.length > 40 ? `${short.slice(0, 39)}…` : short;
}

function armRow(arm, number) {
  const members = arm.runs.map((index) => runs[index]);
  const total = (name) => meanOf(members.map((run) => run.rollbacks[name]));
  const triggered = total('triggered'), recovered = total('recovered');
  const seeds = arm.runs.length > 1 ? element('div', { class: 'seeds' }, arm.runs.map((index) => switchOf(
    runs[index].seed === null || runs[index].seed === undefined ? runs[index].name : `seed ${runs[index].seed}`, [index], number))) : null;
  const differs = arm.differs.length ? element('p', { class: 'differs' }, arm.differs.map(([key, value]) => element(
    'span', { title: `${key}: ${value}` }, `${key.split('.').pop()} `, element('code', {}, brief(value))))) : null;
  const cells = [
    ['accuracy', change(meanChange(members, 'accuracy'))],
    ['first call succeeds', change(meanChange(members, 'first'))],
    ['rolled back', triggered === null ? '–' : formatNumber(Math.round(triggered), 'count')],
    ['recovered', triggered ? [formatNumber(recovered / triggered, 'share'), element('small', {},
      `${formatNumber(Math.round(total('shallow')), 'count')} shallow, ${formatNumber(Math.round(total('deep')), 'count')} deep`)] : '–'],
    ['discarded tokens', formatNumber(total('discarded_share'), 'share')],
    ['steps', String(Math.max(...members.map((run) => run.steps)))],
    ['time', duration(meanOf(members.map((run) => run.seconds)))],
  ];
  return element('tr', {}, element('th', { scope: 'row' }, switchOf(armName(arm), arm.runs, number), differs, seeds),
    cells.map(([label, value]) => element('td', { 'data-label': label }, value)));
}

function showOverview() {
  const title = arms.length === 1 ? armName(arms[0]) : `${runs.length} runs, ${arms.length} arms`;
  byId('title').textContent = title;
  if (runs.length === 1) {
    const settings = Object.entries(runs[0].settings).filter(([name]) => name !== 'rollback_in_validation');
    byId('title').after(element('p', { class: 'settings' }, settings.map(([name, value]) => element(
      'span', {}, `${name.replace(/_/g, ' ')} `, element('b', {}, name === 'model' ? value.split('/').pop() : value)))));
  }
  document.title = `${title} · CLEANER report`;
  const heads = ['', 'Accuracy', 'First call succeeds', 'Rolled back', 'Recovered', 'Discarded tokens', 'Steps', 'Time'];
  byId('runs').append(element('table', { class: 'runs' },
    element('thead', {}, element('tr', {}, heads.map((head) => element('th', { scope: 'col' }, head)))),
    element('tbody', {}, arms.map(armRow))));
  const validation = runs.some((run) => run.settings.rollback_in_validation === 'True')
    ? 'Accuracy and first call: validation, first to last, in some runs with rollback.'
    : 'Accuracy and first call: validation, first to last, without rollback.';
  const seeds = arms.some((arm) => arm.runs.length > 1) ? ' Several seeds: means; the bands of the curves reach from the least to the greatest.' : '';
  byId('runs').append(element('p', { class: 'note' }, `${validation}${seeds} One run says little about a method: compare several seeds.`));
  for (const run of runs) {
    for (const warning of run.warnings) byId('runs').append(element('p', { class: 'note warning' }, `${run.name}: ${warning}`));
  }
}
