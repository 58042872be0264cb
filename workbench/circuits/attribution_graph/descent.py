"""One chunk of targets on its way down the frozen model, contracted with what is written at every place.

    from the deepest target to the embedding, half a block at a time:
        targets that read here join
        contract     rows[s, t] += gradient_t at (layer, pos of s) . what s writes there
        attention    gradient += what the frozen attention passes down

A target that has met no attention yet lives at its own position only ("single"); at its first attention it spreads
over the positions before it. No position after the chunk's last target is ever touched, and at each position only
what is written there is multiplied.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.sources import Writes
from workbench.circuits.attribution_graph.targets import Targets


class Descent:
    """Gradients of targets, and the effects found so far.

    The deepest target is first: columns 0 .. spread are spread, spread .. joined single, the rest still below.
    """

    def __init__(self, replacement: Replacement, targets: Targets) -> None:
        self.model = replacement
        self._order = targets.depth.argsort(descending=True, stable=True)
        self._targets = targets.take(self._order)
        self._depths = self._targets.depth.tolist()
        self._depth = self._depths[0] if self._depths else 0
        self._n_pos = int(targets.pos.max()) + 1 if len(targets) else 0
        self._n_spread = self._n_joined = 0
        like = replacement.frozen.embedded
        self._spread = like.new_empty(self._n_pos, 0, like.shape[1])
        self._single = like.new_empty(0, like.shape[1])
        self._rows = like.new_zeros(len(replacement.sources), len(targets))

    @property
    def rows(self) -> Float[Tensor, "source target"]:
        """Effect of every source on every target, in the order in which the targets were given."""
        out = torch.empty_like(self._rows)
        out[:, self._order] = self._rows
        return out

    @property
    def gradient(self) -> Float[Tensor, "pos target d_model"]:
        """Gradients at the depth that was reached, of the targets at and above it, deepest first."""
        single = self._spread.new_zeros(self._n_pos, len(self._single), self._spread.shape[2])
        single[self._single_pos, torch.arange(len(self._single), device=single.device)] = self._single
        return torch.cat([self._spread, single], dim=1)

    def begin(self, gradient: Float[Tensor, "pos target d_model"], depth: int) -> None:
        """Start with gradients that are spread already, in place of the targets' vectors."""
        self._spread, self._n_pos, self._depth = gradient, gradient.shape[0], depth
        self._n_spread = self._n_joined = gradient.shape[1]

    @torch.no_grad()
    def run(self, *, stop: int | None = None) -> Descent:
        """Go down to the embedding and contract with the tokens; or only to the depth `stop`."""
        for depth in range(self._depth, stop or 0, -1):
            self._join(depth)
            self._cross(depth - 1)
        self._depth = stop or 0
        self._join(self._depth)
        if stop is None:
            self._contract(self.model.embedded)
        return self

    def _join(self, depth: int) -> None:
        """Targets that read the stream at this depth."""
        start = self._n_joined
        while self._n_joined < len(self._depths) and self._depths[self._n_joined] == depth:
            self._n_joined += 1
        if self._n_joined > start:
            joining = self._targets.vectors[start : self._n_joined]
            self._single = torch.cat([self._single, joining]) if len(self._single) else joining

    def _cross(self, half: int) -> None:
        """From the stream after half a block to the stream before it."""
        layer, parallel = half // 2, self.model.anatomy.parallel
        if half % 2 == 1 and parallel:
            return
        if half % 2 == 1:
            for name, passed in self.feed(layer).items():
                setattr(self, name, getattr(self, name) + passed)
        else:
            self._attend(layer, self.feed(layer) if parallel else {})

    def feed(self, layer: int) -> dict[str, Tensor]:
        """Contract with an MLP's output, and what its linear skip passes down."""
        self._contract(self.model.writes[layer])
        if self.model.transcoders.skip(layer) is None:
            return {}
        found = {
            "_spread": self.model.pull_skip(layer, self._spread, slice(0, self._n_pos)),
            "_single": self.model.pull_skip(layer, self._single, self._single_pos),
        }
        return {name: passed for name, passed in found.items() if passed is not None}

    def _attend(self, layer: int, passed: dict[str, Tensor]) -> None:
        """The attention's half: spread gradients are mixed, single ones spread."""
        frozen, parts = self.model.frozen.layers[layer], []
        if self._n_spread:
            parts.append(frozen.pull(self._spread).add_(self._spread))
            if passed:
                parts[-1] += passed["_spread"]
        if len(self._single):
            at = self._single_pos
            first = frozen.spread(self._single, at, self._n_pos)
            own = self._single + passed["_single"] if passed else self._single
            first[at, torch.arange(len(at), device=at.device)] += own
            parts.append(first)
        if parts:
            self._spread = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        self._n_spread, self._single = self._n_joined, self._single[:0]

    @property
    def _single_pos(self) -> Int[Tensor, " single"]:
        return self._targets.pos[self._n_spread : self._n_joined]

    def _contract(self, writes: Writes) -> None:
        """Add the effects of what is written at one place."""
        if self._n_spread:
            self._contract_spread(writes)
        at = self._single_pos
        for pos in at.unique().tolist():
            own = (at == pos).nonzero()[:, 0]
            inside = slice(writes.offsets[pos], writes.offsets[pos + 1])
            found = writes.vectors[inside] @ self._single[own].T
            self._rows[writes.source[inside, None], self._n_spread + own] += found

    def _contract_spread(self, writes: Writes) -> None:
        stop = writes.offsets[self._n_pos]
        found = self._rows.new_empty(stop, self._n_spread)
        for pos in range(self._n_pos):
            inside = slice(writes.offsets[pos], writes.offsets[pos + 1])
            if inside.start < inside.stop:
                torch.mm(writes.vectors[inside], self._spread[pos].T, out=found[inside])
        self._rows[:, : self._n_spread].index_add_(0, writes.source[:stop], found)


@torch.no_grad()
def effects_below(
    replacement: Replacement, gradient: Float[Tensor, "pos target d_model"], depth: int
) -> Float[Tensor, "source target"]:
    """Effects of the sources below `depth` on gradients at the first positions of the stream there."""
    _, n, d = gradient.shape
    places = torch.zeros(n, dtype=torch.int64, device=gradient.device)
    none = gradient.new_zeros(n)
    descent = Descent(replacement, Targets(places, places, gradient.new_zeros(n, d), none, none))
    descent.begin(gradient, depth)
    return descent.run().rows
