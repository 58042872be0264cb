"""Models of known features with known feature-to-feature wiring, and oracle dictionaries for them.

bed = make_testbed("wired.moved")
bed.dictionaries["blocks.0.hook_mlp_out"]      autoencoder whose latents are the planted features
bed.dictionaries["blocks.0.mlp.hook_in"]       transcoder of the same MLP, with the same latents
bed.feature_edges                              pairs of (hook, latent) that carry the answer

    moved   tokens -> MLP 0 -> a head moves what it finds at position 1 -> MLP 1, which also reads the last token
    tower   tokens -> MLP 0 -> MLP 1 -> MLP 2, with wires that skip a block

Only some of the last features are read by a logit, so that many wires are real and lead nowhere:
`feature_edges` are those that lead to a logit, `feature_wiring` are all. Features are named by the hook at
which they are written; a transcoder's latents carry the same numbers as the autoencoder's at its output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UserError
from workbench.tasks import Batch
from workbench.testbeds.truth import Builder, Edge, TestBed, nodes_of
from workbench.testbeds.wired.model import build, directions, oracle_dictionaries
from workbench.testbeds.wired.network import TOKEN_GROUP, Mlp, Move, Network

N_TOKENS, PER_TOKEN, N_ANSWERS = 60, 3, 6
LOWEST, GAIN, BIAS, MARGIN = 0.5, 3.0, -0.3, 0.2
DRAWN = 16
MOVED_EDGES: tuple[Edge, ...] = (
    ("embed", "m0"), ("m0", "a1.h0.v"), ("a1.h0", "m1"), ("embed", "m1"), ("m1", "logit"),
)  # fmt: skip
TOWER_EDGES: tuple[Edge, ...] = (
    ("embed", "m0"), ("m0", "m1"), ("embed", "m1"), ("m1", "m2"), ("m0", "m2"), ("m2", "logit"),
)  # fmt: skip


def moved_network(seed: int) -> Network:
    """Two blocks of two heads; the second head moves features that nothing reads."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {TOKEN_GROUP: 20, "found": 16, "moved": 16, "unread": 16, "last": 12}
    steps = (
        _mlp(0, "found", sizes, {TOKEN_GROUP: 2}, generator),
        Move(1, 0, 1, "found", "moved"),
        Move(1, 1, 2, "found", "unread"),
        _mlp(1, "last", sizes, {"moved": 2, TOKEN_GROUP: 1}, generator),
    )
    return _network(sizes, steps, "last", generator, n_layers=2, n_heads=2, n_ctx=4)


def tower_network(seed: int) -> Network:
    """Three MLPs one after the other, and heads that write nothing."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {TOKEN_GROUP: 20, "first": 16, "second": 16, "third": 12}
    steps = (
        _mlp(0, "first", sizes, {TOKEN_GROUP: 2}, generator),
        _mlp(1, "second", sizes, {"first": 2, TOKEN_GROUP: 1}, generator),
        _mlp(2, "third", sizes, {"second": 2, "first": 1}, generator),
    )
    return _network(sizes, steps, "third", generator, n_layers=3, n_heads=1, n_ctx=3)


def _mlp(
    layer: int, target: str, sizes: dict[str, int], fan_in: dict[str, int], generator: torch.Generator
) -> Mlp:
    """Each feature reads `fan_in` random features of each source, with weights from 0.7 to 1.3."""
    wiring = {}
    for source, n in fan_in.items():
        wiring[source] = torch.zeros(sizes[target], sizes[source])
        for row in wiring[source]:
            chosen = torch.randperm(len(row), generator=generator)[:n]
            row[chosen] = 0.7 + 0.6 * torch.rand(n, generator=generator)
    return Mlp(layer, target, wiring, torch.full((sizes[target],), BIAS))


def _network(
    sizes: dict[str, int], steps: tuple[Mlp | Move, ...], read: str, generator: torch.Generator, **shape: int
) -> Network:
    """Tokens of `PER_TOKEN` features each; feature k of the last group is for token k + 1, up to `N_ANSWERS`."""
    values = torch.zeros(N_TOKENS, sizes[TOKEN_GROUP])
    for row in values[1:]:
        chosen = torch.randperm(len(row), generator=generator)[:PER_TOKEN]
        row[chosen] = LOWEST + torch.rand(PER_TOKEN, generator=generator)
    readout = torch.zeros(N_TOKENS, sizes[read])
    readout[1 : N_ANSWERS + 1] = GAIN * torch.eye(N_ANSWERS, sizes[read])
    return Network(sizes=sizes, token_values=values, steps=steps, read=read, readout=readout, **shape)


def _sampler(network: Network) -> Callable[[int, int], Batch]:
    """Prompts whose answer is clear, and the same with other tokens in some places, with another answer."""

    def sample(n_pairs: int, seed: int) -> Batch:
        generator, n = torch.Generator().manual_seed(seed), n_pairs * DRAWN
        clean, fresh = (_prompts(n, network.n_ctx, generator) for _ in "12")
        changes = torch.rand(clean.shape, generator=generator) < 0.6
        other = torch.where(changes, fresh, clean)
        logits = network.logits(clean), network.logits(other)
        tops = [x.topk(2).values for x in logits]
        answers = [x.argmax(-1) for x in logits]
        good = (answers[0] != answers[1]) & (
            torch.stack([t[:, 0] - t[:, 1] for t in tops]).amin(0) > GAIN * MARGIN
        )
        kept = good.nonzero()[:n_pairs, 0]
        if len(kept) < n_pairs:
            raise UserError(
                f"n_pairs {n_pairs} with seed {seed} finds {len(kept)} clear pairs: use another seed"
            )
        return Batch(clean[kept], other[kept], answers[0][kept], answers[1][kept])

    return sample


def _prompts(n: int, length: int, generator: torch.Generator) -> Int[Tensor, "prompt pos"]:
    ids = torch.randint(1, N_TOKENS, (n, length), generator=generator)
    ids[:, 0] = 0
    return ids


def _builder(
    name: str, title: str, make_network: Callable[[int], Network], edges: tuple[Edge, ...]
) -> Builder:
    def make(*, seed: int = 0, overlap: float = 0.0, dtype: torch.dtype = torch.float32) -> TestBed:
        if overlap < 0:
            raise UserError(f"overlap {overlap} is negative: it is the length of a random vector, 0 for none")
        network = make_network(seed)
        D = directions(network, overlap=overlap, seed=seed)
        model, carrying = build(network, D, dtype=dtype), network.carrying()
        return TestBed(
            name=f"wired.{name}",
            title=title,
            description=f"{sum(network.sizes.values())} features; the answer is the largest of {N_ANSWERS} of them.",
            model=model,
            sampler=_sampler(network),
            nodes=nodes_of(edges),
            edges=frozenset(edges),
            dictionaries=oracle_dictionaries(network, model, D, dtype=dtype),
            feature_nodes=frozenset(feature for edge in carrying for feature in edge),
            feature_edges=carrying,
            feature_wiring=network.wiring(),
        )

    return make


BEDS = {
    "moved": _builder(
        "moved", "Features found by an MLP, moved by a head, combined", moved_network, MOVED_EDGES
    ),
    "tower": _builder(
        "tower", "Features of three MLPs, with wires that skip a block", tower_network, TOWER_EDGES
    ),
}
