// What changed between two texts: lines first, then the words of lines that stand for each other.
const MOST_CELLS = 400000;

// Longest common subsequence as [{kind: 'same' | 'out' | 'in', items}], in order.
function compare(before, after) {
  const parts = [];
  const add = (kind, item) => {
    const last = parts[parts.length - 1];
    if (last && last.kind === kind) last.items.push(item);
    else parts.push({ kind, items: [item] });
  };
  let start = 0, endBefore = before.length, endAfter = after.length;
  while (start < endBefore && start < endAfter && before[start] === after[start]) add('same', before[start++]);
  while (endBefore > start && endAfter > start && before[endBefore - 1] === after[endAfter - 1]) { endBefore--; endAfter--; }
  const rows = endBefore - start, columns = endAfter - start;
  if (rows * columns > MOST_CELLS) {
    // Too long to align: all of it is shown as replaced.
    for (let i = start; i < endBefore; i++) add('out', before[i]);
    for (let j = start; j < endAfter; j++) add('in', after[j]);
  } else {
    const best = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
    for (let i = rows - 1; i >= 0; i--) {
      for (let j = columns - 1; j >= 0; j--) {
        best[i][j] = before[start + i] === after[start + j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
    }
    let i = 0, j = 0;
    while (i < rows || j < columns) {
      if (i < rows && j < columns && before[start + i] === after[start + j]) { add('same', before[start + i]); i++; j++; }
      else if (i < rows && (j === columns || best[i + 1][j] >= best[i][j + 1])) add('out', before[start + i++]);
      else add('in', after[start + j++]);
    }
  }
  for (let i = endBefore; i < before.length; i++) add('same', before[i]);
  return parts;
}

const wordsOf = (line) => line.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) || [];

function lineOf(kind, words) {
  const sign = { same: ' ', out: '−', in: '+' }[kind];
  return element('div', { class: `diff-line ${kind}` }, element('span', { class: 'sign', 'aria-label':
    { same: 'unchanged', out: 'removed', in: 'added' }[kind] }, sign), element('span', { class: 'words' }, words));
}

// Two lines that share at least a third of their words, as one removed and one added line with the changed words marked.
function linePair(before, after) {
  const [left, right] = [wordsOf(before), wordsOf(after)];
  const parts = compare(left, right);
  const shared = parts.filter((part) => part.kind === 'same').flatMap((part) => part.items).filter((word) => word.trim()).length;
  const marked = shared * 3 >= Math.max(left.length, right.length);
  const words = (kind) => parts.filter((part) => part.kind === 'same' || part.kind === kind).map((part) =>
    part.kind === 'same' || !marked ? part.items.join('') : element('mark', {}, part.items.join('')));
  return [lineOf('out', words('out')), lineOf('in', words('in'))];
}

function difference(before, after) {
  const parts = compare(before.split('\n'), after.split('\n'));
  const lines = [];
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index], next = parts[index + 1];
    if (part.kind === 'out' && next && next.kind === 'in') {
      const pairs = Math.min(part.items.length, next.items.length);
      const made = Array.from({ length: pairs }, (_, number) => linePair(part.items[number], next.items[number]));
      lines.push(...made.map((pair) => pair[0]), ...part.items.slice(pairs).map((line) => lineOf('out', line)),
        ...made.map((pair) => pair[1]), ...next.items.slice(pairs).map((line) => lineOf('in', line)));
      index++;
    } else lines.push(...part.items.map((line) => lineOf(part.kind, line)));
  }
  return element('div', { class: 'diff', role: 'group', 'aria-label': 'difference between the sampled and the trained turn' }, lines);
}
