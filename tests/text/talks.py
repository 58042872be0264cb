"""Conversations that the tests of chat share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.text.support import write_jsonl
from workbench.text import TokenSequence, read_sequences

SYSTEM = {"role": "system", "content": "Answer briefly."}
ASK = {"role": "user", "content": "user: what is\n 文字 and naïve?"}
SAY = {"role": "assistant", "content": "Two words; \U0001f600 — ask again."}
MORE = {"role": "user", "content": "user"}
TALK = [SYSTEM, ASK, SAY, MORE, {"role": "assistant", "content": "Fine."}]


def read(tokenizer: Any, path: Path, talks: list[Any], **options: Any) -> list[TokenSequence]:
    source = write_jsonl(path / "talk.jsonl", [{"messages": talk} for talk in talks])
    return list(read_sequences(tokenizer, source, **{"n_ctx": 256, "layout": "chat", **options}))
