"""Options are read from a function's signature and docstring, and values are converted without loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from workbench.errors import UserError
from workbench.runs.options import argument_help, check_names, options

if TYPE_CHECKING:
    from decimal import Decimal


def stage_like(
    run: Path,
    *,
    hooks: Sequence[str] = ("a", "b"),
    n_tokens: int = 10,
    lr: float = 1e-3,
    text: str | Path | None = None,
    kind: Literal["topk", "relu"] = "topk",
    quick: bool = False,
    count: int | str = "all",
    hook: str | Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    must: int,
    progress: Callable[[str], Any] | None = None,
    model: Decimal | None = None,
) -> None:
    """Does nothing.

    Args:
        run: Folder.
        hooks: Names,
            over two lines: with a colon.
        n_tokens: How many.

    Returns:
        Nothing.
    """


FOUND = options(stage_like)


def test_keyword_arguments_that_a_person_can_write_are_options() -> None:
    assert list(FOUND) == [
        "hooks",
        "n_tokens",
        "lr",
        "text",
        "kind",
        "quick",
        "count",
        "hook",
        "settings",
        "must",
    ]
    assert FOUND["must"].required
    assert FOUND["hooks"].default == ("a", "b")
    assert FOUND["hooks"].help == "Names, over two lines: with a colon."


def test_help_stops_at_the_end_of_the_section() -> None:
    assert set(argument_help(stage_like)) == {"run", "hooks", "n_tokens"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("n_tokens", "510_000", 510_000),
        ("n_tokens", 510_000, 510_000),
        ("n_tokens", "1e6", 1_000_000),  # YAML reads 1e6 as text
        ("n_tokens", 2**60 + 1, 2**60 + 1),
        ("lr", "3e-4", 3e-4),  # and 3e-4 as well
        ("lr", 1, 1.0),
        ("hooks", "one", ("one",)),
        ("hooks", ["one", "two"], ("one", "two")),
        ("text", None, None),
        ("quick", True, True),
        ("kind", "relu", "relu"),
        ("count", "all", "all"),
        ("count", "12", 12),
        ("hook", "one", "one"),
        ("hook", ["one"], "one"),
        ("hook", ["one", "two"], ("one", "two")),
        ("hook", None, None),
        ("settings", {"multi": 4}, {"multi": 4}),
        ("settings", "{multi: 4}", {"multi": 4}),
    ],
)
def test_values_are_converted(name: str, given: Any, expected: Any) -> None:
    value = FOUND[name].convert(given)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("n_tokens", "many", "n_tokens 'many' is not a whole number: give a value such as 10"),
        ("n_tokens", 1.5, "n_tokens 1.5 is not a whole number"),
        ("n_tokens", "nan", "n_tokens 'nan' is not a whole number"),
        ("n_tokens", "inf", "n_tokens 'inf' is not a whole number"),
        ("n_tokens", True, "n_tokens True is not a whole number"),
        ("n_tokens", None, "n_tokens None is not a whole number"),
        ("lr", "fast", "lr 'fast' is not a number"),
        ("quick", "yes", "quick 'yes' is not true or false"),
        ("kind", "topkk", "kind 'topkk' is not a choice; the nearest: topk"),
        ("count", 1.5, "count 1.5 is not a whole number or text"),
        ("hooks", [1], "hooks 1 is not text"),
        ("settings", "{multi", "settings '{multi' is not names and values: give names and values"),
        ("settings", "multi", "settings 'multi' is not names and values"),
    ],
)
def test_other_values_are_refused(name: str, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        FOUND[name].convert(given)


def test_unknown_names_get_the_near_ones() -> None:
    with pytest.raises(UserError, match="parameter 'n_token' is unknown in here; the nearest: n_tokens"):
        check_names(["lr", "n_token"], list(FOUND), where="here")
