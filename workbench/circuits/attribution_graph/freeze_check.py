"""Does the freeze hold? Predicted effects against interventions done with the bridge's own hooks.

    frozen      hook_pattern, every norm's hook_scale and hook_mlp_out are overwritten with the prompt's values
    intervened  hook_mlp_out of one layer and position without what one node writes there
    measured    what targets read of the bridge's own residual stream, less what they read without it

The engine, its gradients and `Anatomy` are left out of the measurement, so a hook that is ignored, that holds another
tensor than its name says, or a norm whose scale cannot be held shows as an error of the size of the effects: such an
architecture is refused, and the first place of the stream that went another way is named. Without the check a freeze
that does not hold gives a graph that looks entirely reasonable.

Status: exact comparison; tolerance is rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.attribution_graph import linear_run
from workbench.circuits.attribution_graph.engine import direct_effects
from workbench.circuits.attribution_graph.live import removal
from workbench.circuits.attribution_graph.logits import logit_targets
from workbench.circuits.attribution_graph.replacement import Replacement, open_replacement
from workbench.circuits.attribution_graph.targets import Targets, feature_targets, join
from workbench.errors import UserError

N_TARGETS, N_SOURCES, MAX_TOKENS = 24, 12, 32
REFUSED_FRAC = 1e-3
ROUNDINGS = 200  # rounding errors of single operations that a reading may gather
_passed: WeakKeyDictionary[Anatomy, dict[str, FreezeCheck]] = WeakKeyDictionary()


@dataclass(frozen=True)
class FreezeCheck:
    """How well predicted effects agree with effects under the bridge's own hooks.

    Attributes:
        n_effects: Effects compared.
        worst_frac: Largest difference as a share of the largest effect.
        median_frac: Median difference as a share of the effect's own size, over effects above 1% of the largest.
    """

    n_effects: int
    worst_frac: float
    median_frac: float


def freeze_check(model: Replacement) -> FreezeCheck:
    """Compare predicted effects with interventions through the bridge's hooks, once for a model and transcoders.

    Raises:
        UserError: they differ by more than rounding; the message names the first hook that goes another way.
    """
    known = _passed.setdefault(model.anatomy, {})
    key = " ".join(model.transcoders.hashes)
    if key not in known:
        n_tokens = model.n_skipped + MAX_TOKENS
        ids, short = model.frozen.ids[:n_tokens], model.frozen.n_pos <= n_tokens
        known[key] = _check(
            model
            if short
            else open_replacement(model.anatomy, ids, model.transcoders, n_skipped=model.n_skipped)
        )
    return known[key]


@torch.no_grad()
def _check(model: Replacement) -> FreezeCheck:
    targets = chosen_targets(model)
    effects = direct_effects(model, targets).dense(len(model.sources)).to(model.anatomy.device)
    sources = chosen_sources(model, effects)
    predicted = effects[:, sources].T
    changes = removal(model, [[row] for row in sources.tolist()]).at_mlp
    streams = bridge_streams(model, changes)
    readings = targets.read(streams)
    measured = readings[0] - readings[1:]
    gap, size = (measured - predicted).abs(), float(predicted.abs().max())
    noise = ROUNDINGS * torch.finfo(gap.dtype).eps * float(readings.abs().max())
    if not float(gap.max()) <= REFUSED_FRAC * size + noise:
        _refuse(model, changes, streams, float(gap.max()) / size)
    large = predicted.abs() >= 0.01 * size
    relative = (gap[large] / predicted[large].abs()).median()
    return FreezeCheck(gap.numel(), float(gap.max()) / size, float(relative))


def chosen_targets(model: Replacement) -> Targets:
    """Features spread over layers and positions, and the likeliest logits."""
    n = model.sources.n_features
    rows = torch.arange(0, n, max(1, n // N_TARGETS), device=model.anatomy.device)
    features = feature_targets(model, rows)
    return join(
        [features.take(torch.arange(len(features), device=rows.device)), logit_targets(model).targets]
    )


def chosen_sources(model: Replacement, effects: Float[Tensor, "target source"]) -> Int[Tensor, " chosen"]:
    """Features and errors with the largest effects, the strongest of every layer among them."""
    strength = effects.abs().sum(0)
    layer = model.sources.layer.to(strength.device)
    found = [int((strength * (layer == number)).argmax()) for number in range(model.n_layers)]
    token = model.sources.token(0)
    found += strength[:token].topk(min(N_SOURCES, token)).indices.tolist()
    kept = [row for row in dict.fromkeys(found) if strength[row] > 0]
    return torch.tensor(kept[:N_SOURCES], device=strength.device)


def bridge_streams(
    model: Replacement, changes: dict[int, Float[Tensor, "source pos d_model"]]
) -> list[Float[Tensor, "row pos d_model"]]:
    """The bridge's residual stream at every depth under the freeze: without a change (row 0), then with each."""
    n_rows = 1 + max(len(change) for change in changes.values())
    seen: dict[str, Tensor] = {}
    hooks = [*_held(model, n_rows), *_outputs(model, changes, seen), *_watched(model, seen)]
    with _quiet(), model.anatomy.model.hooks(fwd_hooks=hooks):
        model.anatomy.model(model.frozen.ids.expand(n_rows, -1), return_type=None)
    names = [name for name, _ in _stream_names(model)]
    missing = [name for name in names if name not in seen]
    if missing:
        raise UserError(
            f"hook {missing[0]!r} does not fire in this model, so the freeze cannot be checked: refused"
        )
    return [seen[name] for name in names]


def _held(model: Replacement, n_rows: int) -> list[tuple[str, Any]]:
    """Hooks that put patterns and scales in."""
    hooks = []
    for number, layer in enumerate(model.frozen.layers):
        hooks.append((f"blocks.{number}.attn.hook_pattern", _put(layer.pattern, n_rows)))
        for norm, scale in layer.scales.items():
            shared = norm == "ln2" and layer.block.ln2 is layer.block.ln1
            if not getattr(layer.block, norm).identity and not shared:
                hooks.append((f"blocks.{number}.{norm}.hook_scale", _put(scale, n_rows)))
    return hooks


def _put(value: Tensor, n_rows: int) -> Any:
    held = value.expand(n_rows, *value.shape)

    def hook(found: Tensor, hook: object) -> Tensor:
        return held.reshape(found.shape).to(found)

    return hook


def _outputs(
    model: Replacement, changes: dict[int, Tensor], seen: dict[str, Tensor]
) -> list[tuple[str, Any]]:
    """Hooks that put the MLPs' outputs in, with the changes and the linear skips."""
    added = linear_run.true_outputs(model, {k: torch.cat([v[:1] * 0, v]) for k, v in changes.items()})

    def writer(number: int) -> Any:
        read = _read_name(model, number)

        def hook(found: Tensor, hook: object) -> Tensor:
            return added(number, seen[read]).expand(found.shape).to(found)

        return hook

    return [(f"blocks.{number}.hook_mlp_out", writer(number)) for number in range(model.n_layers)]


def _read_name(model: Replacement, layer: int) -> str:
    return f"blocks.{layer}." + ("hook_resid_pre" if model.anatomy.parallel else "hook_resid_mid")


def _watched(model: Replacement, seen: dict[str, Tensor]) -> list[tuple[str, Any]]:
    def watcher(name: str) -> Any:
        def hook(found: Tensor, hook: object) -> None:
            seen[name] = found.clone()

        return hook

    return [(name, watcher(name)) for name, _ in _stream_names(model)]


def _stream_names(model: Replacement) -> list[tuple[str, int]]:
    """A hook for the stream at every depth; a parallel block has one stream after both halves."""
    names: list[tuple[str, int]] = [("blocks.0.hook_resid_pre", 0)]
    for layer in range(model.n_layers):
        mid = "hook_resid_post" if model.anatomy.parallel else "hook_resid_mid"
        post = "hook_resid_post" if layer == model.n_layers - 1 else None
        after = f"blocks.{layer}.{post}" if post else f"blocks.{layer + 1}.hook_resid_pre"
        names += [(f"blocks.{layer}.{mid}", 2 * layer + 1), (after, 2 * layer + 2)]
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """TransformerLens warns that an edited scale takes its slower path, which is what is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refuse(model: Replacement, changes: dict[int, Tensor], streams: list[Tensor], worst: float) -> None:
    """Name the first hook whose stream is not the frozen model's."""
    padded = {k: torch.cat([v[:1] * 0, v]) for k, v in changes.items()}
    x = model.frozen.embedded.expand(len(streams[0]), -1, -1)
    wanted = linear_run.run(model, x, linear_run.true_outputs(model, padded))
    gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(streams, wanted, strict=True)]
    name = next(
        (n for (n, _), gap in zip(_stream_names(model), gaps, strict=True) if gap > 1e-5), "the readout"
    )
    raise UserError(
        f"the freeze does not hold in model {model.anatomy.model.cfg.model_name!r}: effects under the bridge's hooks "
        f"differ from the predicted ones by {worst:.1e} of the largest, first seen at {name}, so its attribution "
        "graphs would be wrong and are refused"
    )
