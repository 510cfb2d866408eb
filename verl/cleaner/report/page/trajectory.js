// One trajectory in full: its tokens as a ribbon, its prompt, its turns with their repairs.
const originOf = (name) => name in ORIGINS ? name : 'unknown';

// Segments joined to turns: what the model wrote between two observations. `start` counts response tokens.
function turnsOf(trajectory) {
  const turns = [];
  let start = 0;
  for (const [origin, trained, tokens, text] of trajectory.segments) {
    const isTool = origin === 'observation';
    const last = turns[turns.length - 1];
    if (last && last.isTool === isTool && !isTool) last.parts.push({ origin, trained, tokens, text });
    else turns.push({ isTool, start, parts: [{ origin, trained, tokens, text }] });
    start += tokens || 0;
  }
  return turns;
}

// The turn that a repair belongs to: by its first token, in older records by its number.
function turnOfRepair(turns, repair) {
  const own = turns.filter((turn) => !turn.isTool);
  return own.find((turn) => repair.start !== null && turn.start === repair.start) || own[repair.turn ?? 0] || own[own.length - 1];
}

function ribbon(trajectory) {
  const total = trajectory.segments.reduce((sum, segment) => sum + (segment[2] || 0), 0);
  if (!total) return null;
  let at = 0;
  const counts = table({}), bars = [], marks = [];
  let trainedTokens = 0;
  for (const [origin, trained, tokens] of trajectory.segments) {
    const kind = originOf(origin), width = 1000 * (tokens || 0) / total;
    counts[kind] = (counts[kind] || 0) + (tokens || 0);
    if (trained) trainedTokens += tokens || 0;
    bars.push(drawing('rect', { class: `fill-${kind}`, x: at, y: 0, width, height: 12 }),
      trained ? drawing('rect', { class: 'fill-trained', x: at, y: 15, width, height: 3 }) : null);
    at += width;
  }
  for (const repair of trajectory.repairs) {
    if (repair.start !== null) marks.push(drawing('rect', { class: 'fill-mark', x: Math.min(1000 * repair.start / total, 997), y: 0, width: 3, height: 12 }));
  }
  const legend = Object.entries(counts).map(([kind, tokens]) => element('span', {},
    element('i', { class: `sample fill-${kind}` }), `${tokens.toLocaleString('en')} ${ORIGINS[kind] || 'unknown'}`));
  return element('div', { class: 'ribbon' },
    drawing('svg', { viewBox: '0 0 1000 18', preserveAspectRatio: 'none', role: 'img',
      'aria-label': `${plural(total, 'response token')}, ${trainedTokens} of them trained` }, bars, marks),
    element('p', { class: 'key' }, legend, element('span', {}, element('i', { class: 'sample thin fill-trained' }),
      trajectory.phase === 'val' ? 'validation: nothing is trained' : `${trainedTokens.toLocaleString('en')} of ${total.toLocaleString('en')} trained`)));
}

function promptView(text) {
  const messages = text.split(/(?=<\|im_start\|>)/).map((part) => part.match(/^<\|im_start\|>(\w+)\n([^]*)$/));
  if (rawText || !messages.length || messages.some((match) => !match)) {
    return element('div', { class: 'message' }, element('pre', { class: rawText ? 'raw' : null }, rawText ? text : withSpecials(text)));
  }
  return messages.map(([, role, body]) => ({ role, body: body.replace(/<\|im_end\|>\s*$/, '').trim() }))
    .filter(({ body }) => body).map(({ role, body }) => role === 'system'
      ? element('details', { class: 'message system' }, element('summary', {}, role), element('pre', {}, withSpecials(body)))
      : element('div', { class: 'message' }, element('span', { class: 'who' }, role), element('pre', {}, withSpecials(body))));
}

// An observation without the frame that the chat template puts around it.
function observationText(text) {
  if (rawText) return text;
  const match = text.match(/<tool_response>\n?([^]*?)\n?<\/tool_response>/);
  return match ? match[1] : text.replace(/<\|im_(start|end)\|>(assistant|user|tool)?/g, '').trim();
}

function turnView(turn, number) {
  const tokens = turn.parts.reduce((sum, part) => sum + (part.tokens || 0), 0);
  if (turn.isTool) {
    return element('div', { class: 'turn tool' }, element('span', { class: 'who' }, 'tool'),
      element('pre', { class: 'observation' }, observationText(turn.parts[0].text)));
  }
  const spans = turn.parts.map((part) => element('span', {
    class: `part ${originOf(part.origin)} ${part.trained ? 'trained' : 'untrained'}`,
    title: `${ORIGINS[part.origin] || part.origin}, ${part.trained ? 'trained' : 'not trained'}, ${plural(part.tokens || 0, 'token')}`,
  }, modelText(part.text)));
  return element('div', { class: 'turn model' }, element('span', { class: 'who' }, `turn ${number}`,
    element('small', {}, plural(tokens, 'token'))), element('div', { class: 'text' }, spans));
}

function rewardMark(trajectory) {
  const { reward, accuracy } = trajectory;
  const right = accuracy !== null ? accuracy >= 1 : reward !== null && reward >= 1;
  const text = reward === null ? '–' : Number.isInteger(reward) ? String(reward) : reward.toFixed(2);
  return element('span', { class: `reward ${right ? 'right' : 'wrong'}`, title: `reward ${text}` },
    element('span', { 'aria-hidden': true }, right ? '✓' : '✗'), ' ', element('span', {}, text));
}

function placeOf(trajectory) {
  const step = trajectory.step ?? '–', where = trajectory.phase === 'val' ? `validation at step ${step}` : `step ${step}`;
  return [runs.length > 1 ? runs[trajectory.run].name : null, where,
    trajectory.index === null ? null : `row ${trajectory.index}`,
    trajectory.session === null || trajectory.phase === 'val' ? null : `sample ${trajectory.session + 1}`].filter(Boolean).join(' · ');
}

const shortSource = (trajectory) => trajectory.source.split('/').pop() || 'trajectory';

function trajectoryView(trajectory) {
  const run = runs[trajectory.run], turns = turnsOf(trajectory);
  const repairs = new Map();
  trajectory.repairs.forEach((repair, number) => {
    const turn = turnOfRepair(turns, repair);
    repairs.set(turn, [...(repairs.get(turn) || []), repairCard(repair, run.gamma, number)]);
  });
  let number = 0;
  const story = turns.flatMap((turn) => [...(repairs.get(turn) || []), turnView(turn, turn.isTool ? 0 : ++number)]);
  return [
    element('header', { class: 'detail-head' }, element('button', { type: 'button', class: 'plain back', onclick: closeDetail }, '← List'),
      element('div', {}, element('h3', {}, shortSource(trajectory)), element('p', { class: 'quiet' }, placeOf(trajectory))),
      element('button', { type: 'button', class: 'plain', 'aria-pressed': String(rawText), title: 'Tokens as they are (r)', onclick: toggleRaw }, 'Raw'),
      rewardMark(trajectory)),
    ribbon(trajectory),
    run.credit === 'mask' && trajectory.segments.some((segment) => segment[0] === 'grafted')
      ? element('p', { class: 'note' }, 'graft_credit: mask: grafted tokens are not trained in this run.') : null,
    element('div', { class: 'story' }, promptView(prompts[trajectory.prompt]), ...(repairs.get(undefined) || []), ...story),
  ].filter(Boolean);
}
