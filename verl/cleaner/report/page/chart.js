// One chart: lines of the shown arms over the steps, seeds of an arm as mean and range, values at a common cursor.
const charts = [];
const MARGIN = { top: 8, right: 12, bottom: 22, left: 42 };

// [{step, mean, low, high, count}] of one series over the shown runs of an arm.
function armPoints(arm, series) {
  const steps = new Map();
  for (const index of arm.runs) {
    if (!shownRuns.has(index)) continue;
    for (const [step, value] of runs[index].series[series] || []) {
      if (!steps.has(step)) steps.set(step, []);
      steps.get(step).push(value);
    }
  }
  return [...steps].sort((a, b) => a[0] - b[0]).map(([step, values]) => ({
    step, count: values.length, low: Math.min(...values), high: Math.max(...values),
    mean: values.reduce((sum, value) => sum + value, 0) / values.length,
  }));
}

function tickStep(range, wanted) {
  const rough = range / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

// Round values around a range, the first at or below `low`, the last at or above `high`.
function roundValues(low, high, wanted, whole) {
  const step = Math.max(tickStep(high - low || 1, wanted), whole ? 1 : 0);
  const [first, last] = [Math.floor(low / step + 1e-6), Math.ceil(high / step - 1e-6)];
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.plot = element('div', { class: 'plot', tabindex: 0, role: 'img' });
    this.tip = element('div', { class: 'tip', 'aria-live': 'polite' });
    const key = spec.lines.length > 1 ? element('p', { class: 'key' }, spec.lines.map((line) => element(
      'span', {}, drawing('svg', { width: 22, height: 8, 'aria-hidden': true },
        drawing('line', { class: `line ${line.style}`, x1: 0, x2: 22, y1: 4, y2: 4 })), line.label))) : null;
    this.node = element('figure', { class: spec.small ? 'chart small' : 'chart' },
      element('figcaption', {}, element('h3', {}, spec.title),
        spec.note ? element('p', { class: 'note' }, spec.note) : null, spec.small ? null : key),
      this.plot, this.tip);
    this.plot.addEventListener('pointermove', (event) => this.point(event));
    this.plot.addEventListener('pointerdown', (event) => this.point(event));
    this.plot.addEventListener('pointerleave', () => moveCursor(null, null));
    this.plot.addEventListener('blur', () => moveCursor(null, null));
    this.plot.addEventListener('keydown', (event) => this.key(event));
    charts.push(this);
  }

  top() {
    const points = this.curves.flatMap((curve) => curve.points);
    return Math.max(0, ...points.map((point) => point.high));
  }

  read() {
    this.curves = arms.flatMap((arm, number) => this.spec.lines.map((line) => (
      { arm, number, line, points: armPoints(arm, line.series) }))).filter((curve) => curve.points.length);
  }

  draw(sharedTop) {
    const width = this.plot.clientWidth, height = this.spec.small ? 92 : 190;
    const points = this.curves.flatMap((curve) => curve.points);
    if (!width) return;
    if (!points.length) {
      this.plot.replaceChildren(element('p', { class: 'empty' }, 'not logged by the shown runs'));
      this.plot.setAttribute('aria-label', `${this.spec.title}: not logged by the shown runs`);
      return;
    }
    const steps = points.map((point) => point.step);
    const whole = this.spec.form === 'count';
    const least = Math.min(0, ...points.map((point) => point.low));
    const yTicks = roundValues(least, sharedTop || this.top() || 1, this.spec.small ? 2 : 4, whole);
    const [low, high] = [yTicks[0], yTicks[yTicks.length - 1]];
    const [first, last] = [Math.min(...steps), Math.max(...steps)];
    this.steps = [...new Set(steps)].sort((a, b) => a - b);
    this.x = (step) => MARGIN.left + (last === first ? 0.5 : (step - first) / (last - first))
      * (width - MARGIN.left - MARGIN.right);
    this.y = (value) => MARGIN.top + (1 - (value - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
    const svg = drawing('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': true });
    for (const value of yTicks) {
      svg.append(drawing('line', { class: 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(value), y2: this.y(value) }),
        drawing('text', { class: 'tick', x: MARGIN.left - 7, y: this.y(value) + 3.5, 'text-anchor': 'end' },
          formatAxis(value, this.spec.form)));
    }
    const xTicks = this.spec.small ? [first, last] : roundValues(first, last, Math.max(2, Math.floor(width / 90)), true);
    for (const step of new Set(xTicks.filter((value) => value >= first && value <= last))) {
      svg.append(drawing('text', { class: 'tick', x: this.x(step), y: height - 6, 'text-anchor': 'middle' }, String(step)));
    }
    for (const curve of this.curves) svg.append(this.curve(curve));
    this.cursor = drawing('g', { class: 'cursor' });
    svg.append(this.cursor);
    this.plot.replaceChildren(svg);
    this.plot.setAttribute('aria-label', `${this.spec.title}. ${this.words()} Left and right arrow keys read the steps.`);
  }

  curve({ number, line, points }) {
    const path = (pairs) => pairs.map(([step, value], index) =>
      `${index ? 'L' : 'M'}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`).join('');
    const group = drawing('g', { class: `run-${number % 8}` });
    if (line.style === 'solid' && points.some((point) => point.count > 1)) {
      group.append(drawing('path', { class: 'band', d: `${path(points.map((point) => [point.step, point.high]))}${path(
        [...points].reverse().map((point) => [point.step, point.low])).replace('M', 'L')}Z` }));
    }
    group.append(drawing('path', { class: `line ${line.style}`, d: path(points.map((point) => [point.step, point.mean])) }));
    if (line.style === 'solid' && points.length <= 8 && !this.spec.small) {
      for (const point of points) {
        group.append(drawing('circle', { class: 'dot', cx: this.x(point.step), cy: this.y(point.mean), r: 3 }));
      }
    }
    return group;
  }

  words() {
    return this.curves.map((curve) => `${armName(curve.arm)}, ${curve.line.label}: from ${
      formatNumber(curve.points[0].mean, this.spec.form)} to ${
      formatNumber(curve.points[curve.points.length - 1].mean, this.spec.form)}.`).join(' ');
  }

  point(event) {
    if (!this.steps || !this.cursor) return;
    const at = event.clientX - this.plot.getBoundingClientRect().left;
    moveCursor(this, this.steps.reduce((best, step) =>
      Math.abs(this.x(step) - at) < Math.abs(this.x(best) - at) ? step : best));
  }

  key(event) {
    if (!this.steps || !['ArrowLeft', 'ArrowRight'].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const now = this.steps.indexOf(cursorStep);
    const next = now < 0 ? 0 : now + (event.key === 'ArrowRight' ? 1 : -1);
    moveCursor(this, this.steps[Math.min(Math.max(next, 0), this.steps.length - 1)]);
  }

  // The rule and dots at a step; the tip only on the chart that is pointed at.
  show(step, withTip) {
    if (!this.cursor) return;
    this.cursor.replaceChildren();
    this.tip.replaceChildren();
    this.tip.hidden = true;
    if (step === null || !this.steps.includes(step)) return;
    const rule = { x1: this.x(step), x2: this.x(step), y1: MARGIN.top, y2: this.plot.clientHeight - MARGIN.bottom };
    this.cursor.append(drawing('line', { class: 'rule', ...rule }));
    const rows = [];
    for (const { arm, number, line, points } of this.curves) {
      const point = points.find((entry) => entry.step === step);
      if (!point) continue;
      this.cursor.append(drawing('circle', { class: `dot run-${number % 8}`, cx: this.x(step), cy: this.y(point.mean), r: 3.5 }));
      const range = point.count > 1 ? element('small', {},
        ` ${formatNumber(point.low, this.spec.form)} to ${formatNumber(point.high, this.spec.form)}`) : null;
      rows.push(element('li', {}, element('i', { class: `swatch run-${number % 8}` }),
        element('span', {}, [arms.length > 1 ? armName(arm) : '', this.spec.lines.length > 1 || arms.length === 1 ? line.label : '']
          .filter(Boolean).join(', ')),
        element('b', {}, formatNumber(point.mean, this.spec.form), range)));
    }
    if (!withTip) return;
    this.tip.append(element('p', {}, `step ${step}`), element('ul', {}, rows));
    this.tip.hidden = false;
    const room = this.node.clientWidth - this.tip.offsetWidth;
    const right = this.x(step) + 14;
    this.tip.style.left = `${Math.max(0, Math.min(right <= room ? right : this.x(step) - this.tip.offsetWidth - 14, room))}px`;
    // Below the plot, so that it never hides a curve.
    this.tip.style.top = `${this.plot.offsetTop + this.plot.clientHeight + 2}px`;
  }
}

let cursorStep = null;
function moveCursor(chart, step) {
  cursorStep = step;
  for (const each of charts) each.show(step, each === chart);
}

function drawCharts() {
  for (const chart of charts) chart.read();
  const smallTop = Math.max(0, ...charts.filter((chart) => chart.spec.small).map((chart) => chart.top()));
  for (const chart of charts) chart.draw(chart.spec.small ? smallTop : 0);
}
