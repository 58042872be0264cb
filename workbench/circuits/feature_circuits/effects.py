"""Effects of all features and errors at every site: by one gradient, or by integrated gradients.

    attribution            effect_hat(a) = gradient of m at clean . (a_clean - a_patch)
    integrated gradients   effect_hat(a) = sum over j of weight_j gradient at x(t_j) . (a_clean - a_patch)
                           x(t) = x_patch + t (x_clean - x_patch)

Features and error of one site are interpolated together, one site at a time; everything after the site is
recomputed and everything before it left alone, so only the rest of the model is run, all steps in one batch.
The sum over a site's nodes then approaches m(clean) - m(whole site replaced); how far it is off is reported as
the completeness gap. The rule is one of `workbench.circuits.quadrature`: `midpoint` by default; `right` is that of
the paper (its left sum counts from the clean end), biased to first order in 1 / N; attribution is `right` with
N = 1.

The error is one vector a position, contracted to one number. Status: first-order in each node (exact where the
model is linear downstream); the gap says nothing about single nodes. Without a counterfactual a stream is
taken to b_dec; where that is near zero a norm bends the line only at its very end, no rule sees it, and the gap is
near 1: pair the prompts, or read such sites by exact patching.

Source: Marks et al. 2024, arXiv:2403.19647; integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.feature_circuits.codes import Change, Seen, change_of_all
from workbench.circuits.feature_circuits.metrics import score
from workbench.circuits.feature_circuits.sites import FeatureSite, FeatureSites
from workbench.circuits.quadrature import DEFAULT, Quadrature, quadrature
from workbench.circuits.split import project_active
from workbench.errors import UserError, nearest

METHODS = ("ig", "atp")
N_STEPS, MAX_TOKENS = 10, 8192


@dataclass(frozen=True, eq=False)
class SiteEffects:
    """Effects of the nodes of one site, in the metric's unit; positive helps what it measures.

    Attributes:
        features: Of each slot of the site's merged codes (prompt, pos, slot).
        error: Of the error node at each position (prompt, pos).
        gradient: The (mean) gradient that they were made with (prompt, pos, d_model).
        replaced: m(clean) - m(whole site replaced), measured (prompt).
    """

    features: Float[Tensor, "prompt pos slot"]
    error: Float[Tensor, "prompt pos"]
    gradient: Float[Tensor, "prompt pos d_model"]
    replaced: Float[Tensor, " prompt"]

    @property
    def total(self) -> Float[Tensor, " prompt"]:
        """Sum of the effects of all nodes of the site."""
        return self.features.sum((-2, -1)) + self.error.sum(-1)


def completeness_gap(effects: list[SiteEffects]) -> float:
    """mean |sum of effects - measured effect of the whole site| / mean |measured effect| over prompts.

    One site's batches. Status: exact.
    """
    total, measured = (
        torch.cat(parts) for parts in ([e.total for e in effects], [e.replaced for e in effects])
    )
    return float((total - measured).abs().mean() / measured.abs().mean().clamp_min(1e-30))


def node_effects(
    sites: FeatureSites,
    seen: Seen,
    *,
    method: str = "ig",
    n_steps: int = N_STEPS,
    rule: str = DEFAULT,
    max_tokens: int = MAX_TOKENS,
) -> tuple[SiteEffects, ...]:
    """Effects of every node of every site on a batch.

    Args:
        sites: The dictionaries.
        seen: The batch, from `observe`.
        method: `ig` or `atp` (one gradient at the clean prompts).
        n_steps: Points of the integral.
        rule: One of `QUADRATURES`; `right` is that of the paper.
        max_tokens: Largest number of tokens in one forward pass.

    Raises:
        UserError: method, rule or number of steps that does not exist.
    """
    line, found = check_method(method, n_steps=n_steps, rule=rule), []
    for index, at in enumerate(sites):
        gradient = seen.gradients[index]
        if method == "ig":
            function, base = _suffix(sites, seen, at), seen.streams[at.site.depth]
            shift = -change_of_all(at, seen.changes[index].difference)
            width = max(1, max_tokens // base[..., 0].numel())
            gradient = mean_gradient(function, base, shift, line, width=width)
        found.append(_effects(sites, seen, at, seen.changes[index], gradient))
    return tuple(found)


def check_method(method: str, *, n_steps: int, rule: str) -> Quadrature:
    """The rule of `node_effects`, when its options exist.

    Raises:
        UserError: method, rule or number of steps.
    """
    if method not in METHODS:
        raise UserError(f"method {method!r} is not known; {nearest(method, METHODS)}")
    return quadrature(rule, n_steps)


def mean_gradient(
    function: Callable[[Tensor], Tensor],
    clean: Float[Tensor, "*shape"],
    shift: Float[Tensor, "*shape"],
    line: Quadrature,
    *,
    width: int,
) -> Float[Tensor, "*shape"]:
    """Mean gradient of `function` along the line from `clean + shift` (point 0) to `clean` (point 1).

    Args:
        function: (step, *shape) to (step, row); each row of the output depends on its own step only.
        clean: Where the line ends.
        shift: From there to its beginning.
        line: Points and weights.
        width: Points in one call.
    """
    total = torch.zeros_like(clean)
    points, weights = (torch.tensor(t, device=clean.device).to(clean) for t in (line.points, line.weights))
    for t, weight in zip(points.split(width), weights.split(width), strict=True):
        with torch.enable_grad():
            x = clean + (1 - t).view(-1, *([1] * clean.ndim)) * shift
            x = x.detach().requires_grad_()
            gradient = torch.autograd.grad(function(x).sum(), x)[0]
        total += torch.tensordot(weight, gradient, 1)
    return total


def _suffix(sites: FeatureSites, seen: Seen, at: FeatureSite) -> Callable[[Tensor], Tensor]:
    return lambda x: score(sites.anatomy, seen.prompts.metric, x, at.site.depth)


@torch.no_grad()
def contributions(
    at: FeatureSite, change: Change, gradient: Float[Tensor, "prompt pos d_model"]
) -> tuple[Float[Tensor, "prompt pos slot"], Float[Tensor, "prompt pos"]]:
    """Gradient . (clean - replaced) of every feature and of the error. Status: exact product."""
    features = project_active(change.difference, at.dictionary.W_dec, gradient)
    return features, (change.difference.error * gradient).sum(-1)


@torch.no_grad()
def _effects(
    sites: FeatureSites, seen: Seen, at: FeatureSite, change: Change, gradient: Tensor
) -> SiteEffects:
    replaced = seen.streams[at.site.depth] - change_of_all(at, change.difference)
    measured = seen.clean_metric - score(sites.anatomy, seen.prompts.metric, replaced, at.site.depth)
    return SiteEffects(*contributions(at, change, gradient), gradient, measured)
