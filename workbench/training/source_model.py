"""Batches of end-to-end training: whole sequences of a run's text, their activations computed on the fly.

The row index of the run's store says which tokens have a row. A batch is some sequences in shuffled order,
about `batch_size` rows of them; x are the activations of those tokens in the frozen model now, and the
objective runs the model again with the reconstruction in their place. Batch i is a function of (seed, i), so
a number is all that a resumed training needs. Memory: five bytes a token of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from workbench.artifacts import sha256_json
from workbench.capture import check_captured_model, load_captured_model, open_store
from workbench.capture.options import PRECISIONS
from workbench.dictionaries.architecture import Part
from workbench.dictionaries.layouts import Layout, Single
from workbench.errors import UserError
from workbench.hooks.spliced import Outputs, Spliced, open_spliced
from workbench.store import ActivationStore
from workbench.store.ring import seeded
from workbench.training.batch import Batch
from workbench.training.end_to_end import EndToEnd, Readout, end_to_end_parts

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LAYOUTS = ("autoencoder", "transcoder", "skip_transcoder")


class Text(NamedTuple):
    """Some sequences, padded on the right to the longest.

    Attributes:
        ids: Token ids (sequence, pos).
        mask: Which are tokens; None where all are.
        kept: Which have a row.
    """

    ids: Int64[Tensor, "sequence pos"]
    mask: Bool[Tensor, "sequence pos"] | None
    kept: Bool[Tensor, "sequence pos"]


class Sequences:
    """The text of a store that has rows, in memory."""

    def __init__(self, store: ActivationStore) -> None:
        shards = [store.rows(index) for index in range(store.n_shards)]
        self.tokens = np.concatenate([rows.tokens for rows in shards])
        self.kept = np.concatenate([rows.kept for rows in shards])
        lengths = np.concatenate([rows.lengths for rows in shards])
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        counts = np.add.reduceat(self.kept.astype(np.int64), self.offsets[:-1][lengths > 0])
        self.numbers = np.flatnonzero(lengths > 0)[counts > 0]
        self.mean_rows = float(counts[counts > 0].mean())

    def text(self, chosen: np.ndarray) -> Text:
        """Some of the sequences, by their place among those with rows."""
        numbers = self.numbers[chosen]
        first, length = self.offsets[numbers], np.diff(self.offsets)[numbers]
        place = np.arange(int(length.max()))
        inside = place < length[:, None]
        at = np.where(inside, first[:, None] + place, 0)
        ids = torch.from_numpy(np.where(inside, self.tokens[at], 0).astype(np.int64))
        mask = None if inside.all() else torch.from_numpy(inside)
        return Text(ids, mask, torch.from_numpy(inside & self.kept[at]))


class ModelSource:
    """The source of an end-to-end training.

    Args:
        store: Whose text is read.
        sequences: Its text.
        spliced: The model, open at the hook that is replaced.
        hook: What the dictionary reads.
        layout: What is trained.
        weights: Of the loss.

    Attributes:
        hash: Over the store, the hooks, the layout and the weights of the loss.
    """

    def __init__(
        self,
        store: ActivationStore,
        sequences: Sequences,
        spliced: Spliced,
        hook: str,
        layout: Single,
        weights: EndToEnd,
    ) -> None:
        self.sequences, self.spliced, self.weights = sequences, spliced, weights
        self.layout: Layout = layout
        self.hook_name, self.hook_name_out = hook, spliced.hook if layout.transcodes else None
        self.n_rows, self.n_ctx, self.description = store.n_rows, store.n_ctx, store.description
        about = {"end_to_end": asdict(weights), "layout": asdict(layout), "hooks": [hook, spliced.hook]}
        self.hash = sha256_json({"store": store.hash, **about})

    def reader(self, batch_size: int, **state: Any) -> ModelReader:
        """Batches of about `batch_size` rows from `seed` on, or from a reader's state."""
        return ModelReader(self, batch_size, **state)

    def batch(self, text: Text) -> Batch:
        """Activations of the kept tokens, and the objective that takes their reconstruction."""
        clean = self.spliced(text.ids.to(self._device), _on(text.mask, self._device))
        rows = {name: value[text.kept.to(self._device)] for name, value in clean.values.items()}
        x, y = (rows[name].float() for name in (self.hook_name, self.spliced.hook))
        readout = self._readout(clean, text)
        objective = partial(
            end_to_end_parts, y=y, clean=readout, run=partial(self._run, text), weights=self.weights
        )

        def parts(y_hat: Tensor) -> dict[str, Part]:
            """Of a reconstruction on any device, on that device."""
            found = objective(y_hat.to(y.device))
            return {name: Part(part.weight, part.value.to(y_hat.device)) for name, part in found.items()}

        return Batch(x.cpu(), y.cpu() if self.hook_name_out is not None else None, parts)

    @property
    def _device(self) -> torch.device:
        return torch.device(str(self.spliced.model.cfg.device))

    def _readout(self, outputs: Outputs, text: Text) -> Readout:
        kept = text.kept.to(self._device)
        values = {name: outputs.values[name][kept].float() for name in self.weights.downstream_hooks}
        return Readout(outputs.logits[kept], values)

    def _run(self, text: Text, y_hat: Tensor) -> Readout:
        """The model with the reconstruction in place of its kept tokens' activations."""
        kept = text.kept.to(self._device)

        def put(value: Tensor) -> Tensor:
            return value.masked_scatter(kept.unsqueeze(2), y_hat.to(value.dtype))

        outputs = self.spliced(text.ids.to(self._device), _on(text.mask, self._device), replace=put)
        return self._readout(outputs, text)


def _on(mask: Tensor | None, device: torch.device) -> Tensor | None:
    return None if mask is None else mask.to(device)


class ModelReader:
    """Endless batches; batch i depends on (seed, i) only.

    A pass takes every sequence at most once; those that do not fill its last batch are left out.
    """

    def __init__(self, source: ModelSource, batch_size: int, *, seed: int = 0, start: int = 0) -> None:
        if not 1 <= batch_size <= source.n_rows:
            raise UserError(
                f"batch_size {batch_size} does not fit: choose 1 to {source.n_rows}, the rows of the store"
            )
        self.source, self.seed, self.index = source, seed, start
        n = len(source.sequences.numbers)
        self.n_sequences = min(n, max(1, round(batch_size / source.sequences.mean_rows)))
        self.n_batches = n // self.n_sequences
        self._order: tuple[int, np.ndarray] | None = None

    def __next__(self) -> Batch:
        number, place = divmod(self.index, self.n_batches)
        self.index += 1
        chosen = self._pass(number)[place * self.n_sequences : (place + 1) * self.n_sequences]
        return self.source.batch(self.source.sequences.text(chosen))

    def _pass(self, number: int) -> np.ndarray:
        if self._order is None or self._order[0] != number:
            n = len(self.source.sequences.numbers)
            self._order = (number, torch.randperm(n, generator=seeded(self.seed, number)).numpy())
        return self._order[1]

    def state(self) -> dict[str, Any]:
        """Arguments with which `ModelSource.reader` goes on from here."""
        return {"seed": self.seed, "start": self.index}


def open_model_source(
    run: Path,
    layout: str,
    hook: str | None,
    hook_out: str | None,
    *,
    settings: Mapping[str, Any],
    bridge: TransformerBridge | None,
) -> ModelSource:
    """The source of an end-to-end training on the text of a run's store.

    Args:
        run: Run folder with captured activations of `hook`.
        layout: "autoencoder", "transcoder" or "skip_transcoder".
        hook: What is read; may be left out where only one was captured.
        hook_out: What is reconstructed and replaced, of a transcoder; it need not be captured.
        settings: Of `EndToEnd`.
        bridge: The model, if it is loaded already.

    Raises:
        UserError: another layout, a hook or setting that is not known, a later hook that does not depend on the
            one that is replaced, or another model than the one captured.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is not trained end to end: use one of {', '.join(LAYOUTS)}")
    weights, store = EndToEnd.of(settings), open_store(run, hook)
    model = _model(store, bridge)
    read = str(store.description["hook"])
    replaced = read if layout == "autoencoder" else hook_out
    if replaced is None:
        raise UserError(f"layout {layout!r} needs hook_out: name the hook point that is reconstructed")
    sequences = Sequences(store)
    ids = sequences.text(np.array([0])).ids
    _, mixed = PRECISIONS[store.description["precision"]]
    spliced = open_spliced(model, replaced, ids=ids, reads=(read, *weights.downstream_hooks), mixed=mixed)
    widths = {name: value.shape[2] for name, value in _checked(spliced, ids, weights).items()}
    made = Single(
        d_in=widths[read], d_out=widths[replaced], transcodes=layout != "autoencoder", skip=layout == "skip_transcoder"
    )  # fmt: skip
    return ModelSource(store, sequences, spliced, read, made, weights)


def _model(store: ActivationStore, bridge: TransformerBridge | None) -> TransformerBridge:
    if bridge is None:
        return load_captured_model(store)
    check_captured_model(store, bridge)
    return bridge


def _checked(spliced: Spliced, ids: Tensor, weights: EndToEnd) -> Mapping[str, Tensor]:
    """Values of a clean pass; refuses later hooks that do not depend on the replaced one."""
    device = str(spliced.model.cfg.device)
    halve: Callable[[Tensor], Tensor] = lambda value: value / 2  # noqa: E731
    with torch.no_grad():
        clean, changed = spliced(ids.to(device)), spliced(ids.to(device), replace=halve)
    for name in weights.downstream_hooks:
        if torch.equal(clean.values[name], changed.values[name]):
            raise UserError(
                f"downstream hook {name!r} does not depend on {spliced.hook!r}: name one of a later layer"
            )
    return clean.values
