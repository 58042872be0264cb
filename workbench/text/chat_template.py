"""Which characters of a rendered conversation belong to which message, for any chat template.

The template is rendered a second time with a mark in place of every message's text. What stands between
the marks is the template's own writing, and the rendered conversation must be exactly that writing with
the messages' texts between (as they are, stripped, or escaped as JSON). So the place of every message is
known, not guessed; a template that rewrites its messages is refused. The marked rendering depends only on
the roles, and is kept.

A message's turn is its text and the closing that the template writes after it when the conversation ends
there (`<|im_end|>` and a line break, say). Headers, the beginning of text, and a default system message are
the template's. Where the template cannot render the conversation up to a message, that message's closing
counts as the template's.

A template that writes today's date is given a fixed one, so that sequences do not depend on the day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from jaxtyping import UInt8

from workbench.artifacts import canonical_json
from workbench.errors import UserError

TEMPLATE_DATE = date(2024, 7, 26)
DATE_CODES = ("%d", "%m", "%b", "%B", "%Y", "%y", "%a", "%A", "%H", "%M", "%S")
KEPT_SKELETONS = 1024
MARK = re.compile("\ue000([0-9]+)\ue001")
Message = dict[str, Any]


class TemplateRefusedError(Exception):
    """The template itself refuses a conversation, for instance because roles do not alternate."""


@dataclass(frozen=True)
class Skeleton:
    """What a template writes around messages of given roles.

    Attributes:
        between: Text before the first marked message, between two, and after the last.
        message: Number of the message at each mark; one more entry in `between` than here.
        closing: Characters at the start of the text after each mark that still belong to its turn.
    """

    between: list[str]
    message: list[int]
    closing: list[int]


class ChatTemplate:
    """A tokenizer's chat template, with the place of every message in what it writes.

    Raises:
        UserError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "layout 'chat' needs a chat template and the tokenizer has none: set tokenizer.chat_template, or "
                "choose layout 'documents'"
            )
        self._tokenizer = tokenizer
        self._dated = _with_fixed_date(self.source)
        self._kept: dict[str, Skeleton] = {}

    @property
    def source(self) -> str:
        """The template's own text."""
        return str(self._tokenizer.get_chat_template())

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as text.

        Raises:
            TemplateRefusedError: the template refuses it.
        """
        import jinja2

        options = {"chat_template": self._dated, "tokenize": False}
        try:
            return self._tokenizer.apply_chat_template(list(messages), **options)
        except (jinja2.TemplateError, TypeError) as error:
            raise TemplateRefusedError(str(error)) from error

    def labelled(
        self, messages: Sequence[Message], roles: Sequence[int], where: str
    ) -> tuple[str, UInt8[np.ndarray, " char"]]:
        """The conversation as text and a label per character: the role of its turn, 0 for the template.

        Args:
            messages: The conversation.
            roles: Label of each message's turn, at least 1.
            where: Place of the conversation, for error messages.

        Raises:
            TemplateRefusedError: the template refuses the conversation.
            UserError: the template rewrites or leaves out a message.
        """
        text, skeleton = self.render(messages), self._skeleton(messages, where)
        labels, place = np.zeros(len(text), dtype=np.uint8), len(skeleton.between[0])
        fits = text.startswith(skeleton.between[0])
        for number, closing, after in zip(
            skeleton.message, skeleton.closing, skeleton.between[1:], strict=True
        ):
            length = _length_of(messages[number]["content"], text, place, after)
            if not fits or length is None:
                raise _rewritten(where, number, messages[number])
            labels[place : place + length + closing] = roles[number]
            place += length + len(after)
        if place != len(text):
            raise _rewritten(where, len(messages) - 1, messages[-1])
        return text, labels

    def _skeleton(self, messages: Sequence[Message], where: str) -> Skeleton:
        marked = [_marked(message, number) for number, message in enumerate(messages)]
        key = canonical_json(json.loads(json.dumps(marked, default=str)))
        if key not in self._kept:
            if len(self._kept) == KEPT_SKELETONS:
                self._kept.clear()
            self._kept[key] = self._make_skeleton(marked, where)
        return self._kept[key]

    def _make_skeleton(self, marked: list[Message], where: str) -> Skeleton:
        between, found = _split(self.render(marked))
        lost = {n for n, message in enumerate(marked) if message.get("content")} - set(found)
        if lost:
            number = min(lost)
            raise UserError(
                f"{where}: the chat template leaves out message {number} ({marked[number]['role']}): "
                "take another template or remove such messages"
            )
        closing = [self._closing(marked, n, after) for n, after in zip(found, between[1:], strict=True)]
        return Skeleton(between, found, closing)

    def _closing(self, marked: list[Message], number: int, after: str) -> int:
        """Length of what the template writes after message `number` when the conversation ends there."""
        try:
            between, found = _split(self.render(marked[: number + 1]))
        except TemplateRefusedError:
            return 0
        ends_here = bool(found) and found[-1] == number and after.startswith(between[-1])
        return len(between[-1]) if ends_here else 0


def _with_fixed_date(template: str) -> str:
    """The template, with `strftime_now` giving the fixed date."""
    if "strftime_now" not in template:
        return template
    filters = "".join(f"|replace({code!r}, {TEMPLATE_DATE.strftime(code)!r})" for code in DATE_CODES)
    return "{%- macro strftime_now(format) -%}{{ format" + filters + " }}{%- endmacro -%}{{ '' }}" + template


def _marked(message: Message, number: int) -> Message:
    """The message with a mark in place of its text; one without text stays as it is."""
    return {**message, "content": f"\ue000{number}\ue001"} if message.get("content") else message


def _split(text: str) -> tuple[list[str], list[int]]:
    """The text between marks, and the numbers of the marks."""
    parts = MARK.split(text)
    return parts[::2], [int(number) for number in parts[1::2]]


def _length_of(content: str, text: str, place: int, after: str) -> int | None:
    """Length of a message's text at `place`, followed by `after`; None if it does not stand there."""
    escaped = json.dumps(content, ensure_ascii=False)[1:-1]
    for form in (content, content.strip(), content.rstrip(), content.lstrip(), escaped):
        if text.startswith(form, place) and text.startswith(after, place + len(form)):
            return len(form)
    return None


def _rewritten(where: str, number: int, message: Message) -> UserError:
    return UserError(
        f"{where}: the chat template rewrites message {number} ({message['role']}), so its tokens cannot be told "
        "from the template's: take another template or remove such messages"
    )
