"""The programs that the trained models implement: named variables, each with a place in the transformer.

    clamp     [0, a, b, c, 0]           s = max(a, b);    answer min(s, c)
    two_hop   [0, x, t0, .., t3, 0]     y = t[x];         answer t[y]
    choice    [0, a, c, d, b]           e = (a = b);      answer c if e else d

A value is a token value + 1; token 0 begins and ends prompts. `run` computes every variable, with some of them
given: that is an interchange intervention on the program.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

Values = dict[str, Tensor]
Given = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class HighLevel:
    """A program and where its variables are to be.

    Attributes:
        title: One line.
        description: What the prompts ask and which node holds what.
        n_values: Values of a variable; the answers are 0 to n_values - 1.
        n_inputs: Input tokens of a prompt.
        places: Position of each input token.
        n_ctx: Length of a prompt.
        n_layers: Blocks of the transformer.
        run: (inputs, given variables) to all variables; the last one is the answer.
        nodes: The head or MLP that holds each variable.
        edges: (node, node) between what holds a variable and what holds one computed from it, and "logit".
    """

    title: str
    description: str
    n_values: int
    n_inputs: int
    places: tuple[int, ...]
    n_ctx: int
    n_layers: int
    run: Callable[[Tensor, Given], Values]
    nodes: Mapping[str, str]
    edges: tuple[tuple[str, str], ...]

    def inputs(self) -> Int[Tensor, "prompt input"]:
        """Every input there is."""
        return torch.tensor(list(itertools.product(range(self.n_values), repeat=self.n_inputs)))

    def prompts(self, inputs: Int[Tensor, "prompt input"]) -> Int[Tensor, "prompt pos"]:
        """Inputs as token ids."""
        ids = inputs.new_zeros(len(inputs), self.n_ctx)
        ids[:, list(self.places)] = inputs + 1
        return ids

    def answer(
        self, inputs: Int[Tensor, "prompt input"], given: Given | None = None
    ) -> Int[Tensor, " prompt"]:
        """The answer, with some variables given."""
        return list(self.run(inputs, given or {}).values())[-1]


def _variables(given: Given, **rules: Callable[[Values], Tensor]) -> Values:
    """Each variable from those before it, unless it is given."""
    found: Values = {}
    for name, rule in rules.items():
        found[name] = given.get(name, rule(found))
    return found


def _clamp(inputs: Tensor, given: Given) -> Values:
    a, b, c = inputs.unbind(1)
    return _variables(
        given,
        a=lambda v: a,
        b=lambda v: b,
        s=lambda v: torch.maximum(v["a"], v["b"]),
        c=lambda v: c,
        out=lambda v: torch.minimum(v["s"], v["c"]),
    )


def _two_hop(inputs: Tensor, given: Given) -> Values:
    x, table = inputs[:, 0], inputs[:, 1:]
    return _variables(
        given,
        x=lambda v: x,
        y=lambda v: table.gather(1, v["x"][:, None])[:, 0],
        out=lambda v: table.gather(1, v["y"][:, None])[:, 0],
    )


def _choice(inputs: Tensor, given: Given) -> Values:
    a, c, d, b = inputs.unbind(1)
    return _variables(
        given,
        a=lambda v: a,
        same=lambda v: (v["a"] == b).long(),
        out=lambda v: torch.where(v["same"] == 1, c, d),
    )


PROGRAMS = {
    "clamp": HighLevel(
        title="The larger of two numbers, at most a third",
        description="a0.h0 and a0.h1 fetch a and b, m0 takes the larger, a1.h2 fetches c, m1 the smaller of both.",
        n_values=5,
        n_inputs=3,
        places=(1, 2, 3),
        n_ctx=5,
        n_layers=2,
        run=_clamp,
        nodes={"a": "a0.h0", "b": "a0.h1", "s": "m0", "c": "a1.h2", "out": "m1"},
        edges=(
            ("embed", "a0.h0"), ("embed", "a0.h1"), ("a0.h0", "m0"), ("a0.h1", "m0"), ("embed", "a1.h2"),
            ("a1.h2", "m1"), ("m0", "m1"), ("m1", "logit"),
        ),
    ),
    "two_hop": HighLevel(
        title="The table entry that a table entry names",
        description="a0.h1 fetches the pointer, a1.h3 reads the entry that it names, a2.h0 the one that names.",
        n_values=4,
        n_inputs=5,
        places=(1, 2, 3, 4, 5),
        n_ctx=7,
        n_layers=3,
        run=_two_hop,
        nodes={"x": "a0.h1", "y": "a1.h3", "out": "a2.h0"},
        edges=(
            ("embed", "a0.h1"), ("a0.h1", "a1.h3"), ("embed", "a1.h3"), ("a1.h3", "a2.h0"),
            ("embed", "a2.h0"), ("a2.h0", "logit"),
        ),
    ),
    "choice": HighLevel(
        title="One of two tokens, by whether two others are equal",
        description="a0.h2 fetches a, m0 compares it with the last token b, a1.h1 reads c if they are equal, else d.",
        n_values=5,
        n_inputs=4,
        places=(1, 2, 3, 4),
        n_ctx=5,
        n_layers=2,
        run=_choice,
        nodes={"a": "a0.h2", "same": "m0", "out": "a1.h1"},
        edges=(
            ("embed", "a0.h2"), ("a0.h2", "m0"), ("embed", "m0"), ("m0", "a1.h1"), ("embed", "a1.h1"),
            ("a1.h1", "logit"),
        ),
    ),
}  # fmt: skip
