"""A record: one document of a corpus before it is tokenised, with its name and the place for error messages.

A record's value is a text, or a list of messages for chat. Nothing is converted: a value of another kind is
refused with the place where it stands, and a missing value counts as an empty document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.errors import UserError, nearest


@dataclass(frozen=True)
class Record:
    """One document.

    Attributes:
        name: The name it is known by, such as `"corpus.jsonl#17"`.
        where: Its place in words, for error messages.
        value: Text, a list of messages, or None.
    """

    name: str
    where: str
    value: Any

    def text(self, column: str) -> str:
        """The value as text; a missing one is empty.

        Raises:
            UserError: the value is something else.
        """
        if self.value is None:
            return ""
        if isinstance(self.value, str):
            return self.value
        hint = "take layout 'chat'" if isinstance(self.value, list) else "name another column"
        raise UserError(
            f"{self.where}: column {column!r} holds {type(self.value).__name__}, not text: {hint}"
        )


@runtime_checkable
class RecordSource(Protocol):
    """A corpus of records, which can be read any number of times."""

    @property
    def kind(self) -> str:
        """Kind of the source, for descriptions."""
        ...

    @property
    def column(self) -> str | None:
        """The column that is read, if there are columns."""
        ...

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        ...

    def records(self, seed: int) -> Iterator[Record]:
        """The records in seeded order."""
        ...


def pick(row: Mapping[str, Any], column: str, where: str) -> Any:
    """The value of a row's column.

    Raises:
        UserError: the row has no such column.
    """
    if column not in row:
        raise UserError(f"{where} has no column {column!r}; {nearest(column, map(str, row))}")
    return row[column]


def characters(record: Record) -> int:
    """About how many characters a record holds."""
    if isinstance(record.value, str):
        return len(record.value)
    messages = record.value if isinstance(record.value, list) else []
    texts = (text for message in messages if isinstance(message, dict) for text in message.values())
    return sum(len(text) for text in texts if isinstance(text, str))
