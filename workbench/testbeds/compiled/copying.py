"""Hand-compiled beds that copy a token: one head, chains of values, parallel and opposing heads.

Prompts are [0, tokens...]: 0 begins every prompt, the other tokens are random.
"""

from __future__ import annotations

import random

from workbench.testbeds.compiled.plan import (
    OUT,
    POSITION,
    TOKEN,
    Head,
    Maps,
    Plan,
    at_position,
    constant,
    eye,
    layout,
    shifted,
)
from workbench.testbeds.compiled.recipe import GAIN, Recipe
from workbench.testbeds.pairs import Draw, Drawn
from workbench.testbeds.truth import Edge

N_TOKENS, N_CTX, N_HEADS = 8, 7, 4


def _plan(*heads: Head, n_layers: int, **spaces: int) -> Plan:
    return Plan(
        layout=layout(d_vocab=N_TOKENS, n_ctx=N_CTX, out=N_TOKENS, **spaces),
        n_layers=n_layers,
        n_heads=N_HEADS,
        heads=heads,
        neurons=(),
        readout=GAIN * eye(N_TOKENS),
    )


def _copy(layer: int, head: int, place: int, read: str, write: str, *, size: float = 1.0) -> Head:
    """From every position, copy `size` times one subspace at `place` to another."""
    return Head(
        layer=layer,
        head=head,
        query=constant(),
        key=at_position(place, N_CTX),
        value={read: eye(N_TOKENS)},
        write={write: size * eye(N_TOKENS)},
    )


def copied_from(place: int) -> Draw:
    """All tokens are drawn anew for the counterfactual; that at `place`, the answer, is another one."""

    def draw(rng: random.Random, index: int) -> Drawn:
        clean, other = ([0, *(rng.randrange(1, N_TOKENS) for _ in range(N_CTX - 1))] for _ in "12")
        while other[place] == clean[place]:
            other[place] = rng.randrange(1, N_TOKENS)
        return Drawn(clean, other, clean[place], other[place])

    return draw


def previous_token() -> Plan:
    """One head of the second block attends to the position before."""
    here: Maps = {POSITION: eye(N_CTX)}
    head = Head(
        layer=1, head=2, query=shifted(N_CTX, 1), key=here,
        value={TOKEN: eye(N_TOKENS)}, write={OUT: eye(N_TOKENS)},
    )  # fmt: skip
    return _plan(head, n_layers=2)


def two_hop() -> Plan:
    """Position 1 is copied to position 2, and from there to the end."""
    heads = (_copy(0, 1, 1, TOKEN, "copy"), _copy(1, 2, 2, "copy", OUT))
    return _plan(*heads, n_layers=2, copy=N_TOKENS)


def chain() -> Plan:
    """Three heads, each reading what the one before wrote: position 1, then 2, then 3."""
    heads = (
        _copy(0, 3, 1, TOKEN, "first"),
        _copy(1, 0, 2, "first", "second"),
        _copy(2, 1, 3, "second", OUT),
    )
    return _plan(*heads, n_layers=3, first=N_TOKENS, second=N_TOKENS)


def parallel() -> Plan:
    """Two heads of different blocks copy the same token, one two thirds of the answer, one a third."""
    heads = (_copy(0, 1, 1, TOKEN, OUT, size=2 / 3), _copy(1, 3, 1, TOKEN, OUT, size=1 / 3))
    return _plan(*heads, n_layers=2)


def suppression() -> Plan:
    """A head copies the token; a later one reads that at its own position and takes half of it away."""
    own: Maps = {POSITION: eye(N_CTX)}
    taker = Head(
        layer=1, head=3, query=own, key=own,
        value={OUT: eye(N_TOKENS)}, write={OUT: -0.5 * eye(N_TOKENS)},
    )  # fmt: skip
    return _plan(_copy(0, 2, 1, TOKEN, OUT), taker, n_layers=2)


PREVIOUS: tuple[Edge, ...] = (("embed", "a1.h2.v"), ("a1.h2", "logit"))
RECIPES = {
    "previous_token": Recipe(
        title="The token before the last",
        description="a1.h2 attends to the position before its own and copies the token.",
        plan=previous_token,
        edges=PREVIOUS,
        draw=copied_from(N_CTX - 2),
    ),
    "two_hop": Recipe(
        title="The token at position 1, in two hops",
        description="a0.h1 copies it to all later positions; a1.h2 reads that copy at position 2.",
        plan=two_hop,
        edges=(("embed", "a0.h1.v"), ("a0.h1", "a1.h2.v"), ("a1.h2", "logit")),
        draw=copied_from(1),
    ),
    "chain": Recipe(
        title="The token at position 1, in three hops",
        description="Three heads in a chain of values: a0.h3, a1.h0, a2.h1.",
        plan=chain,
        edges=(("embed", "a0.h3.v"), ("a0.h3", "a1.h0.v"), ("a1.h0", "a2.h1.v"), ("a2.h1", "logit")),
        draw=copied_from(1),
    ),
    "parallel": Recipe(
        title="The token at position 1, by two heads at once",
        description="a0.h1 writes two thirds of the answer, a1.h3 one third; each alone still answers.",
        plan=parallel,
        edges=(("embed", "a0.h1.v"), ("a0.h1", "logit"), ("embed", "a1.h3.v"), ("a1.h3", "logit")),
        draw=copied_from(1),
    ),
    "suppression": Recipe(
        title="The token at position 1, partly taken back",
        description="a0.h2 copies it; a1.h3 reads the copy at the last position and subtracts half of it.",
        plan=suppression,
        edges=(("embed", "a0.h2.v"), ("a0.h2", "logit"), ("a0.h2", "a1.h3.v"), ("a1.h3", "logit")),
        draw=copied_from(1),
        note="The edges through a1.h3 have negative effects.",
    ),
}  # fmt: skip
