"""What the traced effects are compared with: an untrained model, and a random dictionary.

An untrained model of the same shape shows what logit difference the task gives by itself. A random
dictionary (`random_dictionary`: random directions, the same sizes, k and centre) shows what share
of the effect any sparse code of that size carries, and how well first-order attribution does on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits.effects import Effects, feature_effects
from workbench.circuits.metric import logit_difference
from workbench.circuits.nodes import Site
from workbench.circuits.observation import Observation
from workbench.circuits.patching import patch_together
from workbench.circuits.split import Split, activation_at, split_pair
from workbench.circuits.verification import Agreement, compare
from workbench.dictionaries import Dictionary, random_dictionary
from workbench.intervals import Estimate, mean_estimate, ratio_estimate
from workbench.models import load_random_model
from workbench.progress import Progress
from workbench.tasks import Batch

SAMPLE_ROWS = 2048  # of the prompts, for a control whose threshold is set so that as many features are active


@dataclass(frozen=True)
class DictionaryReport:
    """What a dictionary's largest features do together, and how well attribution foresees single ones.

    Attributes:
        n_features: Number of features replaced at once: the largest by first-order effect.
        joint_logits: Exact effect of replacing all of them at once.
        joint_frac: That effect as a share of replacing the whole prompt.
        agreement: Predicted against intervened effects of these features one by one.
    """

    n_features: int
    joint_logits: Estimate
    joint_frac: Estimate
    agreement: Agreement

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON."""
        return {
            "n_features": self.n_features,
            **self.joint_logits.as_dict("joint_logits"),
            **self.joint_frac.as_dict("joint_frac"),
            "correlation": self.agreement.as_dict(),
        }


def report_dictionary(
    anatomy: Anatomy,
    observations: Sequence[Observation],
    splits: Sequence[Split],
    dictionary: Dictionary,
    effects: Effects,
    *,
    site: Site,
    n_resamples: int,
    seed: int,
) -> DictionaryReport:
    """Joint and single effects of the exactly patched features of one dictionary."""
    rows = [row for row in effects.exact_rows if effects.nodes[row].kind == "feature"]
    features = torch.tensor([effects.nodes[row].feature for row in rows], device=anatomy.device)
    joint = torch.cat(
        [
            patch_together(anatomy, o, s, dictionary, depth=site.depth, features=features)
            for o, s in zip(observations, splits, strict=True)
        ]
    )
    joint, whole = joint.cpu().double().numpy(), total_effect(observations)
    agreement = compare(
        effects.attributed[rows].numpy(), effects.patched[rows].numpy(), n_resamples=n_resamples, seed=seed
    )
    share = ratio_estimate(joint, whole, n_resamples=n_resamples, seed=seed)
    return DictionaryReport(
        len(rows), mean_estimate(joint, n_resamples=n_resamples, seed=seed), share, agreement
    )


def total_effect(observations: Sequence[Observation]) -> np.ndarray:
    """m(clean) - m(counterfactual) of each prompt, in logits."""
    return torch.cat([o.clean_logits - o.counterfactual_logits for o in observations]).cpu().double().numpy()


def random_dictionary_report(
    anatomy: Anatomy,
    observations: Sequence[Observation],
    dictionary: Dictionary,
    *,
    site: Site,
    n_exact: int,
    n_resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> DictionaryReport:
    """The same report for the same number of largest features of a random dictionary like `dictionary`."""
    rows = [activation_at(seen.clean, site)[:, 1:].flatten(0, 1) for seen in observations]
    sample = torch.cat(rows)[:SAMPLE_ROWS].to(dictionary.W_dec)
    control = random_dictionary(like=dictionary, seed=seed, sample=sample)
    splits = [split_pair(control, seen, site) for seen in observations]
    effects = feature_effects(
        anatomy, observations, splits, control, site=site, n_exact=n_exact, progress=progress
    )
    return report_dictionary(
        anatomy, observations, splits, control, effects, site=site, n_resamples=n_resamples, seed=seed
    )


def untrained_baseline(
    source: str, batches: Sequence[Batch], *, seed: int, n_resamples: int, device: str
) -> Estimate:
    """Mean logit difference of the clean prompts under a freshly initialised model of the same shape."""
    anatomy = open_anatomy(load_random_model(source, seed=seed, device=device))
    with torch.no_grad():
        found = [logit_difference(anatomy.last_logits(anatomy.embed(b.clean), 0), b) for b in batches]
    return mean_estimate(torch.cat(found).cpu().double().numpy(), n_resamples=n_resamples, seed=seed)
