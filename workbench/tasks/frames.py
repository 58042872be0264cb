"""Sentence and snippet frames: one draw gives the words, one fill gives the text.

Each `draw_*` returns the words of one sentence, restricted to one side of the held-out rule, so that
`workbench.testbeds.embedded_model` (training side) and the task generators (evaluation side) speak the
same language without ever sharing a combination.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from workbench.tasks import words
from workbench.tasks.words import held_out

Words = dict[str, str]

IOI_FRAMES = (
    "When {A} and {B} went to the {place}, {S} gave a {obj} to",
    "When {A} and {B} were at the {place}, {S} gave the {obj} to",
    "After {A} and {B} arrived at the {place}, {S} handed the {obj} to",
    "Then {A} and {B} met at the {place}, and {S} offered a {obj} to",
    "While {A} and {B} walked to the {place}, {S} passed a {obj} to",
    "Yesterday {A} and {B} visited the {place}, and {S} showed the {obj} to",
)
YEAR_FRAMES = (
    "The {event} lasted from the year {cc}{yy} to the year {cc}",
    "The {event} began in the year {cc}{yy} and ended in the year {cc}",
    "The {event} of the {place} went on from {cc}{yy} until {cc}",
)
AGREEMENT_FRAMES = (
    "The {subject} {prep} the {distractor}",
    "The {adj} {subject} {prep} the {distractor}",
    "The {subject} {prep} the {adj} {distractor}",
)


def _until(rng: random.Random, draw: Callable[[], Words], key: Callable[[Words], tuple], side: bool) -> Words:
    """Draw again until the combination `key` is on the wanted side of the held-out rule."""
    while True:
        chosen = draw()
        if held_out(*key(chosen)) == side:
            return chosen


def draw_ioi(rng: random.Random, *, evaluation: bool) -> Words:
    """Two names, a place and an object; the unordered pair of names decides the side."""

    def draw() -> Words:
        a, b = rng.sample(words.NAMES, 2)
        return {"A": a, "B": b, "S": rng.choice((a, b)), "place": rng.choice(words.PLACES),
                "obj": rng.choice(words.OBJECTS), "frame": rng.choice(IOI_FRAMES)}  # fmt: skip

    return _until(rng, draw, lambda w: ("ioi", *sorted((w["A"], w["B"]))), evaluation)


def draw_years(rng: random.Random, *, evaluation: bool, low: int = 2, high: int = 97) -> Words:
    """An event, a century and a two-digit start year; (century, start) decides the side."""

    def draw() -> Words:
        return {"event": rng.choice(words.EVENTS), "cc": rng.choice(words.CENTURIES),
                "yy": f"{rng.randint(low, high):02d}", "place": rng.choice(words.PLACES),
                "frame": rng.choice(YEAR_FRAMES)}  # fmt: skip

    return _until(rng, draw, lambda w: ("years", w["cc"], w["yy"]), evaluation)


def draw_agreement(rng: random.Random, *, evaluation: bool) -> Words:
    """A subject noun, a distractor noun and a verb; the three together decide the side."""

    def draw() -> Words:
        subject, distractor = rng.sample(words.NOUNS, 2)
        singular, plural = rng.choice(words.VERBS)
        return {"subject": subject, "distractor": distractor, "singular": singular, "plural": plural,
                "prep": rng.choice(words.PREPOSITIONS), "adj": rng.choice(words.ADJECTIVES),
                "frame": rng.choice(AGREEMENT_FRAMES)}  # fmt: skip

    return _until(rng, draw, lambda w: ("agree", w["subject"], w["distractor"], w["singular"]), evaluation)


def draw_arguments(rng: random.Random, count: int, *, evaluation: bool) -> list[str]:
    """Argument names of one function or class; the ordered last two decide the side."""
    while True:
        names = rng.sample(words.ARGUMENTS, count)
        if held_out("arguments", *sorted(names[-2:])) == evaluation:
            return names


def class_text(name: str, arguments: list[str], assigned: list[str]) -> str:
    """A class whose `__init__` copies `assigned` (in that order) into attributes of the same name."""
    body = "".join(f"\n        self.{a} = {a}" for a in assigned)
    return f"class {name}:\n    def __init__(self, {', '.join(arguments)}):{body}"


def docstring_text(function: str, arguments: list[str], described: list[tuple[str, str]], noun: str) -> str:
    """A method whose docstring describes `described` (argument, description) in `:param` lines."""
    lines = "".join(f"\n    :param {a}: the {text}" for a, text in described)
    head = f"def {function}(self, {', '.join(arguments)}):"
    return f'{head}\n    """{function.capitalize()} the {noun}.\n{lines}'
