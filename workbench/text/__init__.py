"""Text for a model: corpora of many kinds, read as one lazy and repeatable stream of token sequences.

`read_sequences(tokenizer, source, n_ctx=...)` names a source and gives `Sequences`, which can be iterated
any number of times and always gives the same token sequences in the same order. The order does not depend
on how many are taken: a consumer stops when it has enough, and a later one can go on from there. `pack`
takes a fixed number of tokens from such a stream as one array of blocks.

Sources are recognised from the string: `"stdlib"` and `"stdlib-heldout"` (the Python standard library of
the running interpreter, real text that every machine has), a path or glob of UTF-8 text, JSONL, Parquet
or token-array files, a directory with a dataset, and `"hf:NAME"` for a dataset of a hub.

Identity: `Sequences.description`. Equal descriptions mean equal sequences; nothing is tokenised to make one.

Limits: a single document is tokenised in one piece, so memory follows the longest document. Records of
compressed JSONL, Parquet and streamed datasets are shuffled within windows, not over the whole file.
"""

from workbench.text.blocks import Blocks, pack
from workbench.text.encoder import NoTokenizer, SpecialTokens, TokenizerLike
from workbench.text.files import (
    HELD_OUT_ONE_IN,
    STDLIB,
    STDLIB_HELD_OUT,
    TextFile,
    find_text,
    is_held_out,
    stdlib_files,
)
from workbench.text.sequence import Rest, TokenSequence
from workbench.text.sequences import LAYOUTS, Layout, Sequences, read_sequences

__all__ = [
    "HELD_OUT_ONE_IN",
    "LAYOUTS",
    "STDLIB",
    "STDLIB_HELD_OUT",
    "Blocks",
    "Layout",
    "NoTokenizer",
    "Rest",
    "Sequences",
    "SpecialTokens",
    "TextFile",
    "TokenSequence",
    "TokenizerLike",
    "find_text",
    "is_held_out",
    "pack",
    "read_sequences",
    "stdlib_files",
]
