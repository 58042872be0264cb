"""Training of the embedded model: GPT-2 shape, Muon on the matrices, AdamW on the rest.

The learning rate warms up, stays flat, and falls to zero over the last part (`decay_frac`), so a run may
be resumed with another total as long as its decay has not begun. A batch follows from (seed, step) alone
and a checkpoint holds weights and optimiser state: an interrupted run, resumed, equals one that was not.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from workbench.artifacts import read_json, write_json
from workbench.testbeds.embedded_model.corpus import Blocks


@dataclass(frozen=True)
class TrainConfig:
    """Shape and recipe; the defaults made the committed model."""

    d_vocab: int = 4096
    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 8
    n_ctx: int = 256
    batch_size: int = 16
    total_tokens: int = 22_500_000
    warmup_steps: int = 100
    decay_frac: float = 0.3
    muon_lr: float = 0.015
    adam_lr: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def n_steps(self) -> int:
        return self.total_tokens // (self.batch_size * self.n_ctx)

    def lr_scale(self, step: int) -> float:
        """Multiplier of both learning rates at `step`: warm-up, flat, linear fall to zero."""
        fall = (self.n_steps - step) / max(1, round(self.decay_frac * self.n_steps))
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, fall))


def new_model(config: TrainConfig) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 of the configured shape; the seed fixes every weight."""
    torch.manual_seed(config.seed)
    shape = GPT2Config(
        vocab_size=config.d_vocab,
        n_positions=config.n_ctx,
        n_embd=config.d_model,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(shape)


def new_optimisers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, fused AdamW for embeddings, norms and biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".h." in n)]
    muon = torch.optim.Muon(matrices, lr=config.muon_lr, momentum=0.95, weight_decay=config.weight_decay)
    adam = torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for optimiser in (muon, adam):
        for group in optimiser.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adam]


def next_token_loss(model: GPT2LMHeadModel, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the next token in nats."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        hidden = model.transformer(ids).last_hidden_state
        logits = model.lm_head(hidden[:, :-1])
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def optimiser_tensors(optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of the optimisers' state under a flat name."""
    flat = {}
    for which, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            flat |= {f"{which}/{index}/{key}": torch.as_tensor(v) for key, v in state.items()}
    return flat


def restore_optimisers(optimisers: list[torch.optim.Optimizer], flat: dict[str, Tensor]) -> None:
    """Inverse of `optimiser_tensors`."""
    for which, optimiser in enumerate(optimisers):
        saved = optimiser.state_dict()
        saved["state"] = {}
        for name, value in flat.items():
            owner, index, key = name.split("/")
            if int(owner) == which:
                saved["state"].setdefault(int(index), {})[key] = value
        optimiser.load_state_dict(saved)


@contextmanager
def stop_between_steps() -> Iterator[list[int]]:
    """Turn SIGINT and SIGTERM into an entry of the yielded list, so that a step is never cut in half."""
    received: list[int] = []
    old = {
        s: signal.signal(s, lambda number, frame: received.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Trainer:
    """One training run in `folder`; `run` continues from the last checkpoint if there is one."""

    def __init__(self, folder: Path, config: TrainConfig, *, device: str) -> None:
        self.folder, self.config, self.device = folder, config, device
        self.model = new_model(config).train()
        self.model.to(torch.device(device))  # pyright: ignore[reportArgumentType]
        self.optimisers = new_optimisers(self.model, config)
        self.blocks = Blocks(folder, n_ctx=config.n_ctx, d_vocab=config.d_vocab, seed=config.seed)
        self.step = 0
        self._restore()

    def _restore(self) -> None:
        state = self.folder / "state.json"
        if not state.exists():
            return
        self.step = read_json(state)["step"]
        tensors = load_file(self.folder / f"checkpoint-{self.step}.safetensors", device=self.device)
        weights = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
        self.model.load_state_dict(weights, strict=False)
        self.model.tie_weights()
        flat = {k.removeprefix("optim/"): v for k, v in tensors.items() if k.startswith("optim/")}
        restore_optimisers(self.optimisers, flat)

    def checkpoint(self) -> None:
        """Write weights and optimiser state, then point `state.json` at them; the older file goes last."""
        weights = {n: p.detach() for n, p in self.model.named_parameters()}
        tensors = {f"model/{n}": p.contiguous() for n, p in weights.items()}
        tensors |= {f"optim/{n}": t.contiguous() for n, t in optimiser_tensors(self.optimisers).items()}
        target = self.folder / f"checkpoint-{self.step}.safetensors"
        save_file(tensors, target)
        write_json(self.folder / "state.json", {"step": self.step, "config": asdict(self.config)})
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old != target:
                old.unlink()

    def train_step(self) -> Tensor:
        """One optimiser step on the batch of `self.step`; returns the loss before the step in nats."""
        ids = torch.from_numpy(self.blocks.batch(self.step, self.config.batch_size)).to(self.device)
        loss = next_token_loss(self.model, ids)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        scale = self.config.lr_scale(self.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def run(self, *, checkpoint_every: int = 250, report_every: int = 25) -> None:
        """Train to the end; Ctrl-C finishes the step and leaves a checkpoint from which the same command continues."""
        recent: list[Tensor] = []
        started, first = time.monotonic(), self.step
        with stop_between_steps() as stopping:
            while self.step < self.config.n_steps and not stopping:
                recent.append(self.train_step())
                if self.step % report_every == 0:
                    self._report(float(torch.stack(recent).mean()), started, first)
                    recent.clear()
                if self.step % checkpoint_every == 0:
                    self.checkpoint()
            self.checkpoint()
        if stopping:
            raise SystemExit(f"stopped at step {self.step}; the same command continues from here")

    def _report(self, loss: float, started: float, first: int) -> None:
        """One line of progress, and one row in `log.jsonl`."""
        seconds = time.monotonic() - started
        rate = (self.step - first) * self.config.batch_size * self.config.n_ctx / seconds
        left = (self.config.n_steps - self.step) * seconds / (self.step - first)
        print(
            f"step {self.step}/{self.config.n_steps}  loss {loss:.3f} nats  "
            f"{rate:,.0f} tokens/s  {left / 60:.0f} min left",
            flush=True,
        )
        row = {"step": self.step, "loss_nats": loss, "tokens_per_s": rate}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
