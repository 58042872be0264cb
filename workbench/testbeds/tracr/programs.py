"""The RASP programs that are compiled, with their vocabulary and length.

Read by `compile_programs.py` where Tracr is installed. What each program answers at the last position is
written again in plain Python in `answers.py`, which the loader is checked against.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A program: how to make it, its tokens, its length without BOS, and whether attention is causal."""

    make: Callable[[], Any]
    vocabulary: tuple[Any, ...]
    length: int
    causal: bool


def _rasp() -> Any:
    return importlib.import_module("tracr.rasp.rasp")


def _lib() -> Any:
    return importlib.import_module("tracr.compiler.lib")


def reverse() -> Any:
    return _lib().make_reverse(_rasp().tokens)


def sort() -> Any:
    return _lib().make_sort(_rasp().tokens, _rasp().tokens, max_seq_len=4, min_key=1)


def hist() -> Any:
    return _lib().make_hist()


def most_frequent() -> Any:
    """The tokens in order of how often they occur; the last is the most frequent, the later of two."""
    lib, rasp = _lib(), _rasp()
    return lib.make_sort(rasp.tokens, lib.make_hist(), max_seq_len=4, min_key=1)


def dyck() -> Any:
    return _lib().make_shuffle_dyck(pairs=["()"])


def shuffle_dyck() -> Any:
    return _lib().make_shuffle_dyck2()


def previous_token() -> Any:
    return _lib().shift_by(1, _rasp().tokens)


def two_back() -> Any:
    lib = _lib()
    return lib.shift_by(1, lib.shift_by(1, _rasp().tokens))


def count() -> Any:
    return _lib().make_count(_rasp().tokens, "a")


def count_parity() -> Any:
    """Whether the number of a's is odd."""
    return _rasp().Map(lambda n: n % 2 == 1, count()).named("count_parity")


def count_less_frequent() -> Any:
    return _lib().make_count_less_freq(2)


def pattern() -> Any:
    return _lib().detect_pattern(_rasp().tokens, "abc")


def first_matches() -> Any:
    """Whether the token is the first token of the prompt."""
    rasp = _rasp()
    start = rasp.Select(rasp.indices, rasp.indices, lambda k, q: k == 0).named("start")
    first = rasp.Aggregate(start, rasp.tokens).named("first")
    return rasp.SequenceMap(lambda x, y: x == y, first, rasp.tokens).named("first_matches")


def induction() -> Any:
    """The token after the last place where the present token stood before."""
    rasp = _rasp()
    before = _lib().shift_by(1, rasp.tokens)
    same = rasp.Select(before, rasp.tokens, lambda k, q: k == q).named("same")
    return rasp.Aggregate(same, rasp.tokens).named("induction")


LETTERS = ("a", "b", "c", "d")
PROGRAMS = {
    "reverse": Program(reverse, LETTERS, 5, False),
    "sort": Program(sort, (1, 2, 3), 4, False),
    "hist": Program(hist, LETTERS, 5, True),
    "most_frequent": Program(most_frequent, ("a", "b", "c"), 4, False),
    "dyck": Program(dyck, ("(", ")"), 6, False),
    "shuffle_dyck": Program(shuffle_dyck, ("(", ")", "{", "}"), 4, False),
    "previous_token": Program(previous_token, LETTERS, 5, True),
    "two_back": Program(two_back, LETTERS, 5, True),
    "count": Program(count, LETTERS, 5, True),
    "count_parity": Program(count_parity, LETTERS, 5, True),
    "count_less_frequent": Program(count_less_frequent, LETTERS, 4, False),
    "pattern": Program(pattern, ("a", "b", "c"), 5, True),
    "first_matches": Program(first_matches, LETTERS, 5, True),
    "induction": Program(induction, (1, 2, 3, 4), 5, True),
}
