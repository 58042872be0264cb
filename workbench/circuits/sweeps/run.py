"""Patching sweeps: the effect of every layer and position, head, neuron or feature on the logit difference.

    patch_sweep        exact: one run a cell, all cells side by side (`wave.py`)
    attribute_sweep    first-order: one forward and one backward pass for all cells
    integrate_sweep    integrated gradients: one path a layer, all its cells moved together

    noising      effect = m(clean) - m(patched)              estimate = gradient at clean . (clean - counterfactual)
    denoising    effect = m(patched) - m(counterfactual)     the same with the gradient at the counterfactual

The path of integrated gradients runs from the counterfactual to the clean value of all chosen cells of one layer,
everything else live on the base prompt, so these cells sum to the effect of replacing them together up to the
completeness gap, which the result carries. It equals no cell's exact effect where cells interact.

A positional cell replaces its own position only. The stream at `resid_mid` is the stream itself, skip connection
included; parallel blocks have none. Sources: Vig et al. 2020, arXiv:2004.12265; Zhang and Nanda 2023,
arXiv:2309.16042; Nanda 2023 (attribution patching); Sundararajan, Taly, Yan 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.observation import stream_gradients
from workbench.circuits.quadrature import DEFAULT, Quadrature, quadrature
from workbench.circuits.sweeps.cells import N_BUCKETS, chunks_of, launches_of, list_cells
from workbench.circuits.sweeps.plan import Plan, Scene, Swept, make_scene, pairs_of, plan_sweep
from workbench.circuits.sweeps.sites import SweepSite
from workbench.circuits.sweeps.sweep import Sweep
from workbench.circuits.sweeps.tail import KeyValues, key_values
from workbench.circuits.sweeps.wave import Launch, run_wave
from workbench.progress import Progress
from workbench.tasks import Batch, Task

MAX_TOKENS = 8192


def patch_sweep(
    anatomy: Anatomy,
    pairs: Batch | Task,
    swept: Swept,
    *,
    direction: str = "noising",
    max_tokens: int = MAX_TOKENS,
    n_buckets: int = N_BUCKETS,
    progress: Progress | None = None,
) -> Sweep:
    """Exact effect of every cell on every prompt, in logits.

    Args:
        anatomy: The model.
        pairs: Prompt pairs; a task's of several lengths only where positions are not swept.
        swept: The cells.
        direction: "noising" (counterfactual value into the clean run) or "denoising" (clean into counterfactual).
        max_tokens: Largest number of stream rows in one pass.
        n_buckets: Largest number of groups of positions in one pass; the result does not depend on it.
        progress: Advanced by the number of cells of every pass, for every slice of the pairs.

    Raises:
        UserError: as `plan_sweep` says.

    Status: exact.
    """

    def effects(scene: Scene, plan: Plan) -> Tensor:
        return _patched(anatomy, scene, plan, max_tokens, n_buckets, progress)

    return _swept(anatomy, pairs, swept, direction, max_tokens, effects, method="exact")


def attribute_sweep(
    anatomy: Anatomy,
    pairs: Batch | Task,
    swept: Swept,
    *,
    direction: str = "noising",
    max_tokens: int = MAX_TOKENS,
) -> Sweep:
    """First-order effect of every cell on every prompt, in logits (attribution patching).

    Args:
        anatomy: The model.
        pairs: Prompt pairs.
        swept: The cells.
        direction: Where the gradient is taken: at the clean ("noising") or the counterfactual prompt ("denoising").
        max_tokens: Largest number of tokens in one forward and backward pass.

    Raises:
        UserError: as `plan_sweep` says.

    Status: first-order, nothing frozen.
    """

    def effects(scene: Scene, plan: Plan) -> Tensor:
        gradients, _ = stream_gradients(anatomy, scene.base.resid[0], scene.batch)
        terms = [site.terms(site.at_raw(gradients[site.depth])) for site in scene.sites]
        return torch.stack([_by_cell(t, plan) for t in terms]).flatten(0, 1) * scene.sign

    return _swept(anatomy, pairs, swept, direction, max_tokens, effects, method="first-order")


def integrate_sweep(
    anatomy: Anatomy,
    pairs: Batch | Task,
    swept: Swept,
    *,
    direction: str = "noising",
    rule: str = DEFAULT,
    n_points: int = 5,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Sweep:
    """Integrated gradients of every cell on every prompt, in logits, with the completeness gap.

    Args:
        anatomy: The model.
        pairs: Prompt pairs.
        swept: The cells; those of one layer (or dictionary) share a path.
        direction: The run on which everything else stays: the clean ("noising") or the counterfactual one.
        rule: One of `QUADRATURES`.
        n_points: Points of the rule.
        max_tokens: Largest number of tokens of one slice of the pairs, before it is repeated at every point.
        progress: Advanced by one a layer and slice of the pairs.

    Raises:
        UserError: as `plan_sweep` and `quadrature` say.

    Status: the cells of one layer sum to an exact effect up to `gap_logits`; single cells are estimates.
    """
    points, gaps = quadrature(rule, n_points), []

    def effects(scene: Scene, plan: Plan) -> Tensor:
        found, gap = _integrated(anatomy, scene, plan, points, progress)
        gaps.append(gap)
        return found

    made = _swept(
        anatomy, pairs, swept, direction, max(1, max_tokens // n_points), effects, method="integrated"
    )
    return replace(made, quadrature=str(points), gap_logits=torch.cat(gaps, 1))


def _swept(
    anatomy: Anatomy,
    pairs: Batch | Task,
    swept: Swept,
    direction: str,
    max_tokens: int,
    effects: Callable[[Scene, Plan], Tensor],
    *,
    method: str,
) -> Sweep:
    batches = pairs_of(anatomy, pairs, max_tokens=max_tokens)
    plan = plan_sweep(anatomy, batches, swept, direction)
    found, base, other = [], [], []
    for batch in batches:
        scene = make_scene(anatomy, batch, plan)
        found.append(effects(scene, plan))
        base.append(scene.base_logits)
        other.append(scene.other_logits)
    clean, counterfactual = (
        torch.cat(m) for m in ((base, other) if direction == "noising" else (other, base))
    )
    shape = [len(values) for values in plan.labels]
    return Sweep(
        torch.cat(found, 1).reshape(*shape, -1), plan.axes, plan.labels, plan.kind, method, direction,
        "all" if plan.positions is None else "single", clean, counterfactual,
    )  # fmt: skip


@torch.no_grad()
def _patched(
    anatomy: Anatomy, scene: Scene, plan: Plan, max_tokens: int, n_buckets: int, progress: Progress | None
) -> Float[Tensor, "cell prompt"]:
    kept = key_values(anatomy, scene.base.resid)
    cells = list_cells(
        scene.sites,
        plan.positions,
        start=scene.start,
        last_attention=anatomy.last_depth - 1,
        n_buckets=n_buckets,
    )
    effects = scene.base_logits.new_zeros(plan.n_cells, len(scene.base_logits))
    n_prompts, length = scene.batch.clean.shape
    for chunk in chunks_of(cells, n_prompts=n_prompts, length=length, max_tokens=max_tokens):
        found = run_wave(anatomy, launches_of(chunk, scene.sites), kept, scene.batch)
        effects[[cell.row for cell in chunk]] = scene.sign * (found - scene.base_logits)
        if progress is not None:
            progress.advance(len(chunk))
    return effects


def _by_cell(terms: Float[Tensor, "prompt pos unit"], plan: Plan) -> Float[Tensor, "cell prompt"]:
    """Terms of one site as rows, units before positions."""
    if plan.positions is None:
        return terms.sum(1).T
    return terms[:, list(plan.positions)].permute(2, 1, 0).flatten(0, 1)


def _integrated(
    anatomy: Anatomy, scene: Scene, plan: Plan, rule: Quadrature, progress: Progress | None
) -> tuple[Float[Tensor, "cell prompt"], Float[Tensor, "layer prompt"]]:
    kept = key_values(anatomy, scene.base.resid)
    effects, gaps = [], []
    for site in scene.sites:
        gradient, together = _path(anatomy, scene, site, plan, kept, rule)
        cells = scene.sign * _by_cell(site.terms(gradient), plan)
        effects.append(cells)
        gaps.append(cells.sum(0) - scene.sign * (together - scene.base_logits))
        if progress is not None:
            progress.advance()
    return torch.cat(effects), torch.stack(gaps)


def _path(
    anatomy: Anatomy, scene: Scene, site: SweepSite, plan: Plan, kept: KeyValues, rule: Quadrature
) -> tuple[Float[Tensor, "prompt pos d_model"], Float[Tensor, " prompt"]]:
    """Mean gradient at `raw` along the path of all cells of a site, and m at its far end."""
    length, tail = scene.batch.clean.shape[1], slice(scene.start or 0, None)
    change = site.every_change(range(length) if plan.positions is None else plan.positions)[:, tail]
    # A point is a share of the way to the clean value; the base run is the clean end for noising.
    shares = [1 - t if scene.sign < 0 else t for t in rule.points]

    def run(moved: Float[Tensor, "point prompt pos d_model"]) -> Float[Tensor, "point prompt"]:
        launch = Launch(site.depth, tail.start, lambda: site.stream(moved, tail), range(len(moved)))
        return run_wave(anatomy, [launch], kept, scene.batch)

    mean = torch.zeros_like(site.base)
    mean[:, tail] = _mean_gradient(run, torch.stack([share * change for share in shares]), rule)
    with torch.no_grad():
        return mean, run(change[None])[0]


def _mean_gradient(
    run: Callable[[Tensor], Tensor], moved: Float[Tensor, "point prompt pos d_model"], rule: Quadrature
) -> Float[Tensor, "prompt pos d_model"]:
    weights = torch.tensor(rule.weights, dtype=moved.dtype, device=moved.device)
    with torch.enable_grad():
        moved = moved.requires_grad_()
        (gradients,) = torch.autograd.grad(run(moved).sum(), moved)
    return torch.einsum("s,snpd->npd", weights, gradients)
