// Which trajectories the list shows.
const filter = { kind: '', run: '', phase: '', error: '', reward: '', step: '', text: '' };
const haystacks = new Map();

const REWARDS = table({
  full: ['1 or more', (reward) => reward >= 1], part: ['between 0 and 1', (reward) => reward > 0 && reward < 1],
  none: ['0', (reward) => reward === 0], minus: ['below 0', (reward) => reward < 0],
});

function haystack(trajectory) {
  if (!haystacks.has(trajectory)) {
    const turns = trajectory.repairs.flatMap((repair) => [repair.failed, ...repair.attempts]);
    haystacks.set(trajectory, [prompts[trajectory.prompt], trajectory.source, ...trajectory.errors,
      ...trajectory.segments.map((segment) => segment[3]),
      ...turns.flatMap((turn) => [turn.reasoning, turn.code || turn.call, turn.outcome ? turn.outcome.text : ''])]
      .join('\n').toLowerCase());
  }
  return haystacks.get(trajectory);
}

function isOfKind(trajectory, kind) {
  if (kind === 'repaired') return trajectory.kinds.includes('shallow') || trajectory.kinds.includes('deep');
  return !kind || trajectory.kinds.includes(kind);
}

function passes(trajectory, withKind) {
  const reward = trajectory.reward;
  return (!withKind || isOfKind(trajectory, filter.kind))
    && (filter.run === '' || trajectory.run === Number(filter.run))
    && (filter.phase === '' || trajectory.phase === filter.phase)
    && (filter.error === '' || trajectory.errors.includes(filter.error))
    && (filter.reward === '' || (reward !== null && REWARDS[filter.reward][1](reward)))
    && (filter.step === '' || trajectory.step === Number(filter.step))
    && (filter.text === '' || haystack(trajectory).includes(filter.text));
}

function choice(label, name, options) {
  const select = element('select', { name, onchange: () => { filter[name] = select.value; applyFilter(); } },
    element('option', { value: '' }, `any ${label}`),
    options.map(([value, text]) => element('option', { value }, text)));
  return element('label', {}, element('span', { class: 'unseen' }, label), select);
}

const distinct = (values) => [...new Set(values)];

function showFilters() {
  const kinds = [['', 'All'], ['repaired', 'Repaired', 'a shallow or a deep repair'],
    ...Object.entries(KINDS).map(([kind, words]) => [kind, ...words])].filter(([kind]) => trajectories.some((trajectory) => isOfKind(trajectory, kind)));
  const chips = element('div', { class: 'chips', role: 'group', 'aria-label': 'what happened' }, kinds.map(([kind, label, meaning]) =>
    element('button', { type: 'button', 'data-kind': kind, title: meaning, onclick: () => { filter.kind = kind; applyFilter(); } },
      label, ' ', element('span', {}))));
  const rewards = Object.entries(REWARDS).filter(([, [, test]]) => trajectories.some((entry) => entry.reward !== null && test(entry.reward)));
  const search = element('input', { type: 'search', name: 'text', placeholder: 'Search text  /', 'aria-label': 'search the text', autocomplete: 'off',
    oninput: () => { filter.text = search.value.toLowerCase(); applyFilter(); } });
  const steps = distinct(trajectories.map((entry) => entry.step)).filter((step) => step !== null).sort((a, b) => a - b);
  byId('filters').append(chips, element('div', { class: 'choices' }, search,
    runs.length > 1 ? choice('run', 'run', runs.map((run, index) => [index, run.name])) : null,
    choice('phase', 'phase', [['train', 'training'], ['val', 'validation']]),
    choice('error', 'error', distinct(trajectories.flatMap((entry) => entry.errors)).sort().map((name) => [name, name])),
    choice('reward', 'reward', rewards.map(([name, [label]]) => [name, `reward ${label}`])),
    choice('step', 'step', steps.map((step) => [step, `step ${step}`])),
    element('button', { type: 'button', class: 'plain', id: 'all', onclick: resetFilter }, 'Reset')));
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
}

function resetFilter() {
  for (const name of Object.keys(filter)) filter[name] = '';
  byId('filters').reset();
  applyFilter();
}

function countKinds() {
  const others = trajectories.filter((trajectory) => passes(trajectory, false));
  for (const chip of byId('filters').querySelectorAll('[data-kind]')) {
    chip.setAttribute('aria-pressed', String(chip.dataset.kind === filter.kind));
    chip.lastChild.textContent = others.filter((entry) => isOfKind(entry, chip.dataset.kind)).length.toLocaleString('en');
  }
  byId('all').hidden = Object.values(filter).every((value) => value === '');
}

function showSample() {
  const recorded = data.strata.reduce((sum, stratum) => sum + stratum.recorded, 0);
  const note = byId('sample');
  if (!recorded) note.textContent = 'No trajectory was recorded (cleaner.record=true records them).';
  else if (recorded === trajectories.length) note.textContent = `All ${plural(recorded, 'recorded trajectory')}.`;
  else {
    note.textContent = `${trajectories.length.toLocaleString('en')} of ${plural(recorded, 'recorded trajectory')}: a sample, drawn by seed ${
      data.seed} within each run, phase and kind, so that rare kinds stay. Counts below are of the sample.`;
    const rows = data.strata.map((entry) => element('tr', {}, [runs[entry.run].name, entry.phase === 'val' ? 'validation' : 'training',
      entry.kind, entry.shown.toLocaleString('en'), entry.recorded.toLocaleString('en')].map((text) => element('td', {}, text))));
    note.after(element('details', { class: 'sampled' }, element('summary', {}, 'What was drawn, by the rarest thing that happened in a trajectory'), element('table', {},
      element('thead', {}, element('tr', {}, ['run', 'phase', 'kind', 'shown', 'recorded'].map((head) => element('th', { scope: 'col' }, head)))),
      element('tbody', {}, rows))));
  }
}
