"""Crosscoders: norms per site, and to which of two models a planted feature is found to belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.dictionaries.layouts.conftest import SITES
from tests.dictionaries.layouts.fitting import fitted, unit
from workbench.dictionaries import Trainee
from workbench.dictionaries.base import Dictionary, Site
from workbench.dictionaries.layouts import Crosscoder
from workbench.dictionaries.sites import norm_share, site_norms
from workbench.errors import UserError

D, N_SHARED, N_OWN, LARGER = 32, 40, 12, 3.0


def test_a_latent_weighs_the_sum_of_its_parts_or_the_whole(make: Callable[..., Trainee]) -> None:
    trainee = make("crosscoder", "relu")
    rows = trainee.parameters["W_dec"].detach()
    parts = rows[:, :5].norm(dim=1) + rows[:, 5:].norm(dim=1)
    assert torch.allclose(trainee.layout.latent_norms(trainee.parameters), parts)
    whole = Crosscoder(d_in=12, d_out=12, sites=SITES, norm="whole")
    assert torch.allclose(whole.latent_norms(trainee.parameters), rows.norm(dim=1))


def test_every_site_starts_with_the_same_share(make: Callable[..., Trainee]) -> None:
    trainee = make("crosscoder", moved=0.0)
    p = trainee.parameters
    for rows in (p["W_dec"], p["W_enc"].T):
        for part in (rows[:, :5], rows[:, 5:]):
            assert torch.allclose(part.norm(dim=1), torch.full((24,), 0.5**0.5), atol=1e-5)
    assert torch.allclose(p["W_enc"].T, p["W_dec"], atol=1e-6)


def test_each_site_is_normalised_by_itself_and_says_how(make: Callable[..., Trainee]) -> None:
    trainee = make("crosscoder")
    scale = trainee.inputs.scale
    assert len(scale[:5].unique()) == len(scale[5:].unique()) == 1
    assert scale[0] != scale[5]
    dictionary = trainee.export(hook_name="a + b")
    assert [(s.name, s.width) for s in dictionary.sites] == [("a", 5), ("b", 7)]
    assert [s.scale for s in dictionary.sites] == [float(scale[0]), float(scale[5])]
    written = dictionary.W_dec[:, 5:].norm(dim=1) * float(scale[5])
    assert torch.allclose(site_norms(dictionary)[:, 1], written)


def test_refusals(make: Callable[..., Trainee]) -> None:
    dictionary = make("crosscoder").export(hook_name="a + b")
    with pytest.raises(UserError, match="site 'c' is not one of this crosscoder"):
        norm_share(dictionary, "c")
    with pytest.raises(UserError, match="the dictionary of 'a' has one site"):
        norm_share(make("autoencoder").export(hook_name="a"), "a")
    with pytest.raises(UserError, match="norm 'l2' is not one of a crosscoder"):
        Crosscoder(d_in=12, d_out=12, sites=SITES, norm="l2")
    with pytest.raises(UserError, match="a crosscoder of 1 site reads nothing together"):
        Crosscoder(d_in=5, d_out=5, sites=SITES[:1])


@dataclass(frozen=True)
class Models:
    """Rows of two models with features of both and of one, and their directions (feature, both models)."""

    rows: Tensor
    features: Tensor


@pytest.fixture(scope="module")
def models() -> Models:
    """The second model's activations are three times as large."""
    generator = torch.Generator().manual_seed(0)
    n = N_SHARED + 2 * N_OWN
    first, second = (unit(torch.randn(n, D, generator=generator)) for _ in range(2))
    first[n - N_OWN :], second[N_SHARED : n - N_OWN] = 0, 0
    codes = torch.rand(15_000, n, generator=generator) + 0.5
    codes *= torch.rand(15_000, n, generator=generator) < 3 / n
    return Models(torch.cat([codes @ first, LARGER * (codes @ second)], 1), torch.cat([first, second], 1))


def shares(dictionary: Dictionary, features: Tensor) -> dict[str, Tensor]:
    """Share of the second model in the latents of the features that were found, by whose they are."""
    scaled = [
        rows * site.scale
        for rows, site in zip(dictionary.W_dec.split(D, dim=1), dictionary.sites, strict=True)
    ]
    cosine, latent = (unit(features) @ unit(torch.cat(scaled, 1)).T).max(1)
    found, share = cosine > 0.9, norm_share(dictionary, "second")[latent]
    assert float(found.float().mean()) > 0.8
    of = torch.tensor([0] * N_SHARED + [1] * N_OWN + [2] * N_OWN)
    return {name: share[found & (of == number)] for number, name in enumerate(("both", "first", "second"))}


@pytest.mark.parametrize(("architecture", "settings"), [("relu", {"sparsity": 1.0}), ("batch_topk", {})])
def test_exclusive_and_shared_features_of_two_models(
    models: Models, architecture: str, settings: dict
) -> None:
    layout = Crosscoder(d_in=2 * D, d_out=2 * D, sites=(Site("first", D), Site("second", D)))
    trained = fitted(
        layout, architecture, models.rows, None, n_steps=260, lr=0.02, d_sae=64, k=3, settings=settings
    ).export(hook_name="both")
    found = shares(trained, models.features)
    assert float(found["first"].max()) < 0.1
    assert float(found["second"].min()) > 0.9
    assert abs(float(found["both"].median()) - 0.5) < 0.05
    raw = trained.W_dec[:, D:].norm(dim=1) / (
        trained.W_dec[:, :D].norm(dim=1) + trained.W_dec[:, D:].norm(dim=1)
    )
    assert float(raw.median()) > 0.65, "raw lengths would give the larger model a greater part in everything"
