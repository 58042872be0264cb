"""First-order effects of every node from one forward and one backward pass (attribution patching).

effect_hat = sum over positions of gradient . (clean output - counterfactual output), gradient at the clean
prompt. It equals the exact effect when the model downstream of the node is linear, and to first order when
the change is small (tests/causal/test_attribution.py); it can be far off where attention or a norm
saturates, which is why every report shows it beside exact patching.

Sources: Nanda 2023 (attribution patching); Syed, Rager, Conmy 2023, arXiv:2310.10348; Marks et al. 2024,
arXiv:2403.19647 (features with an error node).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.nodes import Node, component_depth
from workbench.circuits.observation import Observation, linear_change
from workbench.circuits.split import Split, project_active
from workbench.dictionaries import Dictionary


def attribute_components(
    anatomy: Anatomy, seen: Observation, nodes: tuple[Node, ...]
) -> Float[Tensor, "node prompt"]:
    """First-order effect of each component on each prompt, in logits. Status: first-order."""
    return torch.stack([component_terms(anatomy, seen, node).sum(-1) for node in nodes])


def component_terms(anatomy: Anatomy, seen: Observation, node: Node) -> Float[Tensor, "prompt pos"]:
    """The effect of one component by position. Status: first-order."""
    gradient = seen.gradients[component_depth(node)]
    return -(linear_change(anatomy, seen, node) * gradient).sum(-1)


def attribute_features(
    seen: Observation,
    split: Split,
    dictionary: Dictionary,
    *,
    depth: int,
    features: Int[Tensor, " feature"],
) -> Float[Tensor, "feature prompt"]:
    """First-order effect of each of `features` (ascending, all active ones) in logits.

    The gradient of a feature's activation is its decoder row . dm/d(stream) at the hook's depth. Status:
    first-order.
    """
    n_prompts = seen.batch.clean.shape[0]
    total = split.clean.values.new_zeros(n_prompts, len(features))
    for sign, codes in ((1, split.clean), (-1, split.counterfactual)):
        terms = sign * project_active(codes, dictionary.W_dec, seen.gradients[depth])
        used = codes.values > 0
        prompt = torch.arange(n_prompts, device=features.device)[:, None, None].expand_as(terms)[used]
        column = torch.searchsorted(features, codes.indices[used])
        total.index_put_((prompt, column), terms[used], accumulate=True)
    return total.T.contiguous()


def attribute_error(seen: Observation, split: Split, *, depth: int) -> Float[Tensor, " prompt"]:
    """First-order effect of the dictionary's error node on each prompt, in logits. Status: first-order."""
    change = split.counterfactual.error - split.clean.error
    return -(change * seen.gradients[depth]).sum((-2, -1))
