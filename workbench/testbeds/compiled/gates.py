"""Hand-compiled beds in which an MLP computes: comparison, gates, two MLPs in a row, recall of a fact.

Truth values are 0 and 1; an MLP makes a step of whole numbers with two neurons, ReLU(x) - ReLU(x - 1).
Answers are tokens YES and NO, whose logits are GAIN times the value and GAIN times its complement.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from workbench.testbeds.compiled.plan import (
    OUT,
    POSITION,
    TOKEN,
    Head,
    Neurons,
    Plan,
    at_position,
    constant,
    eye,
    layout,
    pick,
    shifted,
)
from workbench.testbeds.compiled.recipe import GAIN, Recipe
from workbench.testbeds.pairs import Draw, differing

N_HEADS = 4
# Gates: [0, bit, bit, bit, filler, 0]; token 1 is false, 2 is true.
FALSE, TRUE, YES, NO, FILLERS, GATE_TOKENS, GATE_CTX = 1, 2, 3, 4, (5, 6), 7, 6
BITS = ("first", "second", "third")
# Comparison: [0, number, filler, number]; token n + 1 is the number n.
N_NUMBERS, NUMBER_CTX = 10, 4
NUMBER_YES, NUMBER_NO, NUMBER_FILLER, NUMBER_TOKENS = 11, 12, 13, 14
# Recall: [0, subject, relation, filler, 0].
N_SUBJECTS, N_RELATIONS, N_ATTRIBUTES, FACT_CTX = 5, 3, 6, 5
FACT_FILLERS = (15, 16)
FACT_TOKENS = 17


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _verdict(layer: int, read: dict[str, float], bias: float) -> Neurons:
    """YES where sum(read . scalars) + bias is 1 or more, NO where it is 0 or less."""
    return Neurons(
        layer=layer,
        read={name: _vector(weight, weight)[:, None] for name, weight in read.items()},
        bias=_vector(bias, bias - 1),
        write={OUT: _vector(1.0, -1.0)[:, None] * _vector(1.0, -1.0)},
        constant={OUT: _vector(0.0, 1.0)},
    )


def _yes_no(d_vocab: int, yes: int, no: int) -> Tensor:
    return GAIN * pick(d_vocab, yes, no).T


def _bit(head: int, place: int, write: str) -> Head:
    """A head of block 0 that copies the bit at `place` to every later position."""
    return Head(
        layer=0, head=head, query=constant(), key=at_position(place, GATE_CTX),
        value={TOKEN: pick(GATE_TOKENS, TRUE)}, write={write: eye(1)},
    )  # fmt: skip


def _gate(heads: tuple[Head, ...], neurons: tuple[Neurons, ...], *, n_layers: int, **spaces: int) -> Plan:
    return Plan(
        layout=layout(d_vocab=GATE_TOKENS, n_ctx=GATE_CTX, out=2, **dict.fromkeys(BITS, 1), **spaces),
        n_layers=n_layers,
        n_heads=N_HEADS,
        heads=heads,
        neurons=neurons,
        readout=_yes_no(GATE_TOKENS, YES, NO),
    )


def and_gate() -> Plan:
    """YES where both bits are true."""
    bits = (_bit(1, 1, "first"), _bit(2, 2, "second"))
    return _gate(bits, (_verdict(1, {"first": 1.0, "second": 1.0}, -1.0),), n_layers=2)


def or_gate() -> Plan:
    """YES where one bit or both are true."""
    bits = (_bit(0, 1, "first"), _bit(3, 2, "second"))
    return _gate(bits, (_verdict(1, {"first": 1.0, "second": 1.0}, 0.0),), n_layers=2)


def xor_and() -> Plan:
    """(first xor second) and third: the first MLP makes first AND second, the second takes it away twice."""
    bits = (_bit(0, 1, "first"), _bit(1, 2, "second"), _bit(3, 3, "third"))
    both = Neurons(
        layer=0, read={"first": _vector(1.0)[:, None], "second": _vector(1.0)[:, None]}, bias=_vector(-1.0),
        write={"both": eye(1)}, constant={},
    )  # fmt: skip
    verdict = _verdict(1, {"first": 1.0, "second": 1.0, "both": -2.0, "third": 1.0}, -1.0)
    return _gate(bits, (both, verdict), n_layers=2, both=1)


def greater_than() -> Plan:
    """A head fetches the first number as the set of numbers below it; an MLP looks the last one up in it."""
    numbers = torch.arange(N_NUMBERS)
    below = torch.zeros(N_NUMBERS, NUMBER_TOKENS, dtype=torch.float64)
    below[:, 1 : N_NUMBERS + 1] = (numbers[:, None] < numbers[None]).double()
    fetch = Head(
        layer=0, head=2, query=constant(), key=at_position(1, NUMBER_CTX),
        value={TOKEN: below}, write={"below": eye(N_NUMBERS)},
    )  # fmt: skip
    twice, last = 2 * eye(N_NUMBERS), 2 * pick(NUMBER_TOKENS, *range(1, N_NUMBERS + 1))
    compare = Neurons(  # for each number a step at 1.5 of (is it below the first) + (is it the last)
        layer=1,
        read={"below": twice.repeat(2, 1), TOKEN: last.repeat(2, 1)},
        bias=_vector(-2.5, -3.5).repeat_interleave(N_NUMBERS),
        write={OUT: _vector(1.0, -1.0).repeat_interleave(N_NUMBERS)[:, None] * _vector(1.0, -1.0)},
        constant={OUT: _vector(0.0, 1.0)},
    )
    return Plan(
        layout=layout(d_vocab=NUMBER_TOKENS, n_ctx=NUMBER_CTX, out=2, below=N_NUMBERS),
        n_layers=2,
        n_heads=N_HEADS,
        heads=(fetch,),
        neurons=(compare,),
        readout=_yes_no(NUMBER_TOKENS, NUMBER_YES, NUMBER_NO),
    )


def facts() -> list[list[int]]:
    """The attribute of each subject and relation, chosen once."""
    rng = random.Random(0)
    return [[rng.randrange(N_ATTRIBUTES) for _ in range(N_RELATIONS)] for _ in range(N_SUBJECTS)]


def fact_lookup() -> Plan:
    """The relation's position fetches the subject; an MLP there knows the attribute; a head moves it."""
    subjects = pick(FACT_TOKENS, *range(1, N_SUBJECTS + 1))
    relations = pick(FACT_TOKENS, *range(N_SUBJECTS + 1, N_SUBJECTS + N_RELATIONS + 1))
    fetch = Head(
        layer=0, head=1, query=shifted(FACT_CTX, 1), key={POSITION: eye(FACT_CTX)},
        value={TOKEN: subjects}, write={"subject": eye(N_SUBJECTS)},
    )  # fmt: skip
    known = Neurons(
        layer=0,
        read={
            "subject": eye(N_SUBJECTS).repeat_interleave(N_RELATIONS, 0),
            TOKEN: relations.repeat(N_SUBJECTS, 1),
        },
        bias=-torch.ones(N_SUBJECTS * N_RELATIONS, dtype=torch.float64),
        write={"attribute": eye(N_ATTRIBUTES)[torch.tensor(facts()).flatten()]},
        constant={},
    )
    move = Head(
        layer=1, head=3, query=constant(), key=at_position(2, FACT_CTX),
        value={"attribute": eye(N_ATTRIBUTES)}, write={OUT: eye(N_ATTRIBUTES)},
    )  # fmt: skip
    first = N_SUBJECTS + N_RELATIONS + 1
    return Plan(
        layout=layout(
            d_vocab=FACT_TOKENS, n_ctx=FACT_CTX, out=N_ATTRIBUTES, subject=N_SUBJECTS, attribute=N_ATTRIBUTES
        ),
        n_layers=2,
        n_heads=N_HEADS,
        heads=(fetch, move),
        neurons=(known,),
        readout=GAIN * pick(FACT_TOKENS, *range(first, first + N_ATTRIBUTES)).T,
    )


def _gate_draw(rule: Callable[[bool, bool, bool], bool], n_bits: int) -> Draw:
    def prompt(rng: random.Random) -> list[int]:
        return [0, *(rng.choice((FALSE, TRUE)) for _ in BITS), rng.choice(FILLERS), 0]

    def answer(ids: list[int]) -> int:
        first, second, third = (bit == TRUE for bit in ids[1:4])
        return YES if rule(first, second, third) else NO

    def change(rng: random.Random, index: int, clean: list[int]) -> list[int]:
        return [0, *prompt(rng)[1 : n_bits + 1], *clean[n_bits + 1 :]]

    return differing(prompt, answer, change)


def _number_draw() -> Draw:
    def prompt(rng: random.Random) -> list[int]:
        first, last = rng.sample(range(1, N_NUMBERS + 1), 2)
        return [0, first, NUMBER_FILLER, last]

    def change(rng: random.Random, index: int, clean: list[int]) -> list[int]:
        other = prompt(rng)
        return (
            other if index % 3 == 0 else [*clean[:3], other[3]] if index % 3 == 1 else [*other[:3], clean[3]]
        )

    return differing(prompt, lambda ids: NUMBER_YES if ids[1] > ids[3] else NUMBER_NO, change)


def _fact_draw() -> Draw:
    known, first = facts(), N_SUBJECTS + N_RELATIONS + 1

    def prompt(rng: random.Random) -> list[int]:
        subject, relation = rng.randrange(N_SUBJECTS), rng.randrange(N_RELATIONS)
        return [0, subject + 1, relation + N_SUBJECTS + 1, rng.choice(FACT_FILLERS), 0]

    def change(rng: random.Random, index: int, clean: list[int]) -> list[int]:
        other = prompt(rng)
        place = 1 + index % 2
        return [*clean[:place], other[place], *clean[place + 1 :]]

    return differing(prompt, lambda ids: first + known[ids[1] - 1][ids[2] - N_SUBJECTS - 1], change)


RECIPES = {
    "greater_than": Recipe(
        title="Is the first number greater than the last?",
        description="a0.h2 fetches the first number; m1 compares it with the number at the last position.",
        plan=greater_than,
        edges=(("embed", "a0.h2.v"), ("a0.h2", "m1"), ("embed", "m1"), ("m1", "logit")),
        draw=_number_draw(),
    ),
    "and_gate": Recipe(
        title="Are both bits true?",
        description="a0.h1 and a0.h2 fetch one bit each; m1 is their AND.",
        plan=and_gate,
        edges=(
            ("embed", "a0.h1.v"), ("embed", "a0.h2.v"), ("a0.h1", "m1"), ("a0.h2", "m1"), ("m1", "logit"),
        ),
        draw=_gate_draw(lambda first, second, third: first and second, 2),
    ),
    "or_gate": Recipe(
        title="Is one of two bits true?",
        description="a0.h0 and a0.h3 fetch one bit each; m1 is their OR.",
        plan=or_gate,
        edges=(
            ("embed", "a0.h0.v"), ("embed", "a0.h3.v"), ("a0.h0", "m1"), ("a0.h3", "m1"), ("m1", "logit"),
        ),
        draw=_gate_draw(lambda first, second, third: first or second, 2),
        note="Where both bits are true, exchanging one alone changes nothing; other pairs show each edge.",
    ),
    "xor_and": Recipe(
        title="Are the first two bits different, and the third true?",
        description="m0 makes first AND second; m1 reads it beside the three bits that heads of block 0 fetch.",
        plan=xor_and,
        edges=(
            ("embed", "a0.h0.v"), ("embed", "a0.h1.v"), ("embed", "a0.h3.v"), ("a0.h0", "m0"),
            ("a0.h1", "m0"), ("a0.h0", "m1"), ("a0.h1", "m1"), ("a0.h3", "m1"), ("m0", "m1"), ("m1", "logit"),
        ),
        draw=_gate_draw(lambda first, second, third: first != second and third, 3),
    ),
    "fact_lookup": Recipe(
        title="The attribute of a subject under a relation",
        description="a0.h1 brings the subject to the relation, m0 knows the attribute, a1.h3 moves it to the end.",
        plan=fact_lookup,
        edges=(
            ("embed", "a0.h1.v"), ("a0.h1", "m0"), ("embed", "m0"), ("m0", "a1.h3.v"), ("a1.h3", "logit"),
        ),
        draw=_fact_draw(),
    ),
}  # fmt: skip
