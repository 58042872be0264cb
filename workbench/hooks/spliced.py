"""A frozen model whose activation at one hook point can be replaced, differentiable in what replaces it.

    outputs = spliced(ids, mask)                      the model as it is, without a graph
    outputs = spliced(ids, mask, replace=new)         new(value) stands at the hook; later layers are run on it

What lies before the hook is computed without a graph, since no parameter of the model has a gradient; the
graph begins where the replacement enters. Where it can, this runs the plain Hugging Face modules over the
bridge's weights (see `plain.py`), after comparing logits and values with the bridge, once on the clean model
and once with a changed activation; elsewhere the bridge's own hooks.

Status: exact, up to the rounding that `workbench.hooks.compare` allows. Limits: an attention pattern has no
vector per token and is not spliced. What TransformerLens shows as `hook_resid_mid` is the input of the second
norm; replacing it leaves the residual stream beside the norm as it was, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import UserError
from workbench.hooks.bridge_path import evaluation_mode
from workbench.hooks.compare import DiffersError, autocast, compare, tolerance_frac
from workbench.hooks.names import check_hook
from workbench.hooks.once import refuse_missing
from workbench.hooks.plain import NoPlainPathError, PlainModel, first_line
from workbench.hooks.tree import sites

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Replace = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Outputs:
    """What one pass gave.

    Attributes:
        logits: (batch, pos, vocab).
        values: By hook name, heads side by side (batch, pos, d).
    """

    logits: Float[Tensor, "batch pos vocab"]
    values: Mapping[str, Float[Tensor, "batch pos d"]]


class Spliced:
    """A model with one replaceable hook point.

    Attributes:
        hook: The hook point that is replaced.
        names: All hook points that are read, `hook` among them.
        kind: "plain" or "bridge".
        reason: Why the plain modules are not used; empty where they are.
    """

    def __init__(
        self, model: TransformerBridge, hook: str, names: Sequence[str], mixed: torch.dtype | None, plain: Any
    ) -> None:
        self.model, self.hook, self.names, self.mixed = model, hook, tuple(names), mixed
        self._plain: PlainModel | None = plain
        self.kind, self.reason = "bridge" if plain is None else "plain", ""
        self._seen: dict[str, Tensor] = {}
        self._replace: Replace | None = None

    def __call__(
        self,
        ids: Int[Tensor, "batch pos"],
        mask: Bool[Tensor, "batch pos"] | None = None,
        *,
        replace: Replace | None = None,
    ) -> Outputs:
        """One pass over the whole model.

        Args:
            ids: Token ids.
            mask: True at real tokens, for rows padded on the right; None where there is no padding.
            replace: Takes the value at the hook (batch, pos, d), gives what stands there; differentiable.

        Raises:
            UserError: a hook does not fire or gives no vector per token.
        """
        self._seen, self._replace = {}, replace
        options = {} if mask is None else {"attention_mask": mask.long()}
        with torch.no_grad() if replace is None else nullcontext(), autocast(self.model, self.mixed):
            run = self._run_plain if self._plain is not None else self._run_bridge
            logits = run(ids, options)
        seen, self._seen, self._replace = self._seen, {}, None
        refuse_missing(sorted(set(self.names) - seen.keys()))
        return Outputs(logits.float(), seen)

    def _take(self, name: str, value: Tensor, n_rows: int) -> Tensor | None:
        """Record a value, replaced where it is to be; what stands in its place, or None for the value itself."""
        if value.ndim not in (3, 4) or "pattern" in name or "attn_scores" in name:
            raise UserError(
                f"hook {name!r} gives {tuple(value.shape)}, not one vector per token: choose another hook"
            )
        if name != self.hook or self._replace is None:
            self._seen[name] = value.expand(n_rows, *value.shape[1:]).flatten(2)
            return None
        value = value.expand(n_rows, *value.shape[1:])
        self._seen[name] = self._replace(value.flatten(2)).to(value)
        return self._seen[name].view(value.shape)

    def _run_bridge(self, ids: Tensor, options: Mapping[str, Tensor]) -> Tensor:
        def hook_of(name: str) -> Any:
            def hook(value: Any, hook: object) -> Any:
                first = value[0] if isinstance(value, tuple) else value
                new = self._take(name, first, len(ids))
                return new if new is None or first is value else (new, *value[1:])

            return hook

        hooks = [(name, hook_of(name)) for name in self.names]
        with evaluation_mode(self.model), self.model.hooks(fwd_hooks=hooks):
            return self.model(ids, return_type="logits", **options)

    def _run_plain(self, ids: Tensor, options: Mapping[str, Tensor]) -> Tensor:
        assert self._plain is not None
        with _registered(self._plain, self.model, self.names, self._take, len(ids)):
            return self._plain.root(input_ids=ids, **options).logits


@contextmanager
def _registered(
    plain: PlainModel, model: TransformerBridge, names: Sequence[str], take: Any, n_rows: int
) -> Iterator[None]:
    """Hooks on the plain modules' sides that give what `take` gives."""
    known, points, handles = sites(model), model.hook_dict, []
    try:
        for name in names:
            site = known.get(id(points[name]))
            if site is None:
                raise NoPlainPathError(f"hook {name!r} is no module's input or output")
            module = plain.modules[site.module]
            if site.side == "in":
                hook = _on_input(name, take, n_rows)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(_on_output(name, take, n_rows)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_input(name: str, take: Any, n_rows: int) -> Any:
    def hook(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for place, value in enumerate(args):
            if isinstance(value, Tensor):
                new = take(name, value, n_rows)
                return None if new is None else ((*args[:place], new, *args[place + 1 :]), kwargs)
        key = next(key for key, value in kwargs.items() if isinstance(value, Tensor))
        new = take(name, kwargs[key], n_rows)
        return None if new is None else (args, {**kwargs, key: new})

    return hook


def _on_output(name: str, take: Any, n_rows: int) -> Any:
    def hook(module: object, args: object, output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        new = take(name, first, n_rows)
        return new if new is None or first is output else (new, *output[1:])

    return hook


def open_spliced(
    model: TransformerBridge,
    hook: str,
    *,
    ids: Int[Tensor, "batch pos"],
    reads: Sequence[str] = (),
    mixed: torch.dtype | None = None,
) -> Spliced:
    """A model whose activation at `hook` can be replaced.

    Args:
        model: The bridge, its parameters frozen.
        hook: What is replaced.
        ids: A small batch without padding, on which both paths are compared.
        reads: Other hook points whose values are wanted.
        mixed: Dtype of autocast, where the activations were captured with it.

    Raises:
        UserError: an unknown hook, one that does not fire or has no vector per token, or a parameter that
            would get a gradient.
    """
    if any(parameter.requires_grad for parameter in model.original_model.parameters()):
        raise UserError(
            "the model's parameters would be trained too: call bridge.requires_grad_(False) first"
        )
    names = tuple(dict.fromkeys(check_hook(model, name) for name in (hook, *reads)))
    if hook.endswith("hook_resid_mid"):
        raise UserError(
            f"hook {hook!r} is the input of a norm in this model, and replacing it would leave the residual stream as "
            "it was: choose the hook_resid_post of the block, or hook_attn_out"
        )
    batch = ids.to(str(model.cfg.device)).expand(max(2, len(ids)), -1)
    bridge = Spliced(model, hook, names, mixed, None)
    reference = _both(bridge, batch)
    for attention in ("sdpa", "eager"):
        try:
            plain = Spliced(model, hook, names, mixed, PlainModel(model, attention))
            _compare(_both(plain, batch), reference, tolerance_frac(model, mixed))
            return plain
        except (NoPlainPathError, DiffersError) as error:
            bridge.reason = str(error)
        except UserError:
            raise
        except Exception as error:  # whatever it is, the bridge serves
            bridge.reason = f"the plain model does not run: {first_line(error)}"
    return bridge


@torch.no_grad()
def _both(spliced: Spliced, ids: Tensor) -> tuple[Outputs, Outputs]:
    """The model as it is, and with its activation halved."""
    return spliced(ids), spliced(ids, replace=lambda value: value / 2)


def _compare(got: tuple[Outputs, Outputs], wanted: tuple[Outputs, Outputs], tolerance: float) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        compare("the logits of the plain path", ours.logits, theirs.logits.float(), tolerance)
        for name, value in theirs.values.items():
            compare(f"hook {name!r}: the plain path", ours.values[name].float(), value.float(), tolerance)
