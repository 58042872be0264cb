"""The figures of a dictionary: what it keeps of the activation, of the model, and how it uses its latents.

Intervals (`_low`, `_high`) are 95% bootstrap over blocks of text or groups of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What is kept of the activation; see `workbench.evaluation.fidelity`. NaN where it is not defined.

    Attributes:
        fvu: Fraction of variance unexplained: squared error over squared distance from the mean.
        fvu_low: Lower end of its interval.
        fvu_high: Upper end.
        explained_variance_frac: Explained variance; an offset that is the same in all rows costs nothing here.
        explained_variance_frac_low: Lower end of its interval.
        explained_variance_frac_high: Upper end.
        nmse: Squared error over squared length.
        nmse_low: Lower end of its interval.
        nmse_high: Upper end.
        cosine: Mean cosine of reconstruction and target.
        cosine_low: Lower end of its interval.
        cosine_high: Upper end.
        gamma: Relative bias of the reconstruction's length; below 1 it is too short (shrinkage).
        gamma_low: Lower end of its interval.
        gamma_high: Upper end.
    """

    fvu: float
    fvu_low: float
    fvu_high: float
    explained_variance_frac: float
    explained_variance_frac_low: float
    explained_variance_frac_high: float
    nmse: float
    nmse_low: float
    nmse_high: float
    cosine: float
    cosine_low: float
    cosine_high: float
    gamma: float
    gamma_low: float
    gamma_high: float


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What is kept of the model; everything is None where no model was run. See `workbench.evaluation.measure`.

    Attributes:
        ce_nats: Mean loss of the clean model.
        ce_zero_nats: Mean loss with the activation set to zero.
        ce_spliced_nats: Mean loss with the reconstruction in place of the activation.
        ce_recovered_frac: Share of the loss that zeroing costs which the reconstruction does not cost; NaN where
            zeroing does no harm.
        ce_recovered_frac_low: Lower end of its interval.
        ce_recovered_frac_high: Upper end.
        kl_zero_nats: Mean divergence from the clean predictions with the activation set to zero.
        kl_spliced_nats: The same with the reconstruction in its place.
        kl_recovered_frac: 1 - kl_spliced_nats / kl_zero_nats.
        kl_recovered_frac_low: Lower end of its interval.
        kl_recovered_frac_high: Upper end.
    """

    ce_nats: float | None = None
    ce_zero_nats: float | None = None
    ce_spliced_nats: float | None = None
    ce_recovered_frac: float | None = None
    ce_recovered_frac_low: float | None = None
    ce_recovered_frac_high: float | None = None
    kl_zero_nats: float | None = None
    kl_spliced_nats: float | None = None
    kl_recovered_frac: float | None = None
    kl_recovered_frac_low: float | None = None
    kl_recovered_frac_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class SiteQuality(Losses, Fidelity):
    """One target of a dictionary that has several: this one alone reconstructed, this one alone spliced."""


@dataclass(frozen=True, kw_only=True)
class Quality(Losses, Fidelity):
    """A dictionary's figures; of several sites the means, each spliced by itself.

    Attributes:
        l0: Mean number of positive latents per token.
        l0_low: Lower end of its interval.
        l0_high: Upper end.
        l0_quantiles: That number at the shares of tokens `L0_SHARES`.
        n_tokens: Tokens (or rows) whose activation was reconstructed and replaced.
        n_blocks: Blocks that they stand in.
        sites: By hook point, where there are several.
    """

    l0: float
    l0_low: float
    l0_high: float
    l0_quantiles: tuple[float, ...]
    n_tokens: int
    n_blocks: int
    sites: Mapping[str, SiteQuality] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary for JSON; a number that is not defined or was not measured is null."""
        return defined(asdict(self))


L0_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def defined(values: Any) -> Any:
    """NaN as None and tuples as lists, in nested mappings too."""
    if isinstance(values, Mapping):
        return {key: defined(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [defined(value) for value in values]
    return None if isinstance(values, float) and values != values else values
