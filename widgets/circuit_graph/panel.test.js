import assert from "node:assert/strict";
import { test } from "node:test";
import { arrow, effect, layout, nodeName, prune, rowKey, scaleOf, shape, signed } from "./panel.js";

const node = (id, kind, layer, rest = {}) => ({
  id, kind, layer, head: -1, feature: -1, pos: -1, in_circuit: true, attributed_logits: 1, patched_logits: null, ...rest,
});
const NODES = [
  node("logit", "logit", 4),
  node("m0", "mlp", 0, { attributed_logits: -0.2 }),
  node("h0.1", "head", 0, { head: 1, patched_logits: 2 }),
  node("h0.0", "head", 0, { head: 0 }),
  node("f1", "feature", 1, { feature: 113, pos: 7, attributed_logits: 0.05 }),
  node("embed", "embed", -1, { attributed_logits: null }),
];

test("rows follow the order of computation, logits on top", () => {
  const { placed, rows } = layout(NODES);
  const order = [...placed].sort((a, b) => b.y - a.y).map((p) => p.node.id);
  assert.equal(order[0], "embed");
  assert.equal(order.at(-1), "logit");
  assert.ok(order.indexOf("h0.0") < order.indexOf("m0"));
  assert.ok(order.indexOf("m0") < order.indexOf("f1"));
  assert.deepEqual(rows.map((r) => r.name), ["logits", "layer 1 features", "layer 0 MLP", "layer 0 attention heads", "embedding"]);
});

test("no two nodes share a place, and size grows with the exact effect", () => {
  const { placed } = layout(NODES);
  assert.equal(new Set(placed.map((p) => `${p.x},${p.y}`)).size, NODES.length);
  const size = Object.fromEntries(placed.map((p) => [p.node.id, p.r]));
  assert.ok(size["h0.1"] > size["h0.0"] && size["h0.0"] > size.f1);
});

test("the embedding does not set the scale", () => {
  const far = node("embed", "embed", -1, { attributed_logits: 50 });
  assert.equal(scaleOf([far, ...NODES.slice(0, 3)]), 2);
  assert.ok(layout([far, ...NODES]).placed.every((p) => p.r <= 13));
});

test("pruning keeps the ends and drops small effects of either sign", () => {
  assert.deepEqual(prune(NODES, 0.5).map((n) => n.id), ["logit", "h0.1", "h0.0", "embed"]);
  assert.equal(effect(NODES[2]), 2);
});

test("arrow keys walk a row, change rows, and stop at the edges", () => {
  const { placed } = layout(NODES);
  assert.equal(arrow(placed, "h0.0", "ArrowRight"), "h0.1");
  assert.equal(arrow(placed, "h0.1", "ArrowRight"), "h0.1");
  assert.equal(arrow(placed, "h0.0", "ArrowUp"), "m0");
  assert.equal(arrow(placed, "embed", "ArrowDown"), "embed");
  assert.equal(arrow(placed, "gone", "ArrowDown"), arrow(placed, placed[0].node.id, "ArrowDown"));
});

test("names, shapes and numbers are readable", () => {
  assert.equal(nodeName(NODES[4]), "feature 1/113 @ 7");
  assert.equal(nodeName(NODES[2]), "head 0.1");
  assert.equal(new Set(NODES.map((n) => shape(n.kind, 5))).size, 5);
  assert.equal(signed(0.12345), "+0.123 logits");
  assert.equal(signed(-2, "pre-activation"), "-2 pre-activation");
  assert.equal(signed(null), "not measured");
  assert.ok(rowKey(NODES[0]) > rowKey(NODES[4]));
});

test("an empty graph has no rows and no crash", () => {
  assert.deepEqual(layout([]).placed, []);
  assert.equal(arrow([], "x", "ArrowUp"), "x");
});
