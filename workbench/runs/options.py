"""The options of a stage, read from its function: one source of names, types, defaults and help.

The command line, `run.yaml` and the tests all ask here, so a default is written once, in the signature, and
its explanation once, in the docstring's `Args:`.
"""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UserError, nearest

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    dict: "names and values",
}


@dataclass(frozen=True)
class Option:
    """One keyword-only argument of a stage function.

    Attributes:
        name: The argument's name.
        types: What one value may be, tried in this order.
        many: Whether it takes several values.
        nullable: Whether it may be null.
        choices: The only values allowed, or empty.
        default: Its value when left out (None where it is required).
        required: Whether it must be given.
        help: Its text in the docstring.
        single: Whether one value may stand by itself where it takes several.
    """

    name: str
    types: tuple[type, ...]
    many: bool
    nullable: bool
    choices: tuple[Any, ...]
    default: Any
    required: bool
    help: str
    single: bool = False

    def convert(self, value: Any) -> Any:
        """`value` (from YAML or the command line) as the function takes it.

        Raises:
            UserError: wrong kind of value; names the option, the value and what it must be.
        """
        if value is None and self.nullable:
            return None
        if self.many:
            values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
            return self._one(values[0]) if self.single and len(values) == 1 else tuple(map(self._one, values))
        return self._one(value)

    def _one(self, value: Any) -> Any:
        fitting = (v for v in (_as_type(value, kind) for kind in self.types) if v is not None)
        converted = next(fitting, None)
        if converted is None:
            raise UserError(f"{self.name} {value!r} is not {self.words()}: give {self._such_as()}")
        if self.choices and converted not in self.choices:
            near = nearest(str(value), map(str, self.choices))
            raise UserError(f"{self.name} {value!r} is not a choice; {near}")
        return converted

    def words(self) -> str:
        """What a value is, in words."""
        return " or ".join(_WORDS[kind] for kind in self.types)

    def _such_as(self) -> str:
        return self.words() if self.default is None else f"a value such as {self.default!r}"


def _as_type(value: Any, kind: type) -> Any:
    """`value` as `kind` where no information is lost, else None.

    YAML reads `3e-4` as text and `1e6` too, hence the way through `float`.
    """
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or value is None:
        return None
    if kind is dict:
        return _as_dict(value)
    if kind in (str, Path):
        return kind(value) if isinstance(value, str | Path) else None
    try:
        number = float(str(value).replace("_", ""))
    except ValueError:
        return None
    if kind is float:
        return number
    if re.fullmatch(r"[+-]?\d[\d_]*", str(value)):
        return int(str(value).replace("_", ""))
    return int(number) if abs(number) < 2**53 and number == int(number) else None


def _as_dict(value: Any) -> dict[str, Any] | None:
    """Names and values, also written as YAML on one line: `{multi: 4}`."""
    try:
        read = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return None
    return dict(read) if isinstance(read, collections.abc.Mapping) else None


def options(function: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of `function` that a person can write down, by name, in order.

    Arguments of other types (a loaded model, a callback) are for callers in Python and left out.
    """
    names = _Names(inspect.unwrap(function).__globals__)
    texts = argument_help(function)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = names.evaluate(parameter.annotation)
        kind = _kind(hint) if parameter.kind is parameter.KEYWORD_ONLY else None
        if kind is not None:
            required = parameter.default is parameter.empty
            default = None if required else parameter.default
            found[name] = Option(name, *kind, default, required, texts.get(name, ""), _one_or_several(hint))
    return found


class _Names(dict[str, Any]):
    """A module's names; one that only type checkers import is of no type that a person can write."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, _Names)

    def evaluate(self, annotation: Any) -> Any:
        """The type that an annotation means."""
        return eval(annotation, {}, self) if isinstance(annotation, str) else annotation


def _kind(hint: Any) -> tuple[tuple[type, ...], bool, bool, tuple[Any, ...]] | None:
    """(types, many, nullable, choices) of an annotation, or None where it is not for people."""
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = {a for a in arguments if a is not type(None)}
        if _one_or_several(hint):
            kinds = {a for a in kinds if typing.get_args(a)}
        single = _kind(next(iter(kinds))) if len(kinds) == 1 else _several(kinds)
        return single and (single[0], single[1], type(None) in arguments, single[3])
    if origin is typing.Literal:
        return (type(arguments[0]),), False, False, arguments
    if origin in (list, tuple, Sequence, collections.abc.Sequence) and arguments:
        inner = _kind(arguments[0])
        return inner and (inner[0], True, False, inner[3])
    if origin in (dict, collections.abc.Mapping):
        return (dict,), False, False, ()
    return ((hint,), False, False, ()) if hint in _WORDS else None


def _one_or_several(hint: Any) -> bool:
    """Whether an annotation is a type or a sequence of that type: `str | Sequence[str]`."""
    kinds = [a for a in typing.get_args(hint) if a is not type(None)]
    inner = [
        typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) is collections.abc.Sequence
    ]
    return len(kinds) == 2 and len(inner) == 1 and inner[0] in kinds


def _several(kinds: set[Any]) -> tuple[tuple[type, ...], bool, bool, tuple[Any, ...]] | None:
    """A union of plain types, the narrowest first; a path given as text stays text."""
    if not kinds <= _WORDS.keys():
        return None
    plain = kinds - {Path} if str in kinds else kinds
    return tuple(kind for kind in _WORDS if kind in plain), False, False, ()


def argument_help(function: Callable[..., Any]) -> dict[str, str]:
    """Per argument its text in the docstring's `Args:` section, on one line."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(function) or "", re.M | re.S)
    entries = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", section[1] if section else "", re.M | re.S)
    return {name: " ".join(text.split()) for name, text in entries}


def check_names(given: Sequence[str], known: Sequence[str], *, where: str) -> None:
    """Refuse a name that is not known.

    Raises:
        UserError: names the first unknown one and the near ones.
    """
    for name in given:
        if name not in known:
            raise UserError(f"parameter {name!r} is unknown in {where}; {nearest(str(name), known)}")
