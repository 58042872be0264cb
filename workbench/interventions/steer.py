"""What steering does, beside what random directions of the same size do.

At every chosen position the stream x moves by share |x| u, u the unit direction, so the same share is the same
size at every layer and position, and a random direction with the same share is exactly as long. A direction that
does no more than the random ones has shown that the model was pushed, not what the direction means.

    change = m(steered) - m(baseline)        excess = change - mean change of the random directions

Status: exact effects; the interval is over prompts, and the random directions' spread is given beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.errors import UserError
from workbench.intervals import N_RESAMPLES, mean_estimate
from workbench.interventions.intervene import Prompts, intervene
from workbench.interventions.intervention import steer_by
from workbench.interventions.outcome import Outcome
from workbench.interventions.steering import SteeringVector, difference_of_means, random_vector
from workbench.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

N_RANDOM = 5


@dataclass(frozen=True)
class Steering:
    """Effects of steering at several places and shares, each with its random controls.

    Attributes:
        layers: Layer of each row.
        shares: Share of the stream's length of each row; negative against the direction.
        origins: How each row's direction was made.
        change_logits: m(steered) - m(baseline) (row, prompt); NaN without answers.
        kl_nats: KL(baseline, steered) at the last position (row, prompt).
        random_change_logits: The same for each random direction (row, random, prompt).
        random_kl_nats: The same.
    """

    layers: tuple[int, ...]
    shares: tuple[float, ...]
    origins: tuple[str, ...]
    change_logits: Float[Tensor, "row prompt"]
    kl_nats: Float[Tensor, "row prompt"]
    random_change_logits: Float[Tensor, "row random prompt"]
    random_kl_nats: Float[Tensor, "row random prompt"]

    def table(self, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> pd.DataFrame:
        """One row a place and share: change, excess over the random directions, divergence, and the random ones.

        `random_largest_logits` is the largest absolute mean change of one random direction.
        """
        import pandas as pd

        random = self.random_change_logits
        excess = self.change_logits - random.mean(1)
        rows = []
        for i, layer in enumerate(self.layers):
            row = {"layer": layer, "share_frac": self.shares[i], "origin": self.origins[i]}
            for name, values in {
                "change_logits": self.change_logits[i],
                "random_change_logits": random[i].mean(0),
                "excess_logits": excess[i],
                "kl_nats": self.kl_nats[i],
                "random_kl_nats": self.random_kl_nats[i].mean(0),
            }.items():
                sample = values.double().cpu().numpy()
                row |= mean_estimate(sample, n_resamples=n_resamples, seed=seed).as_dict(name)
            rows.append({**row, "random_largest_logits": float(random[i].mean(-1).abs().max())})
        return pd.DataFrame(rows)


def steer(
    anatomy: Anatomy,
    prompts: Prompts,
    vector: SteeringVector,
    *,
    shares: Sequence[float] = (0.1, 0.3, 1.0),
    positions: Sequence[int] | None = None,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> Steering:
    """Effect of one direction by the share of the stream's length that is added, with its random controls.

    Args:
        anatomy: The model.
        prompts: Pairs (their clean prompts are steered) or prompts; without answers only divergences are known.
        vector: The direction and where it acts.
        shares: Shares of the stream's length.
        positions: Where; None for every position.
        n_random: Random directions, at least 1.
        seed: Decides them.

    Raises:
        UserError: no share, no random direction, or what `intervene` refuses.
    """
    if n_random < 1 or not shares:
        raise UserError(
            f"n_random {n_random} and {len(shares)} shares: steering is reported beside at least one random direction, "
            "for at least one share"
        )
    directions = [vector, *(random_vector(vector, seed=seed + i) for i in range(n_random))]
    columns = {
        f"{share_at}.{i}": steer_by(direction.target, float(share), positions=positions)
        for share_at, share in enumerate(shares)
        for i, direction in enumerate(directions)
    }
    change, kl = _changes(intervene(anatomy, prompts, columns), len(shares))
    return Steering(
        (vector.layer,) * len(shares), tuple(float(s) for s in shares), (vector.origin,) * len(shares),
        change[:, 0], kl[:, 0], change[:, 1:], kl[:, 1:],
    )  # fmt: skip


def _changes(
    outcome: Outcome, n_shares: int
) -> tuple[Float[Tensor, "share direction prompt"], Float[Tensor, "share direction prompt"]]:
    """Change of m and divergence, without the baseline; NaN where there are no answers."""
    kl, effect = outcome.kl_nats[1:], outcome.effect_logits
    change = torch.full_like(kl, torch.nan) if effect is None else -effect[1:]
    return change.unflatten(0, (n_shares, -1)), kl.unflatten(0, (n_shares, -1))


def steer_layers(
    anatomy: Anatomy,
    prompts: Prompts,
    positive: Int[Tensor, "positive pos"],
    negative: Int[Tensor, "negative other_pos"],
    *,
    layers: Sequence[int] | None = None,
    part: str = "resid_post",
    share: float = 0.3,
    means_over: str = "last",
    positions: Sequence[int] | None = None,
    n_random: int = N_RANDOM,
    seed: int = 0,
    progress: Progress | None = None,
) -> Steering:
    """A layer sweep: each layer's own difference of means, added with the same share of the stream's length.

    Args:
        anatomy: The model.
        prompts: What is steered, as for `steer`.
        positive: Prompts whose mean is steered towards.
        negative: Prompts whose mean is steered away from.
        layers: None for all.
        part: Which value of the blocks.
        share: Share of the stream's length.
        means_over: "last" or "all" positions of the prompts that make the directions.
        positions: Where to steer; None for every position.
        n_random: Random directions a layer.
        seed: Decides them.
        progress: Advanced by one a layer.

    Raises:
        UserError: what `difference_of_means` and `steer` refuse.
    """
    found = []
    for layer in range(anatomy.n_layers) if layers is None else layers:
        vector = difference_of_means(
            anatomy, positive, negative, layer=layer, part=part, positions=means_over
        )
        found.append(
            steer(
                anatomy, prompts, vector, shares=(share,), positions=positions, n_random=n_random, seed=seed
            )
        )
        if progress is not None:
            progress.advance()
    if not found:
        raise UserError("layers names no layer to steer at: give at least one, or leave it out for all")
    return _stacked(found)


def _stacked(found: Sequence[Steering]) -> Steering:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(one, name) for one in found])

    return Steering(
        tuple(layer for one in found for layer in one.layers),
        tuple(share for one in found for share in one.shares),
        tuple(origin for one in found for origin in one.origins),
        joined("change_logits"), joined("kl_nats"), joined("random_change_logits"), joined("random_kl_nats"),
    )  # fmt: skip
