"""What a sweep is asked for, checked against the model, and each batch of pairs made ready for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.metric import task_batches
from workbench.circuits.observation import Activations, activations
from workbench.circuits.sweeps.reading import Reading, read_dictionary
from workbench.circuits.sweeps.sites import (
    SweepSite,
    active_features,
    feature_site,
    head_site,
    n_neurons,
    neuron_site,
    vector_site,
)
from workbench.circuits.sweeps.sweep import DIRECTIONS, check_option
from workbench.circuits.sweeps.tail import answer_difference, first_changed
from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.tasks import Batch, Task

VECTORS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
KINDS = (*VECTORS, "head", "neuron", "feature")
_NEEDS_MLP = ("mlp_out", "neuron")


@dataclass(frozen=True)
class Swept:
    """The cells of a sweep.

    Attributes:
        kind: One of `KINDS`.
        layers: Layers; None for all (a feature sweep has the one of its dictionary).
        positions: "each" for one position a cell, "all" for every position at once, or the positions to sweep one by
            one; None for "each" where the unit is a vector of the stream and "all" elsewhere.
        units: Heads, neurons or features; None for all (features: those active on either prompt).
        dictionary: Whose features are swept.
    """

    kind: str
    layers: Sequence[int] | None = None
    positions: str | Sequence[int] | None = None
    units: Sequence[int] | None = None
    dictionary: Dictionary | None = None


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    Attributes:
        kind: What is replaced.
        layers: Layers, ascending as given; of a feature sweep its dictionary's.
        positions: Positions that are swept one by one; None for all at once.
        units: Heads, neurons or features; (0,) where the unit is a vector.
        reading: The dictionary whose features are swept, joined to the model; None for other kinds.
        direction: "noising" or "denoising".
    """

    kind: str
    layers: tuple[int, ...]
    positions: tuple[int, ...] | None
    units: tuple[int, ...]
    reading: Reading | None
    direction: str

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the cells' axes."""
        return tuple(name for name, _ in self._parts())

    @property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Names along each axis."""
        return tuple(values for _, values in self._parts())

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.layers) * len(self.units) * (1 if self.positions is None else len(self.positions))

    def _parts(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        if self.kind != "feature":
            yield "layer", self.layers
        if self.kind not in VECTORS:
            yield self.kind, self.units
        if self.positions is not None:
            yield "pos", self.positions


@dataclass(frozen=True)
class Scene:
    """One batch of pairs made ready: the base run is edited, the other run gives the new values.

    Attributes:
        batch: The pairs.
        base: Clean run for noising, counterfactual run for denoising.
        start: First position at which the prompts differ; None where a layer looks ahead.
        sites: One per layer of the plan.
        sign: Effect = sign (m(edited) - m(base)).
        base_logits: m of the base run.
        other_logits: m of the other run.
    """

    batch: Batch
    base: Activations
    start: int | None
    sites: tuple[SweepSite, ...]
    sign: int
    base_logits: Float[Tensor, " prompt"]
    other_logits: Float[Tensor, " prompt"]


def pairs_of(anatomy: Anatomy, pairs: Batch | Task, *, max_tokens: int) -> list[Batch]:
    """Pairs by length, on the model's device, in slices of at most `max_tokens` tokens (at least one pair)."""
    whole = task_batches(pairs, anatomy.device) if isinstance(pairs, Task) else [pairs.to(anatomy.device)]
    slices = []
    for batch in whole:
        width = max(1, max_tokens // batch.clean.shape[1])
        slices += [batch.take(slice(s, s + width)) for s in range(0, len(batch.answer), width)]
    if not slices:
        raise UserError("pairs has no prompt: a sweep needs at least one pair")
    return slices


def plan_sweep(anatomy: Anatomy, batches: Sequence[Batch], swept: Swept, direction: str) -> Plan:
    """The sweep as it will run.

    Raises:
        UserError: unknown kind, direction, layer, unit or position; positions over prompts of several lengths; a
            part that the model does not have; a dictionary of another model or hook.
    """
    check_option("kind", swept.kind, KINDS)
    check_option("direction", direction, DIRECTIONS)
    _check_kind(anatomy, swept)
    reading = read_dictionary(anatomy, swept.dictionary) if swept.kind == "feature" else None
    if reading is not None:
        layers, units = (reading.site.layer,), _features(anatomy, batches, reading, swept.units)
    else:
        layers = _chosen("layers", swept.layers, anatomy.n_layers)
        units = _chosen("units", swept.units, _n_units(anatomy, swept.kind, layers))
    return Plan(swept.kind, layers, _positions(batches, swept), units, reading, direction)


def _check_kind(anatomy: Anatomy, swept: Swept) -> None:
    if swept.kind in _NEEDS_MLP and not anatomy.has_mlp:
        raise UserError(
            f"kind {swept.kind!r} needs an MLP, and this model has attention only: sweep heads instead"
        )
    if swept.kind == "resid_mid" and anatomy.parallel:
        raise UserError(
            "kind 'resid_mid' has no meaning in parallel blocks, whose halves read one stream: use 'resid_post'"
        )
    if swept.kind == "feature" and swept.layers is not None:
        raise UserError("kind 'feature' has the layer of its dictionary: leave layers out")
    if swept.kind != "feature" and swept.dictionary is not None:
        raise UserError(f"kind {swept.kind!r} has no dictionary: leave it out, or set kind to 'feature'")
    if swept.units is not None and swept.kind in VECTORS:
        raise UserError(
            f"kind {swept.kind!r} has one unit a layer: leave units out, or sweep heads or neurons"
        )


def _n_units(anatomy: Anatomy, kind: str, layers: Sequence[int]) -> int:
    if kind == "neuron":
        return n_neurons(anatomy, layers[0])
    return anatomy.n_heads if kind == "head" else 1


def _features(
    anatomy: Anatomy, batches: Sequence[Batch], reading: Reading, wanted: Sequence[int] | None
) -> tuple[int, ...]:
    dictionary = reading.dictionary
    if wanted is not None:
        return _chosen("units", wanted, dictionary.d_sae)
    runs = (activations(anatomy, ids) for batch in batches for ids in (batch.clean, batch.counterfactual))
    found = sorted({feature for run in runs for feature in active_features(anatomy, reading, run)})
    if not found:
        raise UserError(
            f"no feature of the dictionary of {dictionary.hook_name!r} is active on any of the prompts: sweep others, "
            "or name the units"
        )
    return tuple(found)


def _positions(batches: Sequence[Batch], swept: Swept) -> tuple[int, ...] | None:
    wanted = ("each" if swept.kind in VECTORS else "all") if swept.positions is None else swept.positions
    if isinstance(wanted, str):
        check_option("positions", wanted, ("each", "all"))
        if wanted == "all":
            return None
    lengths = sorted({batch.clean.shape[1] for batch in batches})
    if len(lengths) > 1:
        raise UserError(
            f"prompts have {lengths} tokens, so their positions do not correspond: sweep one length at a time, or set "
            "positions to 'all'"
        )
    return _chosen("positions", None if isinstance(wanted, str) else wanted, lengths[0])


def _chosen(name: str, wanted: Sequence[int] | None, n: int) -> tuple[int, ...]:
    chosen = tuple(range(n)) if wanted is None else tuple(wanted)
    bad = [value for value in chosen if not 0 <= value < n]
    if bad:
        raise UserError(f"{name} {bad[0]} is out of range: there are {n}, from 0 to {n - 1}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"{name} {list(chosen)} must name at least one and none twice")
    return chosen


def make_scene(anatomy: Anatomy, batch: Batch, plan: Plan) -> Scene:
    """Both runs of a batch, and its sites. Status: exact."""
    ids = (batch.clean, batch.counterfactual)
    base, other = (activations(anatomy, i) for i in (ids if plan.direction == "noising" else ids[::-1]))
    base_logits, other_logits = (
        answer_difference(anatomy, seen.resid[-1][:, -1], batch) for seen in (base, other)
    )
    sites = tuple(_site(anatomy, plan, layer, base, other) for layer in plan.layers)
    sign = -1 if plan.direction == "noising" else 1
    return Scene(batch, base, first_changed(anatomy, *ids), sites, sign, base_logits, other_logits)


def _site(anatomy: Anatomy, plan: Plan, layer: int, base: Activations, other: Activations) -> SweepSite:
    if plan.kind in VECTORS:
        return vector_site(plan.kind, layer, base, other)
    if plan.reading is not None:
        return feature_site(anatomy, plan.reading, base, other, plan.units)
    made = head_site if plan.kind == "head" else neuron_site
    site = made(anatomy, layer, base, other)
    return site if plan.units == tuple(range(site.n_units)) else site.chosen(plan.units)
