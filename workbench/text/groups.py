"""Documents to token ids, many at a time: groups keep the tokenizer busy, errors keep their place.

Groups grow from 64 Ki to 2 Mi characters, so that a consumer of few tokens waits for few. When a record
cannot be read, the documents before it still come: what a stream gives does not depend on the grouping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Int32

from workbench.errors import UserError
from workbench.text.encoder import Encoder
from workbench.text.records import Record

FIRST_CHARACTERS = 1 << 16
MOST_CHARACTERS = 1 << 21
MOST_DOCUMENTS = 1024

Item = TypeVar("Item")


def grouped(
    items: Iterable[Item], size: Callable[[Item], int]
) -> Iterator[tuple[list[Item], UserError | None]]:
    """Groups of items, and the error that ended the items if one did; it is for the consumer to raise."""
    limit, group, held = FIRST_CHARACTERS, [], 0
    try:
        for item in items:
            group.append(item)
            held += size(item)
            if held >= limit or len(group) == MOST_DOCUMENTS:
                yield group, None
                limit, group, held = min(2 * limit, MOST_CHARACTERS), [], 0
    except UserError as error:
        yield group, error
        return
    yield group, None


def tokenised(
    encoder: Encoder, records: Iterable[Record], column: str | None
) -> Iterator[tuple[str, Int32[np.ndarray, " token"]]]:
    """Name and token ids of each document; a blank one has none.

    Raises:
        UserError: a record cannot be read or is no text.
    """
    texts = ((record.name, record.text(column or "text")) for record in records)
    for group, failure in grouped(texts, lambda item: len(item[1])):
        ids = iter(encoder.ids([text for _, text in group if text.strip()]))
        for name, text in group:
            yield name, next(ids) if text.strip() else np.empty(0, dtype=np.int32)
        if failure:
            raise failure
