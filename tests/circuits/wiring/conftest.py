"""Tiny models of every family and random prompt pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from tests.models_on_disk import architecture_dir, native_model
from workbench.anatomy import open_anatomy
from workbench.circuits.wiring.catalogue import Wiring
from workbench.models import load_model
from workbench.tasks import Batch

ARCHITECTURES = ("native", "gpt2", "llama", "neox", "gemma2")
OpenWiring = Callable[..., Wiring]


def random_pairs(*, n_pairs: int = 3, n_pos: int = 5, d_vocab: int = 64, seed: int = 0) -> Batch:
    """Pairs of random tokens that share their first one."""
    generator = torch.Generator().manual_seed(seed)
    clean, other = (torch.randint(0, d_vocab, (n_pairs, n_pos), generator=generator) for _ in range(2))
    other[:, 0] = clean[:, 0]
    answer = torch.randint(0, d_vocab, (n_pairs,), generator=generator)
    return Batch(clean, other, answer, (answer + 1) % d_vocab)


@pytest.fixture(scope="session")
def wiring_of(tmp_path_factory: pytest.TempPathFactory) -> OpenWiring:
    """Wirings of tiny random models by architecture and dtype, each made once."""

    @cache
    def make(architecture: str, dtype: torch.dtype = torch.float64, **config: int) -> Wiring:
        if architecture in ("native", "attention-only"):
            model = native_model(attn_only=architecture == "attention-only", n_layers=3).to(dtype)
        else:
            folder = architecture_dir(tmp_path_factory.mktemp("model"), architecture, **config)
            model = load_model(folder, device="cpu", dtype=dtype)
        return Wiring(open_anatomy(model))

    return make


@pytest.fixture(scope="session")
def small(wiring_of: OpenWiring) -> Wiring:
    """A GPT-2 of two layers with two heads each: 46 edges."""
    return wiring_of("gpt2", n_layer=2, n_head=2, n_embd=16)


@pytest.fixture
def pairs() -> Batch:
    """Three random pairs of five tokens."""
    return random_pairs()
