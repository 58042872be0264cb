"""Prompts given as texts are those of their token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models_on_disk import tiny_model_dir
from workbench.anatomy import Anatomy, open_anatomy
from workbench.errors import UserError
from workbench.interventions import ablate, generate, intervene
from workbench.models import load_model


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    folder: Path = tmp_path_factory.mktemp("model")
    return open_anatomy(load_model(tiny_model_dir(folder), device="cpu"))


def test_a_text_is_its_tokens(anatomy: Anatomy) -> None:
    text = "def f(x):"
    ids = anatomy.model.to_tokens(text)
    by_text, by_ids = (generate(anatomy, p, ablate("m0"), n_tokens=4) for p in (text, ids))
    assert torch.equal(by_text.tokens, by_ids.tokens)
    found = [intervene(anatomy, p, ablate("a0.h1")).logits for p in ([text, text], ids.expand(2, -1))]
    assert torch.equal(found[0], found[1])


def test_texts_of_different_lengths_are_named(anatomy: Anatomy) -> None:
    with pytest.raises(UserError, match=r"prompts 'x' and 'def f\(x\):' have \d+ and \d+ tokens: give texts"):
        intervene(anatomy, ["x", "def f(x):"], ablate("m0"))
