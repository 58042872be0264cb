"""Hand-compiled beds in which a head finds its source by content: keys, queries and both are composed.

Each bed has several kinds of counterfactual, taken in turn, so that values, keys and queries are all
changed by some pairs of a batch; the truth is the union over the kinds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from workbench.testbeds.compiled.plan import (
    ONE,
    OUT,
    POSITION,
    TOKEN,
    Head,
    Plan,
    at_position,
    constant,
    eye,
    layout,
    pick,
    shifted,
)
from workbench.testbeds.compiled.recipe import GAIN, Recipe
from workbench.testbeds.pairs import Drawn

N_HEADS = 4
# Induction: [0, key, value, key, value, key, value, key], all of the first six different.
INDUCTION_TOKENS, N_ENTRIES = 10, 3
INDUCTION_CTX = 2 * N_ENTRIES + 2
# Pointer: [0, pointer, token at slot 0, ..., 0]; tokens 1 to N_SLOTS are pointers.
N_SLOTS, POINTER_TOKENS = 4, 12
POINTER_CTX = N_SLOTS + 3
# Indirect object: [0, name, name, filler, repeated name, filler, 0].
N_NAMES, IOI_TOKENS, IOI_CTX = 6, 10, 7
REPEAT = 4


def induction() -> Plan:
    """Every token notes the one before it; the last attends to where that note is its own token."""
    tokens = eye(INDUCTION_TOKENS)
    previous = Head(
        layer=0, head=1, query=shifted(INDUCTION_CTX, 1), key={POSITION: eye(INDUCTION_CTX)},
        value={TOKEN: tokens}, write={"before": tokens},
    )  # fmt: skip
    finder = Head(
        layer=1, head=2, query={TOKEN: tokens}, key={"before": tokens},
        value={TOKEN: tokens}, write={OUT: tokens},
    )  # fmt: skip
    return Plan(
        layout=layout(
            d_vocab=INDUCTION_TOKENS, n_ctx=INDUCTION_CTX, out=INDUCTION_TOKENS, before=INDUCTION_TOKENS
        ),
        n_layers=2,
        n_heads=N_HEADS,
        heads=(previous, finder),
        neurons=(),
        readout=GAIN * tokens,
    )


def draw_induction(rng: random.Random, index: int) -> Drawn:
    """In turn: another query, two keys exchanged, two values exchanged."""
    drawn = rng.sample(range(1, INDUCTION_TOKENS), 2 * N_ENTRIES)
    asked, other = rng.sample(range(N_ENTRIES), 2)
    clean = [0, *drawn, drawn[2 * asked]]
    changed, part = list(clean), (None, 1, 2)[index % 3]
    if part is None:
        changed[-1] = drawn[2 * other]
    else:
        places = (2 * asked + part, 2 * other + part)
        changed = _exchanged(clean, places)
    return Drawn(clean, changed, drawn[2 * asked + 1], drawn[2 * other + 1])


def _exchanged(prompt: Sequence[int], places: tuple[int, int]) -> list[int]:
    changed = list(prompt)
    changed[places[0]], changed[places[1]] = changed[places[1]], changed[places[0]]
    return changed


def pointer() -> Plan:
    """The token at position 1 says which slot to read: a query made by another head."""
    fetch = Head(
        layer=0, head=0, query=constant(), key=at_position(1, POINTER_CTX),
        value={TOKEN: pick(POINTER_TOKENS, *range(1, N_SLOTS + 1))}, write={"pointer": eye(N_SLOTS)},
    )  # fmt: skip
    read = Head(
        layer=1, head=1, query={"pointer": eye(N_SLOTS)},
        key={POSITION: pick(POINTER_CTX, *range(2, N_SLOTS + 2))},
        value={TOKEN: eye(POINTER_TOKENS)}, write={OUT: eye(POINTER_TOKENS)},
    )  # fmt: skip
    return Plan(
        layout=layout(d_vocab=POINTER_TOKENS, n_ctx=POINTER_CTX, out=POINTER_TOKENS, pointer=N_SLOTS),
        n_layers=2,
        n_heads=N_HEADS,
        heads=(fetch, read),
        neurons=(),
        readout=GAIN * eye(POINTER_TOKENS),
    )


def draw_pointer(rng: random.Random, index: int) -> Drawn:
    """In turn: another pointer, another token in the slot."""
    slots = rng.sample(range(N_SLOTS + 1, POINTER_TOKENS), N_SLOTS)
    asked, other = rng.sample(range(N_SLOTS), 2)
    clean = [0, asked + 1, *slots, 0]
    changed = [0, other + 1, *slots, 0] if index % 2 == 0 else _exchanged(clean, (asked + 2, other + 2))
    return Drawn(clean, changed, slots[asked], slots[other])


def ioi() -> Plan:
    """A repeated name finds its first place, which is kept out of what the last head reads."""
    names = pick(IOI_TOKENS, *range(1, N_NAMES + 1))
    duplicate = Head(
        layer=0, head=3, query={TOKEN: names}, key={TOKEN: names},
        value={POSITION: pick(IOI_CTX, 1, 2)}, write={"earlier": 2 * eye(2)},
    )  # fmt: skip
    inhibit = Head(
        layer=1, head=0, query=constant(), key=at_position(REPEAT, IOI_CTX),
        value={"earlier": eye(2)}, write={"inhibited": eye(2)},
    )  # fmt: skip
    mover = Head(
        layer=2, head=2,
        query={ONE: torch.ones(2, 1, dtype=torch.float64), "inhibited": -eye(2)},
        key={POSITION: pick(IOI_CTX, 1, 2)}, value={TOKEN: names}, write={OUT: eye(N_NAMES)},
    )  # fmt: skip
    return Plan(
        layout=layout(d_vocab=IOI_TOKENS, n_ctx=IOI_CTX, out=N_NAMES, earlier=2, inhibited=2),
        n_layers=3,
        n_heads=N_HEADS,
        heads=(duplicate, inhibit, mover),
        neurons=(),
        readout=GAIN * names.T,
    )


def draw_ioi(rng: random.Random, index: int) -> Drawn:
    """In turn: the other name is repeated, and moreover the two names change places."""
    names = rng.sample(range(1, N_NAMES + 1), 2)
    fillers = [rng.randrange(N_NAMES + 1, IOI_TOKENS) for _ in range(2)]
    repeated = rng.randrange(2)

    def prompt(first: int, second: int, again: int) -> list[int]:
        return [0, first, second, fillers[0], again, fillers[1], 0]

    clean = prompt(names[0], names[1], names[repeated])
    order = (names[0], names[1]) if index % 2 == 0 else (names[1], names[0])
    changed = prompt(*order, names[1 - repeated])
    return Drawn(clean, changed, names[1 - repeated], names[repeated])


RECIPES = {
    "induction": Recipe(
        title="Induction: the token that followed the last one before",
        description="a0.h1 copies the previous token; a1.h2 matches the last token with those copies.",
        plan=induction,
        edges=(
            ("embed", "a0.h1.v"), ("a0.h1", "a1.h2.k"), ("embed", "a1.h2.q"), ("embed", "a1.h2.v"),
            ("a1.h2", "logit"),
        ),
        draw=draw_induction,
    ),
    "pointer": Recipe(
        title="The token of the slot that a pointer names",
        description="a0.h0 fetches the pointer; it is the query with which a1.h1 reads the slot.",
        plan=pointer,
        edges=(("embed", "a0.h0.v"), ("a0.h0", "a1.h1.q"), ("embed", "a1.h1.v"), ("a1.h1", "logit")),
        draw=draw_pointer,
    ),
    "ioi": Recipe(
        title="The name that is not repeated",
        description="a0.h3 finds the repeated name's first place, a1.h0 brings it to the end, a2.h2 avoids it.",
        plan=ioi,
        edges=(
            ("embed", "a0.h3.q"), ("embed", "a0.h3.k"), ("a0.h3", "a1.h0.v"), ("a1.h0", "a2.h2.q"),
            ("embed", "a2.h2.v"), ("a2.h2", "logit"),
        ),
        draw=draw_ioi,
    ),
}  # fmt: skip
