// A turn's text for a reader: calls as code instead of one line of escaped JSON, special tokens set small.
let rawText = false;

const SPECIAL = /<\|[^|<>\n]{1,40}\|>|<\/?(?:tool_call|tool_response|tools|think)>/g;
const CALL = /<tool_call>\s*(\{[^]*?\})\s*<\/tool_call>/g;

// Text with its special tokens in elements of their own.
function withSpecials(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(SPECIAL)) {
    parts.push(text.slice(from, match.index), element('span', { class: 'special' }, match[0]));
    from = match.index + match[0].length;
  }
  return [...parts, text.slice(from)].filter((part) => part !== '');
}

// The code in a Hermes call's JSON, null where there is none.
function codeOf(json) {
  try {
    const { arguments: values } = JSON.parse(json);
    return values && typeof values.code === 'string' ? values.code : null;
  } catch {
    return null;
  }
}

// [{code} | {text}] in order.
function split(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(CALL)) {
    const code = codeOf(match[1]);
    if (code === null) continue;
    parts.push({ text: text.slice(from, match.index) }, { code });
    from = match.index + match[0].length;
  }
  return [...parts, { text: text.slice(from) }].filter((part) => part.code !== undefined || part.text);
}

function modelText(text) {
  if (rawText) return [element('span', { class: 'raw' }, text)];
  return split(text).flatMap((part) => part.code === undefined
    ? withSpecials(part.text.replace(/<\|im_end\|>\s*$/, '').replace(/^\n+|\n+$/g, ''))
    : element('span', { class: 'call' }, element('span', { class: 'call-mark' }, 'tool call'), part.code));
}

// The same as plain text, for comparing: code on lines of its own.
function plainTurn(text, turns) {
  let plain = text;
  for (const turn of turns) {
    if (turn && turn.code !== null && turn.call.trim()) plain = plain.split(turn.call.trim()).join(turn.code.trim());
  }
  return split(plain).map((part) => part.code === undefined ? part.text.trim() : part.code.trim()).join('\n')
    .replace(/<\|im_end\|>|<\/?tool_call>/g, '').replace(/\n{2,}/g, '\n').trim();
}
