/**
 * Circuit graph: traced nodes in the model's order of computation, the links between them, one in detail.
 *
 * Shape tells the kind, size the first-order effect, a dashed link is negative, a hollow node is outside the
 * circuit. Arrow keys walk the nodes; a slider prunes by effect, in the browser.
 *
 * @typedef {{id: string, kind: string, layer: number, head: number, feature: number, pos: number,
 *   in_circuit: boolean, attributed_logits: number|null, patched_logits: number|null}} Node
 */

const ORDER = { embed: 0, head: 1, mlp: 2, feature: 3, error: 4, logit: 5 };
const NAMES = { embed: "embedding", head: "attention heads", mlp: "MLP", feature: "features", error: "errors", logit: "logits" };
const [WIDTH, ROW, LEFT, GAP] = [860, 62, 160, 15];

/** What a node is called: "head 2.5", "feature 2/113 @ 7". */
export function nodeName({ kind, layer, head, feature, pos }) {
  const where = pos >= 0 ? ` @ ${pos}` : "";
  if (kind === "head") return `head ${layer}.${head}${where}`;
  if (kind === "feature") return `feature ${layer}/${feature}${where}`;
  if (kind === "embed" || kind === "logit") return `${kind === "embed" ? "embedding" : "logit"}${where}`;
  return `${kind} ${layer}${where}`;
}

/** The effect that a node is drawn with: exact where it was patched, first-order elsewhere. */
export function effect(node) {
  return node.patched_logits ?? node.attributed_logits ?? 0;
}

/** The row of a node: the model's order of computation, as one number. */
export function rowKey({ kind, layer }) {
  if (kind === "embed") return -1;
  if (kind === "logit") return 1e6;
  return 10 * Math.max(layer, 0) + ORDER[kind];
}

/** Nodes with an absolute effect of at least `least`; embeddings and logits stay. */
export function prune(nodes, least) {
  return nodes.filter((n) => n.kind === "logit" || n.kind === "embed" || Math.abs(effect(n)) >= least);
}

/** The effect that is drawn largest: the embedding's and the error's, which are of the whole rest, do not set the scale. */
export function scaleOf(nodes) {
  const parts = nodes.filter((n) => n.kind !== "embed" && n.kind !== "error");
  return Math.max(...parts.map((n) => Math.abs(effect(n))), 1e-12);
}

/** Places for nodes: rows from the embedding (bottom) to the logits (top), evenly spread within a row. */
export function layout(nodes) {
  const keys = [...new Set(nodes.map(rowKey))].sort((a, b) => b - a);
  const most = scaleOf(nodes);
  const placed = keys.flatMap((key, row) => {
    const members = nodes.filter((n) => rowKey(n) === key);
    members.sort((a, b) => a.pos - b.pos || a.head - b.head || a.feature - b.feature || (a.id < b.id ? -1 : 1));
    return members.map((node, i) => ({
      node,
      row,
      x: LEFT + ((i + 0.5) * (WIDTH - LEFT - GAP)) / members.length,
      y: ROW * (row + 0.5),
      r: 4 + 9 * Math.sqrt(Math.min(Math.abs(effect(node)) / most, 1)),
    }));
  });
  const rows = keys.map((key, row) => {
    const { kind, layer } = nodes.find((n) => rowKey(n) === key);
    const name = kind === "embed" || kind === "logit" ? NAMES[kind] : `layer ${layer} ${NAMES[kind]}`;
    return { name, y: ROW * (row + 0.5) };
  });
  return { placed, rows, height: ROW * Math.max(keys.length, 1) };
}

/** The node that an arrow key leads to: along the row, or the nearest in the next row. */
export function arrow(placed, id, key) {
  const from = placed.find((p) => p.node.id === id) ?? placed[0];
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  if (!from || !step) return id;
  const along = key === "ArrowLeft" || key === "ArrowRight";
  const row = placed.filter((p) => p.row === (along ? from.row : from.row + step)).sort((a, b) => a.x - b.x);
  if (!row.length) return id;
  if (along) return row[Math.min(Math.max(row.indexOf(from) + step, 0), row.length - 1)].node.id;
  return row.reduce((best, p) => (Math.abs(p.x - from.x) < Math.abs(best.x - from.x) ? p : best)).node.id;
}

/** Outline of a node's shape around (0, 0): the kind, readable without colour. */
export function shape(kind, r) {
  const points = (list) => `M${list.map(([x, y]) => `${(x * r).toFixed(1)} ${(y * r).toFixed(1)}`).join("L")}Z`;
  if (kind === "head") return points([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
  if (kind === "mlp") return points([[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]]);
  if (kind === "embed") return points([[0, -1.1], [1.1, 0.9], [-1.1, 0.9]]);
  if (kind === "logit") return points([[0, 1.1], [1.1, -0.9], [-1.1, -0.9]]);
  if (kind === "error") return points([[-0.5, -1], [0.5, -1], [1, 0], [0.5, 1], [-0.5, 1], [-1, 0]]);
  return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
}

/** A signed number with its unit, for people. */
export function signed(value, unit = "logits") {
  if (value === null || value === undefined) return "not measured";
  return `${value > 0 ? "+" : ""}${Number(value.toPrecision(3))} ${unit}`;
}

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function drawLink([source, target, weight, share], at) {
  const [a, b] = [at.get(source), at.get(target)];
  const middle = (a.y + b.y) / 2;
  const bow = Math.abs(a.x - b.x) < 24 ? Math.min(0.35 * Math.abs(a.y - b.y), 110) : 0;
  const d = `M${a.x} ${a.y}C${a.x + bow} ${middle} ${b.x + bow} ${middle} ${b.x} ${b.y}`;
  const path = svg("path", { d, class: "wb-link" });
  path.style.strokeWidth = `${0.4 + 3.6 * share}px`;
  if (weight < 0) path.classList.add("wb-negative");
  path.dataset.ends = JSON.stringify([source, target]);
  return path;
}

function drawNode({ node, x, y, r }) {
  const label = `${nodeName(node)}, effect ${signed(effect(node))}${node.in_circuit ? "" : ", outside the circuit"}`;
  const group = svg("g", { transform: `translate(${x} ${y})`, role: "button", tabindex: "-1", "aria-label": label, class: "wb-node" });
  group.append(svg("title"), svg("path", { d: shape(node.kind, r) }));
  group.firstChild.textContent = label;
  group.classList.add(`wb-${ORDER[node.kind] === undefined ? "feature" : node.kind}`);
  if (!node.in_circuit) group.classList.add("wb-outside");
  group.dataset.node = node.id;
  return group;
}

/** The picture: rows with their names, links under nodes. */
function picture({ placed, rows, height }, links, title) {
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": `Circuit of ${title}` });
  for (const { name, y } of rows) {
    const text = svg("text", { x: 0, y: y + 4, class: "wb-row" });
    text.textContent = name;
    root.append(svg("line", { x1: LEFT - 8, x2: WIDTH, y1: y, y2: y, class: "wb-rule" }), text);
  }
  const at = new Map(placed.map((p) => [p.node.id, p]));
  const shown = links.filter(([source, target]) => at.has(source) && at.has(target));
  root.append(...shown.map((link) => drawLink(link, at)), ...placed.map(drawNode));
  return root;
}

/** The heaviest links of a node as buttons that lead to the other end. */
function linkList(heading, links, end, names, go) {
  const list = el("ul");
  for (const link of links.slice(0, 6)) {
    const button = el("button", { type: "button" }, names.get(link[end]));
    button.addEventListener("click", () => go(link[end]));
    list.append(el("li", {}, button, ` ${signed(link[2], link[4])}`));
  }
  return links.length ? el("div", {}, el("p", { class: "wb-label" }, heading), list) : "";
}

function details(node, links, names, go) {
  const rows = [
    ["Exact effect (patched)", signed(node.patched_logits)],
    ["First-order estimate", signed(node.attributed_logits)],
    ["In the circuit", node.in_circuit ? "yes" : "no"],
  ];
  const list = el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const into = links.filter(([, target]) => target === node.id);
  const out = links.filter(([source]) => source === node.id);
  const heading = el("p", { class: "wb-name" }, nodeName(node));
  return [heading, list, linkList("From", into, 0, names, go), linkList("To", out, 1, names, go)].filter(Boolean);
}

/** The pruning slider: a native range input over the square root of the effect. */
function slider(nodes, changed) {
  const most = scaleOf(nodes);
  const input = el("input", { type: "range", min: "0", max: "100", value: "0", "aria-label": "Least effect shown" });
  const value = el("output", {}, "0 logits");
  input.addEventListener("input", () => {
    const least = most * (Number(input.value) / 100) ** 2;
    value.textContent = `${Number(least.toPrecision(2))} logits`;
    input.setAttribute("aria-valuetext", value.textContent);
    changed(least);
  });
  return el("label", { class: "wb-slider" }, "Least effect ", input, " ", value);
}

function legend(nodes) {
  const kinds = [...new Set(nodes.map((n) => n.kind))].sort((a, b) => ORDER[a] - ORDER[b]);
  const items = kinds.map((kind) => {
    const picture = svg("svg", { viewBox: "-9 -9 18 18", class: `wb-key wb-${kind}`, "aria-hidden": "true" });
    picture.append(svg("path", { d: shape(kind, 6) }));
    return el("span", {}, picture, NAMES[kind]);
  });
  return el("div", { class: "wb-legend" }, ...items, el("span", {}, "hollow: outside the circuit; dashed link: negative"));
}

function render({ model, el: root }) {
  const nodes = model.get("nodes");
  const links = model.get("links");
  const names = new Map(nodes.map((n) => [n.id, nodeName(n)]));
  const canvas = el("div", { class: "wb-picture" });
  const aside = el("div", { class: "wb-details", "aria-live": "polite" });
  const count = el("span", { class: "wb-soft" });
  let [least, drawn, selected] = [0, layout([]), model.get("selected")];

  const mark = (shown = selected) => {
    const touching = (ends) => JSON.parse(ends).includes(shown);
    for (const g of canvas.querySelectorAll(".wb-node")) {
      const on = g.dataset.node === selected;
      g.setAttribute("aria-pressed", String(on));
      g.setAttribute("tabindex", on ? "0" : "-1");
    }
    for (const path of canvas.querySelectorAll(".wb-link")) path.classList.toggle("wb-lit", touching(path.dataset.ends));
    const node = nodes.find((n) => n.id === shown);
    aside.replaceChildren(...(node ? details(node, links, names, select) : ["Choose a node."]));
  };
  const select = (id, { focus = false } = {}) => {
    selected = id;
    model.set("selected", id);
    model.save_changes();
    mark();
    if (focus) [...canvas.querySelectorAll(".wb-node")].find((g) => g.dataset.node === id)?.focus();
  };
  const draw = () => {
    const kept = prune(nodes, least);
    drawn = layout(kept);
    canvas.replaceChildren(picture(drawn, links, model.get("title")));
    const total = model.get("n_total");
    count.textContent = `${kept.length} of ${total} traced nodes shown. `;
    if (!kept.some((n) => n.id === selected)) {
      const parts = kept.filter((n) => n.kind !== "embed" && n.kind !== "error");
      selected = parts.reduce((a, b) => (Math.abs(effect(b)) > Math.abs(effect(a)) ? b : a), parts[0] ?? kept[0])?.id ?? "";
    }
    mark();
  };
  const nodeAt = (event) => event.target.closest(".wb-node")?.dataset.node;
  canvas.addEventListener("click", (event) => nodeAt(event) && select(nodeAt(event), { focus: true }));
  canvas.addEventListener("pointerover", (event) => mark(nodeAt(event)));
  canvas.addEventListener("pointerleave", () => mark());
  canvas.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    select(arrow(drawn.placed, selected, event.key), { focus: true });
  });
  const prunes = slider(nodes, (value) => {
    least = value;
    draw();
  });
  const bar = el("div", { class: "wb-top" }, legend(nodes), prunes);
  const columns = el("div", { class: "wb-columns" }, canvas, aside);
  const section = el("section", { class: "wb-graph", "aria-label": `Circuit graph: ${model.get("title")}`, "data-lm-suppress-shortcuts": "true" });
  section.append(bar, columns, el("p", { class: "wb-foot" }, count, "Click a node, or walk with the arrow keys."));
  root.replaceChildren(section);
  const follow = () => {
    if (model.get("selected") === selected) return;
    selected = model.get("selected");
    mark();
  };
  model.on("change:selected", follow);
  draw();
  return () => model.off("change:selected", follow);
}

export default { render };
