import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { barHeights, binName, binText, cardFor, neighbourIn, percent, refusal, short, tokenName, tokenText, unpack } from "./panel.js";

/* Written by workbench/panels/packing.py; tests/panels/test_packing.py checks that it still is. */
const fixture = JSON.parse(readFileSync(new URL("./fixture.json", import.meta.url), "utf8"));
const bytes = Buffer.from(fixture.packed, "base64");
const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

test("unpack gives back the tokens and activations that Python packed", () => {
  const examples = unpack(fixture.card, view);
  assert.equal(examples.length, fixture.expected.length);
  for (const [i, wanted] of fixture.expected.entries()) {
    const got = examples[i];
    assert.deepEqual(got.tokens, wanted.tokens);
    assert.equal(got.peak, wanted.peak);
    assert.equal(got.bin, wanted.quantile);
    assert.equal(got.document, wanted.document);
    for (const [j, value] of wanted.activations.entries()) {
      assert.ok(Math.abs(got.activations[j] - value) <= fixture.card.scale / 131070 + 1e-12);
    }
  }
});

test("a shifted block is noticed: the halves are not interchangeable", () => {
  const shifted = new DataView(bytes.buffer, bytes.byteOffset + 2, bytes.byteLength - 4);
  assert.notDeepEqual(unpack({ ...fixture.card, examples: fixture.card.examples.slice(0, 1) }, shifted)[0].tokens, fixture.expected[0].tokens);
});

test("control characters of tokens are visible and nothing is dropped", () => {
  assert.equal(tokenText("\n\tx"), "↵⇥x");
  assert.equal(tokenName(" a b"), "“␣a␣b”");
  assert.equal(tokenText("<script>"), "<script>");
});

test("numbers are short and honest about absence", () => {
  assert.equal(short(0.012345), "0.0123");
  assert.equal(short(123456), "1.2e+5");
  assert.equal(short(null), "–");
  assert.equal(percent(0.01234), "1.23%");
  assert.equal(percent(null), "–");
});

test("bars scale to the tallest, on both scales", () => {
  assert.deepEqual(barHeights([0, 5, 10], false), [0, 0.5, 1]);
  const logarithmic = barHeights([0, 1, 1000], true);
  assert.ok(logarithmic[1] > 0.05 && logarithmic[2] === 1);
  assert.deepEqual(barHeights([0, 0], true), [0, 0]);
  assert.deepEqual(barHeights([], true), []);
});

test("ranges have names from the top to the low end", () => {
  assert.deepEqual([0, 1, 2, 3, 4].map((b) => binName(b, 4)), ["Top", "High", "Range 2", "Range 3", "Low"]);
  assert.equal(binName(1, 1), "Lower");
  assert.match(binText(0, [0, 1, 2]), /largest/);
  assert.match(binText(1, [0, 1.5, 4]), /between 1.5 and 4/);
  assert.match(binText(2, [0, 1.5, 4]), /between 0 and 1.5/);
});

test("leafing stays inside what can be shown", () => {
  assert.equal(neighbourIn(0, -1, [], 10), 0);
  assert.equal(neighbourIn(9, 1, [], 10), 9);
  assert.equal(neighbourIn(3, 1, [], 10), 4);
  assert.equal(neighbourIn(30, 1, [12, 30, 7], 100), 7);
  assert.equal(neighbourIn(7, 1, [12, 30, 7], 100), 7);
});

test("a feature that cannot be shown is refused with a reason", () => {
  assert.match(refusal(10, [], 10), /no feature 10: 0 to 9/);
  assert.match(refusal(NaN, [], 10), /no feature/);
  assert.match(refusal(5, [1, 2], 10), /not in this file/);
  assert.equal(refusal(2, [1, 2], 10), "");
});

test("a card of another feature is never drawn for the wanted one", () => {
  const state = { cards: { 3: { card: { feature: 3 } } }, card: { feature: 5 }, packed: "p" };
  const model = { get: (name) => state[name] };
  assert.equal(cardFor(model, 3).card.feature, 3);
  assert.equal(cardFor(model, 5).packed, "p");
  assert.equal(cardFor(model, 6), null);
});
