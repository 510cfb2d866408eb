// One repair: what was sampled, the error, each attempt, the decision, and what changed in the turn that is trained.
const DECISIONS = table({
  shallow: ['Shallow repair', 'the reasoning is kept, the call is replaced'],
  deep: ['Deep repair', 'the whole turn is replaced'],
  kept: ['Kept', 'a correction succeeded, but the graft was too unlikely in the clean context; the look-ahead stays as sampled'],
  exhausted: ['Exhausted', 'no attempt succeeded, the failing turn stays'],
});
const ENDINGS = table({
  attempts: 'all attempts were used', room: 'the response had no room left', turns: 'no more turns were allowed',
  infrastructure: 'the tool could not be reached', greedy: 'a greedy retry would repeat itself',
});

// Similarity from 0 to 1 with gamma marked.
function gauge(similarity, gamma) {
  const at = (value) => 4 + 112 * Math.min(Math.max(value, 0), 1);
  const words = `similarity ${similarity.toFixed(2)}${gamma === null ? '' : `, gamma ${gamma}`}`;
  return element('span', { class: 'gauge', title: words }, drawing('svg', { width: 120, height: 16, role: 'img', 'aria-label': words },
    drawing('line', { class: 'gauge-rail', x1: 4, x2: 116, y1: 8, y2: 8 }),
    gamma === null ? null : drawing('line', { class: 'gauge-gamma', x1: at(gamma), x2: at(gamma), y1: 2, y2: 14 }),
    drawing('circle', { class: 'gauge-dot', cx: at(similarity), cy: 8, r: 4.5 })), similarity.toFixed(2));
}

function outcomeLine(outcome) {
  if (!outcome) return element('p', { class: 'outcome none' }, 'no tool call');
  const good = outcome.status === 'ok';
  const named = outcome.exception || outcome.status.replace(/_/g, ' ');
  // The label says the class already.
  const told = outcome.text.trim();
  const text = told.startsWith(`${named}: `) ? told.slice(named.length + 2) : told;
  return element('div', { class: `outcome ${good ? 'good' : 'bad'}` },
    element('span', { class: 'status' }, good ? 'ok' : named),
    text ? element('pre', { tabindex: text.length > 600 ? 0 : null }, text) : null);
}

function turnStep(label, turn, extra, kind) {
  const content = turn.code !== null && !rawText
    ? [turn.reasoning.trim() ? element('p', { class: 'reasoning' }, withSpecials(turn.reasoning.trim())) : null,
      element('pre', { class: 'code' }, turn.code)]
    : element('p', { class: rawText ? 'reasoning raw' : 'reasoning' }, rawText ? turn.reasoning + turn.call
      : withSpecials((turn.reasoning + turn.call).replace(/<\|im_end\|>\s*$/, '').trim()));
  return element('li', { class: `step ${kind}` },
    element('div', { class: 'step-head' }, element('b', {}, label), extra,
      turn.tokens === null ? null : element('span', { class: 'quiet' }, plural(turn.tokens, 'token'))),
    content, outcomeLine(turn.outcome));
}

function comparedWith(repair, gamma) {
  if (repair.similarity === null) return null;
  const bound = repair.exact ? '' : 'at most ';
  if (gamma === null) return `similarity ${bound}${repair.similarity.toFixed(2)}`;
  return `similarity ${bound}${repair.similarity.toFixed(2)} ${repair.similarity >= gamma ? '≥' : '<'} γ ${gamma}`;
}

function repairCard(repair, gamma, number) {
  const [name, meaning] = DECISIONS[repair.decision] || [repair.decision || 'Unknown', 'unknown to this version'];
  const known = repair.decision in DECISIONS ? repair.decision : 'unknown';
  const accepted = repair.accepted === null ? null : repair.attempts[repair.accepted];
  const before = plainTurn(repair.failed.reasoning + repair.failed.call, [repair.failed]);
  const after = plainTurn(repair.after, [accepted, repair.failed]);
  const costs = [
    repair.discarded_tokens === null ? null : `${plural(repair.discarded_tokens, 'token')} discarded`,
    repair.seconds === null ? null : `${repair.seconds.toFixed(1)} s`,
  ].filter(Boolean).join(', ');
  const why = [comparedWith(repair, gamma), meaning, ENDINGS[repair.ending],
    repair.weight === null ? null : `mean importance ratio ${repair.weight.toFixed(2)}`].filter(Boolean).join(' · ');
  return element('section', { class: `repair ${known}`, tabindex: -1, 'aria-label': `repair ${number + 1}: ${name}` },
    element('header', {}, element('h4', {}, name), costs ? element('span', { class: 'quiet' }, costs) : null),
    element('ol', { class: 'steps' },
      turnStep('Sampled', repair.failed, null, 'bad'),
      repair.attempts.map((attempt, index) => turnStep(`Attempt ${index + 1}`, attempt, [
        attempt.similarity === null ? null : gauge(attempt.similarity, gamma),
        index === repair.accepted ? element('span', { class: 'accepted' }, 'accepted') : null,
      ], index === repair.accepted ? 'good' : attempt.outcome && attempt.outcome.status === 'ok' ? 'fine' : 'bad')),
      element('li', { class: `step decision ${known}` }, element('div', { class: 'step-head' }, element('b', {}, 'Decision')),
        element('p', { class: 'why' }, why),
        known === 'shallow' || known === 'deep' ? difference(before, after) : null)));
}
