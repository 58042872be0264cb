"""Many patched runs at once: each enters at its own depth and position, and all go on together.

A patched run equals the base run up to the depth d and the position p of its patch, so it needs the blocks
after d and the positions from p on only. `run_wave` walks the depths once; at every depth the runs that start
there join those that started earlier. Norms, projections and MLPs see the rows of all runs as one matrix;
attention goes by groups of runs that begin at one position (`tail.py`). After the last attention only the last
position is kept, because m is read there.

    rows at block l  =  (runs that started before l) x prompts x (positions from their first on)

Everything is plain torch, so gradients flow through it where they are asked for. Status: exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy, Block
from workbench.circuits.sweeps.tail import KeyValues, answer_difference, mix_ready, rows_from
from workbench.tasks import Batch


@dataclass(frozen=True)
class Launch:
    """Runs that start at one depth and one position.

    Attributes:
        depth: Depth of the stream that is given.
        first: First position of that stream.
        make: Gives the streams (run, prompt, pos from `first`, d_model).
        rows: Where the runs stand in the result.
    """

    depth: int
    first: int
    make: Callable[[], Tensor]
    rows: Sequence[int]


def run_wave(
    anatomy: Anatomy, launches: Sequence[Launch], kept: KeyValues, batch: Batch
) -> Float[Tensor, "run prompt"]:
    """m of every run on every prompt, in logits.

    Args:
        anatomy: The model.
        launches: Runs; their `rows` together are 0, 1, ... without gaps.
        kept: Keys and values of the base run.
        batch: Whose answers m compares.

    Status: exact.
    """
    streams: dict[int, Tensor] = {}
    rows: dict[int, list[int]] = {}
    for depth in range(min(launch.depth for launch in launches), anatomy.last_depth + 1):
        for launch in (launch for launch in launches if launch.depth == depth):
            _join(streams, launch, only_last=depth >= anatomy.last_depth - 1)
            rows.setdefault(launch.first, []).extend(launch.rows)
        if streams and depth < anatomy.last_depth:
            streams = _step(anatomy, streams, depth, kept)
    found = torch.cat([answer_difference(anatomy, x[..., -1, :], batch) for x in streams.values()])
    order = torch.tensor([row for first in streams for row in rows[first]], device=found.device)
    return found[order.argsort()]


def _join(streams: dict[int, Tensor], launch: Launch, *, only_last: bool) -> None:
    made = launch.make()
    made = made[..., -1:, :] if only_last else made
    streams[launch.first] = torch.cat([streams[launch.first], made]) if launch.first in streams else made


def _step(anatomy: Anatomy, streams: dict[int, Tensor], depth: int, kept: KeyValues) -> dict[int, Tensor]:
    block = anatomy.blocks[depth // 2]
    last = depth >= anatomy.last_depth - 2
    if depth % 2 == 0:
        read = {f: x[..., -1:, :] for f, x in streams.items()} if last else streams
        added = _attend(anatomy, block, streams, read, kept)
        return _fed(block, read, added) if block.parallel else _sum(read, added)
    return streams if block.parallel or block.mlp is None else _fed(block, streams, streams)


def _fed(block: Block, read: Mapping[int, Tensor], onto: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """What the MLP makes of `read`, added: to the stream itself, or in parallel blocks to stream and attention."""
    fed = _split(block.mlp_out(_flat(read)), read)
    both = _sum(read, fed)
    return both if onto is read else _sum(both, onto)


def _attend(
    anatomy: Anatomy,
    block: Block,
    streams: Mapping[int, Tensor],
    read: Mapping[int, Tensor],
    kept: KeyValues,
) -> dict[int, Tensor]:
    """What attention adds at the positions of `read`, the last of those of `streams`."""
    normed = block.ln1(_flat(streams))
    asked = normed if read is streams else block.ln1(_flat(read))
    q = _split(block.attn.project(asked, "q"), read)
    k, v = (_split(block.attn.project(normed, part), streams) for part in "kv")
    z = {first: _mixed(anatomy, block, (q[first], k[first], v[first]), first, kept) for first in streams}
    return _split(block.attn_out(torch.cat([t.flatten(0, 2) for t in z.values()])[None]), read)


def _mixed(
    anatomy: Anatomy, block: Block, raw: tuple[Tensor, Tensor, Tensor], first: int, kept: KeyValues
) -> Float[Tensor, "run prompt query head d_head"]:
    """z of one group: own keys behind the base run's, one row a run and prompt."""
    q, k, v = (t.flatten(0, 1) for t in raw)
    around = anatomy.around(first + k.shape[1])[block.layer]
    own, asked = rows_from(around, first), rows_from(around, around.allowed.shape[0] - q.shape[1])
    q, k = block.attn.ready(q, "q", asked), block.attn.ready(k, "k", own)
    v = v.transpose(1, 2)
    if first:
        n_runs = raw[0].shape[0]
        k = torch.cat([_earlier(kept.keys[block.layer], first, n_runs), k], 2)
        v = torch.cat([_earlier(kept.values[block.layer], first, n_runs), v], 2)
    return mix_ready(block.attn, q, k, v, asked.allowed).unflatten(0, raw[0].shape[:2])


def _earlier(kept: Tensor, first: int, n_runs: int) -> Float[Tensor, "row kv_head key d_head"]:
    part = kept[:, :, :first]
    return part.expand(n_runs, *part.shape).flatten(0, 1)


def _flat(streams: Mapping[int, Tensor]) -> Float[Tensor, "1 row d_model"]:
    """All rows of all groups as one sequence."""
    return torch.cat([x.flatten(0, 2) for x in streams.values()])[None]


def _split(flat: Float[Tensor, "1 row *rest"], like: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The rows by group again."""
    shapes = {first: x.shape[:3] for first, x in like.items()}
    parts = flat[0].split([shape.numel() for shape in shapes.values()])
    return {f: part.unflatten(0, shape) for (f, shape), part in zip(shapes.items(), parts, strict=True)}


def _sum(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {first: x + other[first] for first, x in one.items()}
