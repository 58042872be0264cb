"""Tokenizers, templates and small corpora that the tests of text share."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workbench.models import embedded_model_dir
from workbench.text import Rest, Sequences, TokenSequence

TEXTS = [
    f"Document {i}: naïve café, 文字 and \U0001f600.\n" + f"def f_{i}(x):\n    return x + {i}\n" * (1 + i % 5)
    for i in range(40)
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Strips what is said, puts the system message into the first question, and ends answers with the end of text.
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') + m['content'] | trim "
    "+ ' [/INST]' }}{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Repeats its date, so that a day's change would show.
DATED = "{{ 'Today: ' + strftime_now('%d %B %Y') + '\\n' }}" + CHATML


class ByteTokenizer:
    """UTF-8 bytes plus one, with 0 as beginning and end of text."""

    bos_token_id: int | None = 0
    eos_token_id: int | None = 0

    def __len__(self) -> int:
        return 257

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [b + 1 for b in text.encode()]

    @staticmethod
    def text(ids: Iterable[int]) -> str:
        return bytes(int(i) - 1 for i in ids if i).decode()


class PlainTokenizer(ByteTokenizer):
    """No special tokens at all."""

    bos_token_id = eos_token_id = None


def embedded_tokenizer(chat_template: str | None = None) -> Any:
    """The embedded model's tokenizer, a new one for each call."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    tokenizer.chat_template = chat_template
    return tokenizer


@cache
def bert_tokenizer() -> Any:
    """A word tokenizer with classifier and separator tokens and no beginning of text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(40))]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]"
    )


def write_jsonl(path: Path, rows: Iterable[Any]) -> str:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return str(path)


def write_parquet(path: Path, columns: dict[str, list[Any]], *, row_group_size: int = 7) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size)
    return str(path)


def same(one: TokenSequence, other: TokenSequence) -> bool:
    """Whether two sequences agree in everything."""
    roles = (one.role is None) == (other.role is None) and (
        one.role is None or np.array_equal(one.role, other.role)
    )
    arrays = np.array_equal(one.tokens, other.tokens) and np.array_equal(one.document, other.document)
    return roles and arrays and (one.new_documents, one.skipped) == (other.new_documents, other.skipped)


def drained(stream: Any) -> tuple[list[TokenSequence], Rest]:
    """All sequences of a stream and what it left out at its end."""
    sequences = []
    while True:
        try:
            sequences.append(next(stream))
        except StopIteration as end:
            return sequences, end.value


def documents_of(sequences: Sequences, *, limit: int | None = None) -> dict[str, list[int]]:
    """Name to token ids of every document, the framing tokens of each sequence taken off."""
    special, names, ids = sequences.special, [], {}
    for sequence in islice(sequences, limit):
        for name in sequence.new_documents:
            names.append(name)
            ids[name] = []
        start, stop = int(special.first is not None), len(sequence.tokens) - int(special.last is not None)
        for token, number in zip(sequence.tokens[start:stop], sequence.document[start:stop], strict=True):
            ids[names[number]].append(int(token))
    return ids
