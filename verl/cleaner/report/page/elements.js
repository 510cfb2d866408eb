// Makes elements. Texts go in as text nodes; no markup is ever parsed.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

const drawing = (tag, attributes, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

// A mapping without the names that every object inherits: a recorded text may be `constructor`.
const table = (entries) => Object.assign(Object.create(null), entries);

const byId = (id) => document.getElementById(id);
