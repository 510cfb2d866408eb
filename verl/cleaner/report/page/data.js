// What the page shows, as `page_data.py` wrote it. Every text in it is untrusted: it is shown by textContent only.
const data = JSON.parse(document.getElementById('data').textContent);
const { runs, arms, prompts, trajectories } = data;

const KINDS = table({
  shallow: ['Shallow', 'a repair that replaced the call'], deep: ['Deep', 'a repair that replaced the whole turn'],
  kept: ['Kept', 'a correction succeeded, the look-ahead stays as sampled'],
  exhausted: ['Exhausted', 'no correction succeeded, the failing turn stays'],
  failed: ['Failing call', 'a call failed and was not rolled back'], clean: ['Clean', 'no call failed'],
});
const ORIGINS = table({
  sampled: 'sampled', grafted: 'grafted by a repair', observation: 'observation', excluded: 'sampled, excluded',
});

// Runs that the curves show, by index.
const shownRuns = new Set(runs.map((_, index) => index));
const armName = (arm) => arm.runs.length > 1 ? `${arm.name} (${arm.runs.length} seeds)` : arm.name;

function formatNumber(value, form) {
  if (value === null || value === undefined) return '–';
  if (form === 'share') return `${(100 * value).toFixed(1)} %`;
  if (form === 'seconds') return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  if (form === 'number') return value.toFixed(3);
  return value.toLocaleString('en', { maximumFractionDigits: value % 1 && value < 100 ? 1 : 0 });
}

function formatAxis(value, form) {
  if (form === 'share') return `${Math.round(1000 * value) / 10}%`;
  if (Math.abs(value) >= 10000) return `${value / 1000}k`;
  return String(Math.round(value * 1000) / 1000);
}

function plural(number, noun) {
  return `${number.toLocaleString('en')} ${number === 1 ? noun : noun.replace(/y$/, 'ie') + 's'}`;
}
