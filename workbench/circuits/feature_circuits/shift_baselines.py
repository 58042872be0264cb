"""SHIFT beside everything that it must beat, one row each, on the same balanced texts.

    original             the probe as trained on ambiguous texts
    shift                marked features zero; `retrained`: a new probe on activations without them
    random features      as many features, drawn from those active in the training texts; mean over draws
    token deletion       the spurious tokens deleted from the texts; also retrained
    concept words        a probe on cosines to the pooled activations of words for the intended concept
    neuron skyline       as many coordinates of the same activations set to their mean, those with the largest effect
                         on a probe of the spurious label, trained on balanced texts: knows the spurious label
    oracle               a probe trained on balanced texts

Intended accuracy should be high and spurious accuracy 1/2; the worst of the four groups shows what a mean hides.
Balanced texts for training and for testing are different ones. Status: exact figures with 95% bootstrap intervals
over texts, which do not cover the training of the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Edits
from workbench.circuits.feature_circuits.kept import NodeRef
from workbench.circuits.feature_circuits.neurons import neuron_edits
from workbench.circuits.feature_circuits.probe import Labelled, Probe, pooled_activations, train_probe
from workbench.circuits.feature_circuits.shift import list_features, removing
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError
from workbench.intervals import mean_estimate


@dataclass(frozen=True, eq=False)
class ShiftTexts:
    """The texts of a SHIFT experiment and what is known of them.

    Attributes:
        ambiguous: Training texts in which both labels agree.
        balanced: Training texts of all four combinations, for the oracle and the skyline only.
        test: Other texts of all four combinations.
        spurious_tokens: Tokens that give the spurious label away.
        concept_words: Ids of each word for the intended concept.
    """

    ambiguous: Labelled
    balanced: Labelled
    test: Labelled
    spurious_tokens: Int[Tensor, " token"]
    concept_words: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        n_apart = int((self.ambiguous.intended != self.ambiguous.spurious).sum())
        if n_apart:
            raise UserError(
                f"{n_apart} ambiguous texts have different labels: there both must agree, move them to balanced"
            )
        if not len(self.spurious_tokens) or not self.concept_words:
            raise UserError("spurious_tokens and concept_words must be given: the baselines are always run")


@dataclass(frozen=True, eq=False)
class ShiftResult:
    """Accuracies on the test texts.

    Attributes:
        table: One row a condition: `intended_accuracy_frac`, `spurious_accuracy_frac` (each with `_low`, `_high`),
            `worst_group_accuracy_frac`, `n_ablated`.
        probe: The probe on ambiguous texts.
        removed: The marked features.
    """

    table: pd.DataFrame
    probe: Probe
    removed: tuple[NodeRef, ...]

    def accuracy(self, condition: str, of: str = "intended") -> float:
        """One figure of the table."""
        return float(self.table.set_index("condition").loc[condition, f"{of}_accuracy_frac"])


@dataclass(frozen=True, eq=False)
class _Lab:
    """Model, texts and settings of one experiment."""

    sites: FeatureSites
    texts: ShiftTexts
    depth: int
    training: dict[str, Any] = field(default_factory=dict)

    def pooled(self, texts: Labelled, edits: Edits | None = None) -> Float[Tensor, "text d_model"]:
        return pooled_activations(self.sites.anatomy, texts, self.depth, n_bos=self.sites.n_bos, edits=edits)

    def train(self, pooled: Tensor, labels: Tensor) -> Probe:
        return train_probe(pooled, labels, **self.training)

    def row(self, condition: str, logits: Tensor, n_ablated: int = 0) -> dict[str, Any]:
        return {"condition": condition, **accuracies(logits, self.texts.test), "n_ablated": n_ablated}

    def both(
        self, condition: str, probe: Probe, train: Labelled, test: Labelled, edits: Edits, n: int
    ) -> list[dict]:
        """The old probe and a new one on texts or activations that were changed."""
        pooled = self.pooled(test, edits)
        again = self.train(self.pooled(train, edits), train.intended)
        return [self.row(condition, probe(pooled), n), self.row(f"{condition}, retrained", again(pooled), n)]


def train_original(sites: FeatureSites, texts: ShiftTexts, depth: int, **training: Any) -> Probe:
    """The probe on the ambiguous texts; `training` are options of `train_probe`."""
    lab = _Lab(sites, texts, depth, training)
    return lab.train(lab.pooled(texts.ambiguous), texts.ambiguous.intended)


def run_shift(
    sites: FeatureSites,
    texts: ShiftTexts,
    depth: int,
    marked: Sequence[NodeRef],
    *,
    n_random: int = 5,
    seed: int = 0,
    **training: Any,
) -> ShiftResult:
    """Removal of the marked features, and all baselines.

    Args:
        sites: The dictionaries, none after `depth`.
        texts: The texts.
        depth: Of the stream that the probes read.
        marked: Features that the task should not use, from `list_features` on `train_original`.
        n_random: Draws of random features.
        seed: Decides them.
        **training: Options of `train_probe`, the same for every probe.

    Raises:
        UserError: no feature was marked, or fewer are active than marked.
    """
    if not marked:
        raise UserError("marked is empty: SHIFT removes one feature at least")
    lab, n = _Lab(sites, texts, depth, training), len(marked)
    pooled = lab.pooled(texts.test)
    probe = train_original(sites, texts, depth, **training)
    rows = [lab.row("original", probe(pooled))]
    rows += lab.both("shift", probe, texts.ambiguous, texts.test, removing(sites, marked), n)
    rows.append(_random_features(lab, probe, marked, n_random, seed))
    deleted = [t.without(texts.spurious_tokens) for t in (texts.ambiguous, texts.test)]
    rows += lab.both("token deletion", probe, deleted[0], deleted[1], {}, 0)
    rows.append(_concept_words(lab, pooled))
    rows.append(_neuron_skyline(lab, probe, n))
    oracle = lab.train(lab.pooled(texts.balanced), texts.balanced.intended)
    rows.append(lab.row("oracle", oracle(pooled)))
    return ShiftResult(pd.DataFrame(rows), probe, tuple(marked))


def accuracies(logits: Float[Tensor, " text"], texts: Labelled) -> dict[str, float]:
    """Share of texts whose logit has the sign of each label, and the worst group's for the intended one."""
    said = (logits > 0).long()
    hits = {name: (said == getattr(texts, name)).numpy() for name in ("intended", "spurious")}
    figures: dict[str, float] = {}
    for name, hit in hits.items():
        figures |= mean_estimate(hit).as_dict(f"{name}_accuracy_frac")
    group = (2 * texts.intended + texts.spurious).numpy()
    worst = min(float(hits["intended"][group == g].mean()) for g in np.unique(group))
    return {**figures, "worst_group_accuracy_frac": worst}


def _random_features(
    lab: _Lab, probe: Probe, marked: Sequence[NodeRef], n_draws: int, seed: int
) -> dict[str, Any]:
    """Means over draws of as many other features that are active in the training texts."""
    every = list_features(
        lab.sites, probe, lab.texts.ambiguous, lab.depth, min_effect_logits=-torch.inf, n_steps=1
    )
    others = [ref for ref in every.features if ref not in set(marked)]
    if len(others) < len(marked):
        raise UserError(
            f"{len(marked)} features are marked and only {len(others)} others are active: there is no random set of "
            "equal size, mark fewer"
        )
    generator, rows = torch.Generator().manual_seed(seed), []
    for _ in range(n_draws):
        drawn = torch.randperm(len(others), generator=generator)[: len(marked)]
        edits = removing(lab.sites, [others[i] for i in drawn.tolist()])
        rows.append(lab.row("random features", probe(lab.pooled(lab.texts.test, edits)), len(marked)))
    means = pd.DataFrame(rows).drop(columns="condition").mean().to_dict()
    return {"condition": "random features", **means, "n_ablated": len(marked)}


def _concept_words(lab: _Lab, pooled: Tensor) -> dict[str, Any]:
    """A probe that sees only cosines to words of the intended concept."""
    ambiguous, first = lab.texts.ambiguous, int(lab.texts.ambiguous.ids[0, 0])
    words = torch.stack([_word(lab, first, ids) for ids in lab.texts.concept_words])

    def cosines(x: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(x[:, None], words, dim=-1)

    probe = lab.train(cosines(lab.pooled(ambiguous)), ambiguous.intended)
    return lab.row("concept words", probe(cosines(pooled)))


def _word(lab: _Lab, first: int, ids: Sequence[int]) -> Float[Tensor, " d_model"]:
    tokens = torch.tensor([[first] * lab.sites.n_bos + list(ids)])
    label = torch.zeros(1, dtype=torch.long)
    return lab.pooled(Labelled(tokens, torch.ones_like(tokens, dtype=torch.bool), label, label))[0]


def _neuron_skyline(lab: _Lab, probe: Probe, n: int) -> dict[str, Any]:
    """The probe when the coordinates that tell the spurious label best are at their mean."""
    balanced = lab.texts.balanced
    spurious = lab.train(lab.pooled(balanced), balanced.spurious)
    edits = neuron_edits(lab.sites, spurious, balanced, lab.depth, n)
    return lab.row("neuron skyline", probe(lab.pooled(lab.texts.test, edits)), n)
