/**
 * Feature card: heat text by activation range, histogram, logit effects, neighbours.
 *
 * The state is the model's traits (workbench/panels/feature_card.py). A card that the page carries is in
 * `cards`; otherwise the browser sets `feature` and draws when Python has answered with `card` and `packed`.
 * Text comes from corpora and vocabularies: it enters the page through `textContent` only.
 *
 * @typedef {{bin: number, value: number, document: string, peak: number, tokens: string[], activations: number[]}} Example
 */

const STEPS = 65535;
const SETTLE_MS = 50;
const SLOW_MS = 1500;

/** The examples of a card and its binary half: the inverse of workbench/panels/packing.py. */
export function unpack(card, packed) {
  const n = packed.byteLength / 4;
  const token = (i) => card.strings[packed.getUint16(2 * i, true)];
  const activation = (i) => (packed.getUint16(2 * (n + i), true) / STEPS) * card.scale;
  return card.examples.map(([bin, start, length, peak, value, document]) => {
    const at = Array.from({ length }, (_, j) => start + j);
    return { bin, value, document, peak, tokens: at.map(token), activations: at.map(activation) };
  });
}

/** A token as it is shown: line ends and tabs become visible marks, nothing is lost. */
export function tokenText(token) {
  return token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");
}

/** A token named in a sentence: spaces are made visible too. */
export function tokenName(token) {
  return `“${tokenText(token).replaceAll(" ", "␣")}”`;
}

/** A number with three significant digits, for people. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e4 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** A fraction as a percentage with three significant digits. */
export function percent(fraction) {
  return fraction === null || fraction === undefined ? "–" : `${short(100 * fraction)}%`;
}

/** What an activation range is called: 0 is the top examples, 1 and up go from high to low. */
export function binName(bin, last) {
  if (bin === 0) return "Top";
  if (bin === 1 && last > 1) return "High";
  if (bin === last) return last === 1 ? "Lower" : "Low";
  return `Range ${bin}`;
}

/** What the examples of a range are: `ranges` holds the borders, lowest first; range q is the q-th from the top. */
export function binText(bin, ranges) {
  if (bin === 0) return "The largest activations, one per block of text.";
  const [low, high] = [ranges.at(-bin - 1), ranges.at(-bin)];
  return `A random draw of the firings between ${short(low)} and ${short(high)}.`;
}

/** Heights in [0, 1] of the histogram's bars, linear or in log(1 + count). */
export function barHeights(counts, logarithmic) {
  const scaled = counts.map((count) => (logarithmic ? Math.log1p(count) : count));
  const top = Math.max(...scaled, 0);
  return scaled.map((value) => (top > 0 ? value / top : 0));
}

/** The feature `steps` away from `feature`: in the offered list if there is one, else in 0 .. n - 1. */
export function neighbourIn(feature, steps, offered, n) {
  if (offered.length) {
    const at = Math.max(offered.indexOf(feature), 0) + steps;
    return offered[Math.min(Math.max(at, 0), offered.length - 1)];
  }
  return Math.min(Math.max(feature + steps, 0), n - 1);
}

/** Why a feature cannot be shown here, or "" when it can. */
export function refusal(feature, offered, n) {
  if (!Number.isInteger(feature) || feature < 0 || feature >= n) return `There is no feature ${feature}: 0 to ${n - 1}.`;
  if (offered.length && !offered.includes(feature))
    return `Feature ${feature} is not in this file; open the run in a notebook to see it.`;
  return "";
}

/** An element with attributes and children; strings become text nodes. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null) continue;
    node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function svg(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** One example: its value, its heat text, its document. Arrow keys walk the tokens. */
function exampleRow(example, scale, say) {
  const text = el("span", { class: "wb-text" });
  const spans = example.tokens.map((token, i) => {
    const span = el("span", { class: "wb-tok" }, tokenText(token));
    span.style.setProperty("--wb-heat", `${Math.round((100 * example.activations[i]) / scale)}%`);
    if (example.activations[i] > 0) span.classList.add("wb-on");
    if (i === example.peak) span.classList.add("wb-peak");
    text.append(span);
    return span;
  });
  const row = el("li", { tabindex: "0" }, el("span", { class: "wb-value" }, short(example.value)), text);
  row.append(el("span", { class: "wb-doc", title: example.document }, example.document));
  let cursor = example.peak;
  const point = (i) => {
    spans[cursor]?.classList.remove("wb-cursor");
    cursor = Math.min(Math.max(i, 0), spans.length - 1);
    spans[cursor]?.classList.add("wb-cursor");
    say(`Token ${tokenName(example.tokens[cursor])}: activation ${short(example.activations[cursor])}.`);
  };
  text.addEventListener("pointerover", (event) => {
    const i = spans.indexOf(event.target);
    if (i >= 0) point(i);
  });
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const move = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (step) point(cursor + step);
    else if (move) move.focus();
    else return;
    event.preventDefault();
  });
  return row;
}

/** The histogram as SVG bars with its range below, and a button for the scale. */
function histogram({ edges, counts }) {
  const [width, height] = [260, 72];
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "wb-bars" });
  const total = counts.reduce((a, b) => a + b, 0);
  const span = edges.length ? `${short(edges[0])} to ${short(edges.at(-1))}` : "no activation";
  picture.setAttribute("aria-label", `Histogram of ${total} activations, ${span}`);
  const bars = counts.map((count, i) => {
    const bar = svg("rect", { x: (i * width) / counts.length, width: Math.max(width / counts.length - 1, 0.5) });
    bar.append(svg("title", {}));
    bar.firstChild.textContent = `${short(edges[i])} to ${short(edges[i + 1])}: ${count}`;
    picture.append(bar);
    return bar;
  });
  const button = el("button", { type: "button", "aria-pressed": "true" }, "log scale");
  const draw = (logarithmic) =>
    barHeights(counts, logarithmic).forEach((share, i) => {
      bars[i].setAttribute("y", height * (1 - share));
      bars[i].setAttribute("height", height * share);
    });
  button.addEventListener("click", () => {
    const logarithmic = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(logarithmic));
    draw(logarithmic);
  });
  draw(true);
  const ends = el("div", { class: "wb-ends" }, el("span", {}, short(edges[0])), button, el("span", {}, short(edges.at(-1))));
  return el("figure", {}, el("figcaption", {}, "Activations when it fires"), picture, ends);
}

/** Tokens whose logit the feature raises or lowers, with a bar each. */
function logitTable(title, rows) {
  const top = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-12);
  const body = el("tbody", {});
  for (const [token, value] of rows) {
    const bar = el("span", { class: "wb-bar" });
    bar.style.width = `${Math.round((100 * Math.abs(value)) / top)}%`;
    const cell = el("td", { class: "wb-number" }, `${value > 0 ? "+" : ""}${short(value)}`);
    body.append(el("tr", {}, el("th", { scope: "row" }, tokenText(token).replaceAll(" ", "␣")), cell, el("td", { class: "wb-barcell", "aria-hidden": "true" }, bar)));
  }
  return el("table", { class: "wb-logits" }, el("caption", {}, title), body);
}

/** Neighbours by decoder cosine: buttons where the page can show them. */
function neighbourList(neighbours, allowed, go) {
  const list = el("ul", { class: "wb-neighbours" });
  for (const [feature, cosine] of neighbours) {
    const label = `${feature}`;
    const item = allowed(feature)
      ? el("button", { type: "button", "aria-label": `Show feature ${feature}` }, label)
      : el("span", {}, label);
    if (item.tagName === "BUTTON") item.addEventListener("click", () => go(feature));
    list.append(el("li", {}, item, el("span", { class: "wb-number" }, ` ${short(cosine)}`)));
  }
  return el("div", {}, el("p", { class: "wb-label" }, "Nearest by decoder cosine"), list);
}

function statisticsLine({ density_frac, n_fired, mean, max, dead }) {
  if (dead) return "Dead: it never fired on this text.";
  return `Fires on ${percent(density_frac)} of tokens (${(n_fired ?? 0).toLocaleString("en")}); mean ${short(mean)}, max ${short(max)}.`;
}

/** The examples with one button per activation range. */
function exampleBlock(examples, { scale, ranges }, say) {
  const bins = [...new Set(examples.map((example) => example.bin))].sort((a, b) => a - b);
  const list = el("ol", { class: "wb-examples" });
  const about = el("p", { class: "wb-label" });
  const buttons = bins.map((bin) => el("button", { type: "button" }, binName(bin, bins.at(-1))));
  const show = (at) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === at)));
    about.textContent = binText(bins[at], ranges);
    list.replaceChildren(...examples.filter((e) => e.bin === bins[at]).map((e) => exampleRow(e, scale, say)));
  };
  buttons.forEach((button, i) => button.addEventListener("click", () => show(i)));
  if (bins.length) show(0);
  const group = el("div", { role: "group", "aria-label": "Activation range", class: "wb-bins" }, ...buttons);
  return el("div", { class: "wb-left" }, group, about, list);
}

/** The body of the card: everything below its heading. */
function body(card, packed, { say, go, allowed }) {
  const left = exampleBlock(unpack(card, packed), card, say);
  const right = el("div", { class: "wb-right" });
  if (card.histogram.counts.length) right.append(histogram(card.histogram));
  if (card.up.length) right.append(el("div", { class: "wb-pair" }, logitTable("Raises", card.up), logitTable("Lowers", card.down)));
  if (card.neighbours.length) right.append(neighbourList(card.neighbours, allowed, go));
  return el("div", { class: "wb-columns" }, left, right);
}

/** The heading with the number field and its two buttons. */
function heading(model) {
  const most = String(Math.max(model.get("n_features") - 1, 0));
  const number = el("input", { type: "number", min: "0", max: most, step: "1", "aria-label": "Feature number" });
  const back = el("button", { type: "button", "aria-label": "Previous feature", title: "Previous feature" }, "◂");
  const next = el("button", { type: "button", "aria-label": "Next feature", title: "Next feature" }, "▸");
  const stats = el("span", { class: "wb-stats" });
  const bar = el("header", {}, el("span", { class: "wb-name" }, "Feature"), back, number, next, stats);
  if (model.get("subtitle")) bar.append(el("span", { class: "wb-subtitle" }, model.get("subtitle")));
  return { bar, number, back, next, stats };
}

/** The card of the wanted feature if it is here: shipped with the page, or answered by Python. */
export function cardFor(model, feature) {
  const shipped = (model.get("cards") ?? {})[String(feature)];
  if (shipped) return shipped;
  const card = model.get("card");
  return card && card.feature === feature ? { card, packed: model.get("packed") } : null;
}

function render({ model, el: root }) {
  const stop = new AbortController();
  const top = heading(model);
  const status = el("p", { role: "status", class: "wb-status" });
  const content = el("div", { class: "wb-body" });
  const section = el("section", { class: "wb-card", "data-lm-suppress-shortcuts": "true" }, top.bar, content, status);
  root.replaceChildren(section);
  const offered = () => model.get("offered") ?? [];
  const count = () => model.get("n_features");
  const say = (text) => (status.textContent = text);
  let [wanted, timer, slow] = [model.get("feature"), 0, 0];

  const draw = () => {
    section.setAttribute("aria-label", `Feature ${wanted}`);
    top.number.value = String(wanted);
    const found = cardFor(model, wanted);
    if (!found) return;
    clearTimeout(slow);
    section.removeAttribute("aria-busy");
    top.stats.textContent = statisticsLine(found.card.statistics);
    content.replaceChildren(body(found.card, found.packed, { say, go, allowed: (f) => !refusal(f, offered(), count()) }));
    section.dataset.shown = String(wanted);
    say("");
  };
  const ask = () => {
    model.set("feature", wanted);
    model.save_changes();
  };
  const go = (feature) => {
    const reason = refusal(feature, offered(), count());
    if (reason) return say(reason);
    if (feature === wanted) return;
    wanted = feature;
    [timer, slow].forEach(clearTimeout);
    section.setAttribute("aria-busy", "true");
    timer = setTimeout(ask, SETTLE_MS);
    slow = setTimeout(() => say("Waiting for Python (a busy or stopped kernel cannot answer)."), SLOW_MS);
    draw();
  };
  const followPython = () => {
    if (model.get("feature") === wanted) return; // our own request: drawn already, and a refusal may be on show
    wanted = model.get("feature");
    draw();
  };
  const step = (by) => go(neighbourIn(wanted, by, offered(), count()));
  const listen = (node, event, action) => node.addEventListener(event, action, { signal: stop.signal });
  listen(top.back, "click", () => step(-1));
  listen(top.next, "click", () => step(1));
  listen(top.number, "change", () => go(Number(top.number.value)));
  listen(top.number, "keydown", (event) => {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
  model.on("change:feature", followPython);
  model.on("change:card", draw);
  model.on("change:packed", draw);
  draw();
  return () => {
    stop.abort();
    [timer, slow].forEach(clearTimeout);
    model.off("change:feature", followPython);
    model.off("change:card", draw);
    model.off("change:packed", draw);
  };
}

export default { render };
