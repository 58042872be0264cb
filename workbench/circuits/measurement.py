"""All measurements of one trace: effects of every node, edges, controls. Writing them is `tracing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import self_check
from workbench.circuits.controls import (
    DictionaryReport,
    random_dictionary_report,
    report_dictionary,
    untrained_baseline,
)
from workbench.circuits.edges import writer_contributions, writer_nodes
from workbench.circuits.effects import Effects, component_effects, feature_effects
from workbench.circuits.metric import task_batches
from workbench.circuits.nodes import Node, component_nodes
from workbench.circuits.observation import Observation, observe
from workbench.circuits.setting import Setting
from workbench.circuits.split import Split, split_pair
from workbench.intervals import Estimate
from workbench.progress import Progress
from workbench.tasks import Task


@dataclass(frozen=True)
class Measurement:
    """Effects in logits over all prompts of a task; see `Effects` for the sign.

    Attributes:
        effects: Components, then active features ascending, then the error node.
        clean_logits: m of each clean prompt.
        counterfactual_logits: m, with the clean pair's answers, of each counterfactual prompt.
        writers: Components whose outputs sum to the activation at the dictionary's hook.
        features: The exactly patched features.
        contributions: Mean clean minus counterfactual pre-activation, by writer (writer, feature).
        self_check_frac: Largest relative error of a null edit.
        dictionary: Joint and single effects of the dictionary's largest features.
        random_dictionary: The same of a random dictionary of the same size.
        untrained_logits: Mean m of the clean prompts under an untrained model of the same shape.
    """

    effects: Effects
    clean_logits: Float[Tensor, " prompt"]
    counterfactual_logits: Float[Tensor, " prompt"]
    writers: tuple[Node, ...]
    features: tuple[Node, ...]
    contributions: Float[Tensor, "writer feature"]
    self_check_frac: float
    dictionary: DictionaryReport
    random_dictionary: DictionaryReport
    untrained_logits: Estimate


def measure(
    setting: Setting,
    task: Task,
    *,
    n_exact_components: int | None,
    n_exact_features: int,
    n_resamples: int,
    seed: int,
) -> Measurement:
    """Measure a task's circuit: two forward passes and one backward pass, then the interventions."""
    anatomy, site, dictionary = setting.anatomy, setting.site, setting.dictionary
    batches = task_batches(task, anatomy.device)
    error = self_check(anatomy, batches[-1].clean[:2])
    observations = [observe(anatomy, batch) for batch in batches]
    splits = [split_pair(dictionary, seen, site) for seen in observations]
    components = component_nodes(setting.model)
    n_patches = (min(n_exact_components or len(components), len(components)) + 2 * n_exact_features) * len(
        batches
    )
    with Progress(n_patches, f"patching {task.name}", "nodes") as progress:
        parts = component_effects(
            anatomy, observations, components, n_exact=n_exact_components, progress=progress
        )
        learned = feature_effects(
            anatomy, observations, splits, dictionary, site=site, n_exact=n_exact_features, progress=progress
        )
        common = {"site": site, "n_resamples": n_resamples, "seed": seed}
        control = random_dictionary_report(
            anatomy, observations, dictionary, n_exact=n_exact_features, progress=progress, **common
        )
    features = tuple(learned.nodes[row] for row in learned.exact_rows if learned.nodes[row].kind == "feature")
    writers = writer_nodes(components, site)
    return Measurement(
        effects=parts + learned,
        clean_logits=torch.cat([seen.clean_logits for seen in observations]).cpu(),
        counterfactual_logits=torch.cat([seen.counterfactual_logits for seen in observations]).cpu(),
        writers=writers,
        features=features,
        contributions=mean_contributions(setting, observations, splits, writers=writers, features=features),
        self_check_frac=error,
        dictionary=report_dictionary(anatomy, observations, splits, dictionary, learned, **common),
        random_dictionary=control,
        untrained_logits=untrained_baseline(
            setting.model_source, batches, seed=seed, n_resamples=n_resamples, device=str(anatomy.device)
        ),
    )


def mean_contributions(
    setting: Setting,
    observations: Sequence[Observation],
    splits: Sequence[Split],
    *,
    writers: Sequence[Node],
    features: Sequence[Node],
) -> Float[Tensor, "writer feature"]:
    """Contributions of writers to the features' pre-activations, meaned over all prompts."""
    indices = [node.feature for node in features]
    parts = [
        writer_contributions(setting.anatomy, o, s, setting.dictionary, writers=writers, features=indices)
        for o, s in zip(observations, splits, strict=True)
    ]
    return torch.cat(parts, -1).mean(-1).cpu()
