"""Cutting a whole trainee into the parts of several processes, and putting parts together again."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.dictionaries.architecture import Architecture
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.trainee import Trainee
from workbench.errors import UserError
from workbench.training.distributed.layout import Shared
from workbench.training.distributed.place import Joined, Place

SHARDED = ("topk", "batch_topk", "group_max")


def share(trainee: Trainee, place: Place) -> Trainee:
    """The part of a whole trainee that one process trains.

    Raises:
        UserError: the architecture or the layout cannot be shared in this way, or sizes do not divide.
    """
    architecture = trainee.architecture
    if type(trainee.layout) is not Single:
        raise UserError(f"layout {type(trainee.layout).__name__} cannot be shared: train it in one process")
    if place.mode == "latents" and architecture.name not in SHARDED:
        raise UserError(
            f"architecture {architecture.name!r} cannot be divided by latents: use mode 'data', or one of "
            + ", ".join(SHARDED)
        )
    chosen = place.latents(architecture.d_sae)
    _refuse_small(architecture, chosen)
    parameters = {
        n: part_of(n, t.detach(), architecture.d_sae, chosen) for n, t in trainee.parameters.items()
    }
    single = {
        name: getattr(trainee.layout, name) for name in ("d_in", "d_out", "sites", "transcodes", "skip")
    }
    local = replace(architecture, d_sae=chosen.stop - chosen.start)
    shared = Trainee(local, Shared(**single, place=place), parameters, trainee.inputs, trainee.outputs)
    shared.buffers = {n: part_of(n, t, architecture.d_sae, chosen) for n, t in trainee.buffers.items()}
    shared.ranks = Joined(place)
    return shared


def _refuse_small(architecture: Architecture, chosen: slice) -> None:
    if chosen.stop - chosen.start < architecture.k:
        raise UserError(
            f"d_sae {architecture.d_sae} leaves {chosen.stop - chosen.start} latents per process, fewer than k "
            f"{architecture.k}: use fewer processes"
        )


def latent_axis(name: str, tensor: Tensor, d_sae: int) -> int | None:
    """The axis of a trained or kept tensor that runs over latents; None where all processes have all of it.

    Args:
        name: Of the parameter or buffer; an optimiser's moment has its parameter's name after the last dot.
        tensor: The whole tensor, or a process's part.
        d_sae: Latents of this tensor.
    """
    last = name.rsplit(".", 1)[-1]
    if tensor.ndim == 0 or last in ("b_dec", "W_skip", "mean", "scale", "matrix"):
        return None
    axis = 1 if last == "W_enc" else 0
    return axis if tensor.shape[axis] == d_sae else None


def part_of(name: str, tensor: Tensor, d_sae: int, chosen: slice) -> Tensor:
    """A process's own copy of its part of a whole tensor, in the same memory order."""
    axis = latent_axis(name, tensor, d_sae)
    if axis is None:
        return tensor.clone()
    return tensor[:, chosen].T.contiguous().T if axis else tensor[chosen].clone()


def whole_of(name: str, tensor: Tensor, d_sae: int, place: Place) -> Tensor:
    """The whole of a tensor of which every process holds its part; all processes must call it."""
    axis = latent_axis(name, tensor, d_sae // place.size) if place.mode == "latents" else None
    if axis is None:
        return tensor
    own = tensor.detach().movedim(axis, 0).contiguous()
    found = [torch.empty_like(own) for _ in range(place.size)]
    dist.all_gather(found, own)
    return torch.cat(found).movedim(0, axis)
