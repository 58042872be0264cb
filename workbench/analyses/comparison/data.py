"""The data of a site: activations to train on in a run folder of its own, and held-out ones to measure on.

Planted rows that are measured are blocks of later numbers than those that are stored. The model's are the
activations of held-out text; its probes read labelled texts that are in neither. Two sites of one model share
their capture, one forward for both hook points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.analyses.comparison.labels import Labelled, label_tokens, labelled_documents
from workbench.analyses.comparison.probes import ProbeRows
from workbench.analyses.comparison.sites import HOOKS, Site
from workbench.analyses.comparison.sizes import Size
from workbench.analyses.comparison.texts import write_texts
from workbench.capture import capture, open_store
from workbench.evaluation import Passages
from workbench.hooks import capture_forward
from workbench.models import EMBEDDED, load_model, load_random_model
from workbench.testbeds.planted import Block, PlantedFeatures, plant, planted_setting
from workbench.text import read_sequences

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

HELD_OUT_BLOCK = 100_000
BATCH_TEXTS = 32


@dataclass(frozen=True, eq=False)
class SiteData:
    """What a site is trained and measured on.

    Attributes:
        site: Which.
        run: Run folder with its activations.
        rows: Held-out activations (row, d).
        d_sae: Latents of a dictionary.
        k: Latents per row.
        features: Planted truth, or None.
        block: The rows with their true code, or None.
        model: The model behind the activations, or None.
        passages: Held-out text for its losses, or None.
        probe: Labelled activations, or None.
    """

    site: Site
    run: Path
    rows: Float[Tensor, "row d"]
    d_sae: int
    k: int
    features: PlantedFeatures | None = None
    block: Block | None = None
    model: TransformerBridge | None = None
    passages: Passages | None = None
    probe: ProbeRows | None = None


@dataclass
class Models:
    """The models of a comparison, each loaded when it is first asked for."""

    size: Size
    loaded: dict[str, Any] = field(default_factory=dict)
    forwards: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)

    def get(self, kind: str) -> Any:
        """The embedded model ("model"), or one of its configuration with random weights ("random")."""
        if kind not in self.loaded:
            self.loaded[kind] = (
                load_model(EMBEDDED) if kind == "model" else load_random_model(EMBEDDED, seed=0)
            )
        return self.loaded[kind]

    def activations(self, kind: str, name: str, ids: Tensor) -> dict[str, Tensor]:
        """Activations of some texts at every hook point of the comparison (text, pos, d), computed once.

        Args:
            kind: Of the model.
            name: What the texts are called.
            ids: Their token ids.
        """
        if (kind, name) not in self.forwards:
            self.forwards[kind, name] = _forward(self.get(kind), ids)
        return self.forwards[kind, name]

    @cached_property
    def labelled(self) -> Labelled:
        """The labelled texts as tokens; the two models have one tokenizer."""
        documents = labelled_documents(self.size.n_texts)
        return label_tokens(documents, self.get("model").tokenizer, n_ctx=self.size.n_ctx)


def prepare(run: Path, site: Site, size: Size, models: Models) -> SiteData:
    """The data of a site, made where it is not there yet.

    Args:
        run: Run folder of the comparison.
        site: Which.
        size: How much.
        models: Loaded models.

    Raises:
        UserError: the folder holds activations that were made otherwise, or the disk is full.
    """
    folder = run / "sites" / site.folder
    return (
        _planted(folder, site, size) if site.kind == "planted" else _of_model(run, folder, site, size, models)
    )


def _planted(folder: Path, site: Site, size: Size) -> SiteData:
    features = planted_setting(site.setting, size=size.planted)
    if not (folder / "activations" / "planted").exists():
        plant(folder, features, n_rows=size.planted_rows, shuffled=site.shuffled)
    block = features.block(HELD_OUT_BLOCK, size.n_measured_rows, shuffled=site.shuffled)
    k = max(1, round(features.mean_l0))
    return SiteData(site, folder, block.x, len(features.directions), k, features, block)


def make_texts(run: Path, size: Size) -> tuple[Path, Path]:
    """The texts that the models of a comparison are trained and measured on, made once."""
    n_held = size.n_ctx * (size.n_blocks + 8) + size.n_measured_rows
    return write_texts(run / "text", n_tokens=size.model_rows, n_held_out=n_held)


def _of_model(run: Path, folder: Path, site: Site, size: Size, models: Models) -> SiteData:
    train, held = make_texts(run, size)
    model = models.get(site.kind)
    capture(
        folder, bridge=model, model=EMBEDDED, hooks=tuple(HOOKS.values()), text=str(train), n_tokens=size.model_rows,
        n_ctx=size.n_ctx, dtype="float32", gradients=True,
    )  # fmt: skip
    n_blocks = size.n_blocks + -(-size.n_measured_rows // (size.n_ctx - 1))
    blocks = list(islice(read_sequences(model.tokenizer, str(held), n_ctx=size.n_ctx), n_blocks))
    tokens = torch.from_numpy(np.stack([block.tokens for block in blocks]).astype(np.int64))
    rows = models.activations(site.kind, "held-out", tokens)[site.hook][:, 1:].flatten(0, 1)
    return SiteData(
        site, folder, rows[: size.n_measured_rows], size.model_d_sae, size.model_k, model=model,
        passages=Passages.packed(tokens[: size.n_blocks]), probe=_probe_rows(site, models),
    )  # fmt: skip


@torch.no_grad()
def _forward(model: TransformerBridge, ids: Int64[Tensor, "text pos"]) -> dict[str, Tensor]:
    """Activations at every hook point of the comparison, some texts at a time."""
    device, hooks = torch.device(str(model.cfg.device)), tuple(HOOKS.values())
    parts = [capture_forward(model, part.to(device), hooks) for part in ids.split(BATCH_TEXTS)]
    return {hook: torch.cat([part[hook].float().cpu() for part in parts]) for hook in hooks}


def _probe_rows(site: Site, models: Models) -> ProbeRows:
    labelled = models.labelled
    found = models.activations(site.kind, "labelled", torch.from_numpy(labelled.ids))[site.hook]
    return ProbeRows(found[torch.from_numpy(labelled.kept)], labelled.labels, labelled.text)


def beside_of(data: SiteData, needs: tuple[str, ...], n_rows: int) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The first stored rows and what else is known of them, for a measurement of speed.

    Args:
        data: Whose rows.
        needs: What a learner needs of each row.
        n_rows: How many.
    """
    hook = data.site.hook
    chosen = np.arange(min(n_rows, open_store(data.run, hook).n_rows))
    rows = open_store(data.run, hook).take(chosen).float()
    beside = {"gradient": open_store(data.run, f"{hook}.grad")} if "gradient" in needs else {}
    return rows, {name: store.take(chosen).float() for name, store in beside.items()}
