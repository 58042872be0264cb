"""What each Tracr program answers at the last position, in plain Python.

These are written from what the programs are for, not from their RASP code, so that loader and tests compare two
independent accounts. None where a program has no one answer; such prompts are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tokens = Sequence[Any]


def most_frequent(tokens: Tokens) -> Any:
    """The commonest token; of several, the one that occurs last."""
    return max(enumerate(tokens), key=lambda place: (tokens.count(place[1]), place[0]))[1]


def balanced(*pairs: str) -> Callable[[Tokens], bool]:
    """Whether each kind of bracket is balanced by itself."""

    def answer(tokens: Tokens) -> bool:
        for opening, closing in pairs:
            depth = 0
            for token in tokens:
                depth += (token == opening) - (token == closing)
                if depth < 0:
                    return False
            if depth:
                return False
        return True

    return answer


def follower(tokens: Tokens) -> Any:
    """The token after the earlier place of the last token; None unless there is exactly one such place."""
    places = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]]
    return tokens[places[0] + 1] if len(places) == 1 else None


ANSWERS: dict[str, tuple[str, Callable[[Tokens], Any]]] = {
    "reverse": ("The first token: the last of the reversed prompt", lambda t: t[0]),
    "sort": ("The largest token: the last of the sorted prompt", max),
    "hist": ("How often the last token occurs", lambda t: t.count(t[-1])),
    "most_frequent": ("The commonest token", most_frequent),
    "dyck": ("Are the brackets balanced?", balanced("()")),
    "shuffle_dyck": ("Are brackets and braces balanced, each by themselves?", balanced("()", "{}")),
    "previous_token": ("The token before the last", lambda t: t[-2]),
    "two_back": ("The token two before the last, in two hops", lambda t: t[-3]),
    "count": ("The number of a's", lambda t: t.count("a")),
    "count_parity": ("Is the number of a's odd?", lambda t: t.count("a") % 2 == 1),
    "count_less_frequent": (
        "How many tokens occur at most twice",
        lambda t: sum(t.count(x) <= 2 for x in t),
    ),
    "pattern": ("Does the prompt end in abc?", lambda t: tuple(t[-3:]) == ("a", "b", "c")),
    "first_matches": ("Is the last token the first one?", lambda t: t[0] == t[-1]),
    "induction": ("The token that followed the last one before", follower),
}
