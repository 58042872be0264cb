"""The embedded model's byte-level BPE: about 4,096 tokens, with closing brackets and quotes kept single.

A newline travels with the indentation after it; digits are cut in pairs (years become two two-digit
tokens); `) ] } " '` never merge with what follows, so that "which bracket closes here" has one answer.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
CLOSING = r")\]}\"'"
PATTERN = (
    r'"""|\'\'\'|[)\]}"\']'
    rf"|[^\r\n\p{{L}}\p{{N}}{CLOSING}]?\p{{L}}+"
    r"|\p{N}{1,2}"
    rf"| ?[^\s\p{{L}}\p{{N}}{CLOSING}]+"
    r"|\s*[\r\n]+[ \t]*|[ \t]+(?!\S)|\s+"
)


def train_tokenizer(texts: list[str], *, d_vocab: int) -> Tokenizer:
    """Train the BPE on `texts`; the end-of-text token gets id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, n_ctx: int) -> None:
    """Write tokenizer.json and tokenizer_config.json as Hugging Face directories have them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": n_ctx,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
