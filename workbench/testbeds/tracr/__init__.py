"""Programs that Tracr compiled to transformers, with the true edges of their craft graphs.

bed = make_testbed("tracr.sort")

The weights lie in `data/testbeds/tracr`; Tracr and JAX are needed only to make them again
(`compile_programs.py`). A prompt is the beginning token and as many tokens as the program was compiled for.
The answer is read at the last position; its ids are places in the program's output vocabulary. The models
have no norm and ReLU MLPs; some attend in both directions, because their programs need it. `coldness` is the
attention score of a match: 100 in Tracr, where the softmax is flat to float32; at 20 it has a gradient again and every
program still answers right.

Most programs depend on the length of the prompt somewhere. All prompts of a bed have one length, so what only
the length decides (the head that counts it, for one) carries no difference and is not in the truth.

Reference: Lindner et al. 2023, "Tracr: Compiled Transformers as a Laboratory for Interpretability",
arXiv 2301.05062.
"""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.assets import asset_folder
from workbench.errors import UserError
from workbench.testbeds.native import boot
from workbench.testbeds.pairs import Draw, Drawn, sampler
from workbench.testbeds.tracr.answers import ANSWERS
from workbench.testbeds.truth import Builder, TestBed, nodes_of

CHECKED_PROMPTS, COLDNESS = 1024, 100.0
NOTE = "Attention and MLP steps are nearly hard, so that first-order scores are often exactly zero."


def _builder(name: str) -> Builder:
    def make(*, coldness: float = COLDNESS, dtype: torch.dtype = torch.float32) -> TestBed:
        """The program; `coldness` is the attention score of a match, 100 as Tracr makes it."""
        record, title = _records()[name], ANSWERS[name][0]
        model = boot(_tempered(_weights(name, record), coldness), _shape(record), dtype=dtype)
        _check_answers(name, record, model, coldness)
        edges = frozenset((writer, reader) for writer, reader in record["edges"])
        return TestBed(
            name=f"tracr.{name}",
            title=title,
            description=f"Tokens {', '.join(map(str, _tokens(record)))}; {_length(record)} to a prompt.",
            model=model,
            sampler=sampler(_draw(name, record)),
            nodes=nodes_of(edges),
            edges=edges,
            note=NOTE,
        )

    return make


@cache
def _records() -> dict[str, Any]:
    return json.loads((asset_folder("data") / "testbeds/tracr/programs.json").read_text())


@cache
def _stored() -> dict[str, Tensor]:
    return load_file(asset_folder("data") / "testbeds/tracr/programs.safetensors")


def residual_labels(name: str) -> list[str]:
    """What each direction of a program's residual stream stands for, as `variable:value`.

    Args:
        name: Of the program, without its family: "sort".
    """
    return list(_records()[name]["residual_labels"])


def _shape(record: dict[str, Any]) -> dict[str, object]:
    return {**record["shape"], "act_fn": "relu", "normalization_type": None}


def _length(record: dict[str, Any]) -> int:
    return int(record["shape"]["n_ctx"]) - 1


def _tokens(record: dict[str, Any]) -> list[Any]:
    return [token for token in record["vocabulary"] if not str(token).startswith("compiler_")]


def _weights(name: str, record: dict[str, Any]) -> dict[str, Tensor]:
    """The dense weights; all but the stored places are 0."""
    sizes = {key: tuple(record["sizes"][key]) for key in sorted(record["sizes"])}
    flat = torch.zeros(sum(int(np.prod(size)) for size in sizes.values()))
    flat[_stored()[f"{name}.places"].long()] = _stored()[f"{name}.values"]
    parts = flat.split([int(np.prod(size)) for size in sizes.values()])
    return {key: part.view(size) for (key, size), part in zip(sizes.items(), parts, strict=True)}


def _tempered(weights: dict[str, Tensor], coldness: float) -> dict[str, Tensor]:
    """The weights with all queries scaled, so that a match has another score."""
    scaled = {name: weight * coldness / COLDNESS for name, weight in weights.items() if ".attn.q." in name}
    return {**weights, **scaled}


def _encode(record: dict[str, Any], tokens: list[Any]) -> list[int]:
    return [record["vocabulary"].index(token) for token in [record["beginning"], *tokens]]


@torch.no_grad()
def _check_answers(name: str, record: dict[str, Any], model: Any, coldness: float) -> None:
    """Refuse weights that do not answer as the program does."""
    rng, answer = random.Random(0), ANSWERS[name][1]
    prompts = [rng.choices(_tokens(record), k=_length(record)) for _ in range(CHECKED_PROMPTS)]
    wanted = [answer(prompt) for prompt in prompts]
    found = model(torch.tensor([_encode(record, p) for p in prompts]), return_type="logits")[:, -1].argmax(-1)
    remedy = (
        "give a higher coldness" if coldness < COLDNESS else "the data files were changed, install them again"
    )
    for prompt, right, index in zip(prompts, wanted, found.tolist(), strict=True):
        if right is not None and record["outputs"][index] != right:
            raise UserError(
                f"weights of program {name!r} at coldness {coldness} answer {record['outputs'][index]!r} to {prompt} "
                f"where the program gives {right!r}: {remedy}"
            )


def _draw(name: str, record: dict[str, Any]) -> Draw:
    """One to all tokens are drawn anew, until the answer is another one."""
    tokens, length, answer = _tokens(record), _length(record), ANSWERS[name][1]

    def draw(rng: random.Random, index: int) -> Drawn:
        while True:
            clean = rng.choices(tokens, k=length)
            other = list(clean)
            for place in rng.sample(range(length), 1 + index % length):
                other[place] = rng.choice(tokens)
            answers = answer(clean), answer(other)
            if None not in answers and answers[0] != answers[1]:
                ids = [record["outputs"].index(a) for a in answers]
                return Drawn(_encode(record, clean), _encode(record, other), *ids)

    return draw


BEDS = {name: _builder(name) for name in ANSWERS}
