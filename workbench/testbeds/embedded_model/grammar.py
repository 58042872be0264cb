"""The generated share of the embedded model's corpus: short English and short Python.

The sentences carry the classic circuits (indirect objects, greater-than, agreement across a distractor);
the snippets carry copying into attributes, `:param` lists, brackets and quotes. Only training-side
combinations are made here: see `workbench.tasks.words.held_out`.
"""

from __future__ import annotations

import random

from workbench.tasks import frames, words

CLOSERS = {"(": ")", "[": "]", "{": "}"}


def _ioi(rng: random.Random) -> str:
    w = frames.draw_ioi(rng, evaluation=False)
    receiver = w["A"] if w["S"] == w["B"] else w["B"]
    return f"{w['frame'].format(**w)} {receiver}."


def _years(rng: random.Random) -> str:
    w = frames.draw_years(rng, evaluation=False)
    return f"{w['frame'].format(**w)}{rng.randint(int(w['yy']) + 1, 99):02d}."


def _agreement(rng: random.Random) -> str:
    w = frames.draw_agreement(rng, evaluation=False)
    plural, other = rng.random() < 0.5, rng.random() < 0.5
    verb = w["plural"] if plural else w["singular"]
    tail = {"has": "a {obj}", "does": "not {adj} up"}.get(w["singular"], "{adj}")
    filled = w | {"subject": w["subject"] + "s" * plural, "distractor": w["distractor"] + "s" * other}
    ending = tail.format(obj=rng.choice(words.OBJECTS), adj=rng.choice(words.ADJECTIVES))
    return f"{w['frame'].format(**filled)} {verb} {ending}."


def _plain(rng: random.Random) -> str:
    name, place = rng.choice(words.NAMES), rng.choice(words.PLACES)
    obj, adj = rng.choice(words.OBJECTS), rng.choice(words.ADJECTIVES)
    shape = rng.choice(
        (
            "Today {name} went to the {place} and found a {adj} {obj}.",
            "In the {place} {name} bought the {obj}, and it was {adj}.",
            "Nobody in the {place} had seen the {adj} {obj} of {name}.",
        )
    )
    return shape.format(name=name, place=place, obj=obj, adj=adj)


def english_document(rng: random.Random) -> str:
    """One to eight sentences, a third of them about indirect objects."""
    kinds = rng.choices((_ioi, _years, _agreement, _plain), (4, 3, 4, 1), k=rng.choice((1, 1, 2, 3, 5, 8)))
    return " ".join(kind(rng) for kind in kinds)


def _class(rng: random.Random) -> str:
    arguments = frames.draw_arguments(rng, rng.randint(2, 5), evaluation=False)
    assigned = list(arguments)
    if rng.random() < 0.5:
        rng.shuffle(assigned)
    return frames.class_text(rng.choice(words.CLASSES), arguments, assigned)


def _docstring(rng: random.Random) -> str:
    arguments = frames.draw_arguments(rng, rng.randint(2, 5), evaluation=False)
    described = [(a, rng.choice(words.DESCRIPTIONS)) for a in arguments]
    text = frames.docstring_text(rng.choice(words.FUNCTIONS), arguments, described, rng.choice(words.NOUNS))
    return f'{text}\n    """\n    return self.{arguments[0]}'


def bracketed(rng: random.Random, depth: int) -> str:
    """A nested expression such as `[size, (name, 3), depth]`."""
    opener = rng.choice("([{")
    parts = [
        bracketed(rng, depth - 1) if depth and rng.random() < 0.4 else rng.choice(words.ARGUMENTS)
        for _ in range(rng.randint(1, 3))
    ]
    return opener + ", ".join(parts) + CLOSERS[opener]


def _brackets(rng: random.Random) -> str:
    a, f = rng.choice(words.ARGUMENTS), rng.choice(words.FUNCTIONS)
    return rng.choice((f"{a} = {bracketed(rng, 3)}", f"{a} = {f}{bracketed(rng, 2)}"))


def _quotes(rng: random.Random) -> str:
    q = rng.choice("'\"")
    text = " ".join(rng.sample([*words.ARGUMENTS, *words.ADJECTIVES], rng.randint(1, 4)))
    a, b, f = rng.choice(words.ARGUMENTS), rng.choice(words.ARGUMENTS), rng.choice(words.FUNCTIONS)
    return rng.choice((f"{a} = {q}{text}{q}", f"{f}({b}, {q}{text}{q})", f"{a}[{q}{b}{q}] = {q}{text}{q}"))


def python_document(rng: random.Random) -> str:
    """One to six snippets, one a paragraph."""
    kinds = rng.choices((_class, _docstring, _brackets, _quotes), (3, 3, 2, 2), k=rng.choice((1, 1, 2, 4, 6)))
    return "\n\n".join(kind(rng) for kind in kinds) + "\n"
