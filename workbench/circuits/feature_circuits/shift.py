"""SHIFT: a classifier that learnt the wrong thing is repaired by removing the features that it should not use.

    1  train a probe on ambiguous texts, where the intended label and a spurious one always agree
    2  effect of every feature on the probe's logit, by integrated gradients against zero, summed over positions
    3  a person (or a planted truth) reads the list and marks the features that the task should not use
    4  those are set to zero in the forward pass:  x' = decode(f') + error
    5  optionally a new probe is trained on the changed activations

What this shows depends on what cheaper means achieve, so `run_shift` always runs them too (`shift_baselines.py`):
random features of equal number, deletion of the spurious tokens, concept words, the neurons that tell the
spurious label best, and a probe trained on balanced texts. On the paper's data a few features of the embedding
do as well as the whole circuit.

Source: Marks et al. 2024, arXiv:2403.19647, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Edit, Edits
from workbench.circuits.feature_circuits.codes import encode, observe
from workbench.circuits.feature_circuits.effects import MAX_TOKENS, N_STEPS, node_effects
from workbench.circuits.feature_circuits.kept import NodeRef, node_name
from workbench.circuits.feature_circuits.metrics import Prompts
from workbench.circuits.feature_circuits.probe import Labelled, Probe, ProbeLogit, pooled_positions
from workbench.circuits.feature_circuits.sites import EMBED_HOOK, FeatureSite, FeatureSites
from workbench.circuits.quadrature import DEFAULT
from workbench.circuits.split import Codes, written_rows
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class FeatureList:
    """Features to judge, by falling effect on the probe's logit for the text's label.

    Attributes:
        features: They.
        effect_logits: Mean over texts of the sum over positions (feature).
        table: The same with names, hooks and numbers of texts in which each is active.
    """

    features: tuple[NodeRef, ...]
    effect_logits: Float[Tensor, " feature"]
    table: pd.DataFrame


def list_features(
    sites: FeatureSites,
    probe: Probe,
    texts: Labelled,
    depth: int,
    *,
    label: str = "intended",
    min_effect_logits: float = 0.0,
    n_steps: int = N_STEPS,
    rule: str = DEFAULT,
    max_tokens: int = MAX_TOKENS,
) -> FeatureList:
    """Features whose removal would lower the probe's logit for the label.

    Args:
        sites: The dictionaries, none after `depth`.
        probe: What is explained.
        texts: Usually some hundred of the ambiguous ones.
        depth: Of the stream that the probe reads.
        label: `intended` or `spurious`; the sign of the logit follows it.
        min_effect_logits: Features above it are listed (the paper lists those above 6 in its units).
        n_steps: Points of the integral.
        rule: One of `QUADRATURES`.
        max_tokens: Largest number of tokens in one pass.

    Status: first-order in each feature.
    """
    total = [torch.zeros(at.dictionary.d_sae) for at in sites]
    active = [torch.zeros(at.dictionary.d_sae, dtype=torch.long) for at in sites]
    for rows in torch.arange(len(texts)).split(max(1, max_tokens // (texts.ids.shape[1] * n_steps))):
        seen = observe(sites, prompts_of(sites, probe, texts, depth, label, rows))
        effects = node_effects(sites, seen, n_steps=n_steps, rule=rule, max_tokens=max_tokens)
        for index, own in enumerate(effects):
            codes = seen.changes[index].difference
            total[index].index_add_(0, codes.indices.flatten().cpu(), own.features.flatten().cpu())
            active[index] += _n_texts(codes, len(total[index]))
    return _listed(sites, [t / len(texts) for t in total], active, min_effect_logits)


def prompts_of(
    sites: FeatureSites, probe: Probe, texts: Labelled, depth: int, label: str, rows: Tensor
) -> Prompts:
    """Some of the texts with the probe's logit for a label as their metric."""
    device = sites.anatomy.device
    mask = pooled_positions(texts, sites.n_bos)[rows].to(device)
    sign = (2.0 * getattr(texts, label)[rows] - 1.0).to(device)
    moved = Probe(probe.weight.to(device), probe.bias)
    return Prompts(texts.ids[rows].to(device), ProbeLogit(moved, depth, mask, sign))


def _n_texts(codes: Codes, d_sae: int) -> Int[Tensor, " d_sae"]:
    """In how many texts each feature is active."""
    text = torch.arange(len(codes.indices))[:, None, None].expand(codes.indices.shape)
    used = (codes.values != 0).cpu()
    pairs = torch.unique(torch.stack([text[used], codes.indices.cpu()[used]], -1), dim=0)
    return torch.bincount(pairs[:, 1], minlength=d_sae)


def _listed(sites: FeatureSites, total: list[Tensor], active: list[Tensor], min_effect: float) -> FeatureList:
    found = [
        (NodeRef(i, f), float(total[i][f]), int(active[i][f]))
        for i in range(len(sites))
        for f in ((total[i] > min_effect) & (active[i] > 0)).nonzero()[:, 0].tolist()
    ]
    found.sort(key=lambda row: (-row[1], row[0]))
    refs = tuple(row[0] for row in found)
    columns = {
        "node_id": [node_name(sites, ref) for ref in refs],
        "site": [sites[ref.site].site.hook for ref in refs],
        "feature": [ref.feature for ref in refs],
        "effect_logits": [row[1] for row in found],
        "n_texts": [row[2] for row in found],
    }
    return FeatureList(refs, torch.tensor(columns["effect_logits"]), pd.DataFrame(columns))


def removing(sites: FeatureSites, features: Sequence[NodeRef]) -> Edits:
    """Edits of a forward pass in which features are zero at all positions; errors stay as they are.

    Raises:
        UserError: an error node, or a feature that the dictionary does not have.
    """
    edits = dict[str, Edit]()
    for index, at in enumerate(sites):
        own = sorted({ref.feature for ref in features if ref.site == index})
        bad = next((f for f in own if not 0 <= f < at.dictionary.d_sae), None)
        if bad is not None:
            raise UserError(
                f"feature {bad} of {at.name} cannot be removed: its dictionary has features 0 to "
                f"{at.dictionary.d_sae - 1}"
            )
        if own:
            edits |= named_edit(sites, at, _without(sites, at, torch.tensor(own)))
    return edits


def named_edit(sites: FeatureSites, at: FeatureSite, change: Edit) -> dict[str, Edit]:
    """An edit of a site's activation under the name by which `run_to` finds it."""
    if at.site.hook != EMBED_HOOK:
        return {at.site.hook: change}

    def edit(stream: Tensor) -> Tensor:
        offset = sites.position_part(stream.shape[-2])
        return change(stream - offset) + offset

    return {"embed": edit}


def _without(sites: FeatureSites, at: FeatureSite, features: Tensor) -> Callable[[Tensor], Tensor]:
    gone = torch.zeros(at.dictionary.d_sae, dtype=torch.bool)
    gone[features] = True
    gone = gone.to(sites.anatomy.device)

    def change(x: Tensor) -> Tensor:
        codes = encode(at, x, n_bos=sites.n_bos)
        return x - written_rows(at.dictionary.W_dec, codes, codes.values * gone[codes.indices])

    return change
