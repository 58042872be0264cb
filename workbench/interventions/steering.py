"""Steering vectors: directions of the stream, with where they came from.

    difference of means   mean stream over one set of prompts minus mean over another
    decoder row           what one feature of a dictionary writes
    random                the control: a direction drawn uniformly

Only the direction is used for steering; how far is said as a share of the stream's length (`steer`).
Sources: Turner et al. 2023, arXiv:2308.10248; Marks and Tegmark 2023, arXiv:2310.06824 (difference of means).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, recorder
from workbench.circuits.sweeps import read_dictionary
from workbench.circuits.sweeps.sweep import check_option
from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.interventions.target import Target, checked, stream


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction at one point of the stream.

    Attributes:
        vector: Of any length (d_model).
        layer: Block index.
        part: Where in the block: "resid_pre", "resid_mid", "resid_post", "attn_out" or "mlp_out".
        origin: How it was made, in words.
    """

    vector: Float[Tensor, " d_model"]
    layer: int
    part: str
    origin: str

    @property
    def target(self) -> Target:
        """The direction as a target of interventions."""
        return stream(self.layer, self.part, direction=self.vector)


@torch.no_grad()
def difference_of_means(
    anatomy: Anatomy,
    positive: Int[Tensor, "positive pos"],
    negative: Int[Tensor, "negative other_pos"],
    *,
    layer: int,
    part: str = "resid_post",
    positions: str = "last",
) -> SteeringVector:
    """Mean of the value over `positive` prompts minus its mean over `negative` ones.

    Args:
        anatomy: The model.
        positive: Prompts of one length.
        negative: Prompts of one length, which may be another.
        layer: Block index.
        part: Which value of the block.
        positions: "last" for the last position of each prompt, "all" for every one after the first.

    Raises:
        UserError: an unknown part, layer or `positions`; a set without prompts; equal means.

    Status: exact.
    """
    check_option("positions", positions, ("last", "all"))
    where = checked(anatomy, stream(layer, part))
    means = [_mean(anatomy, ids.to(anatomy.device), where, positions) for ids in (positive, negative)]
    if not bool((means[0] - means[1]).abs().max() > 0):
        raise UserError(
            "positive and negative have equal means, so there is no direction: give prompts that differ"
        )
    return SteeringVector(means[0] - means[1], layer, part, f"difference of means at {positions} positions")


def _mean(anatomy: Anatomy, ids: Tensor, where: Target, positions: str) -> Float[Tensor, " d_model"]:
    if len(ids) == 0 or (positions == "all" and ids.shape[1] < 2):
        raise UserError(
            f"prompts of shape {tuple(ids.shape)} have no position to take a mean over: give more"
        )
    seen, keep = recorder()
    anatomy.run(anatomy.embed(ids), stop=2 * where.layer + 2, edits={where.hook: keep(where.hook)})
    value = seen[where.hook]
    return value[:, -1].mean(0) if positions == "last" else value[:, 1:].mean((0, 1))


def decoder_vector(anatomy: Anatomy, dictionary: Dictionary, feature: int) -> SteeringVector:
    """Decoder row of one feature, at the dictionary's hook.

    Raises:
        UserError: no such feature, or a dictionary of another model or hook.
    """
    site = read_dictionary(anatomy, dictionary).site
    if not 0 <= feature < dictionary.d_sae:
        raise UserError(f"feature {feature} is out of range: the dictionary has 0 to {dictionary.d_sae - 1}")
    part = site.hook.rsplit("hook_", 1)[1]
    return SteeringVector(
        dictionary.W_dec[feature].detach(), site.layer, part, f"decoder row of feature {feature}"
    )


def random_vector(like: SteeringVector, *, seed: int) -> SteeringVector:
    """A uniformly random direction at the same point, of the same length."""
    drawn = torch.randn(len(like.vector), generator=torch.Generator().manual_seed(seed)).to(like.vector)
    vector = drawn * (like.vector.norm() / drawn.norm())
    return SteeringVector(vector, like.layer, like.part, f"random direction, seed {seed}")
