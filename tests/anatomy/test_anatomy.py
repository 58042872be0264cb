"""An anatomy is its bridge: every part of every architecture, edits where TransformerLens makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models_on_disk import DECODERS, architecture_dir, architecture_model, bert_dir, native_model
from workbench.anatomy import Anatomy, open_anatomy, recorder, self_check
from workbench.anatomy.check import tolerance
from workbench.errors import UserError
from workbench.models import load_model

NATIVE: dict[str, dict[str, Any]] = {
    "native": {},
    "attention only, no norm": {"attn_only": True, "normalization_type": None},
    "grouped, gated, rotary, capped": {
        "normalization_type": "RMS", "positional_embedding_type": "rotary", "n_key_value_heads": 2,
        "gated_mlp": True, "act_fn": "silu", "attn_scores_soft_cap": 3.0,
    },
    "partly rotary": {"positional_embedding_type": "rotary", "rotary_dim": 4},
    "norm without weights": {"normalization_type": "LNPre", "final_rms": True},
    "looks both ways": {"attention_dir": "bidirectional"},
}  # fmt: skip


def some_ids(n_vocab: int = 64, *, n_pos: int = 17) -> torch.Tensor:
    """Two prompts that are longer than the windows of the tiny models."""
    return torch.randint(0, n_vocab, (2, n_pos), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=[*DECODERS, *NATIVE])
def anatomy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    if request.param in NATIVE:
        return open_anatomy(native_model(**NATIVE[request.param]))
    return open_anatomy(architecture_model(tmp_path_factory.mktemp("model"), request.param))


def test_every_part_is_the_bridge(anatomy: Anatomy) -> None:
    assert self_check(anatomy, some_ids()) <= tolerance(anatomy)


@pytest.mark.parametrize("part", ["attn.hook_q", "attn.hook_v", "attn.hook_pattern", "attn.hook_z"])
def test_an_edit_does_what_a_hook_does(anatomy: Anatomy, part: str) -> None:
    name, ids = f"blocks.1.{part}", some_ids()
    wanted = anatomy.model.run_with_hooks(
        ids, fwd_hooks=[(name, lambda v, hook: v.flip(-1))], return_type="logits"
    )
    found = anatomy.logits(anatomy.run(anatomy.embed(ids), edits={name: lambda v: v.flip(-1)}))
    size = max(1.0, float(wanted.abs().max()))
    assert float((found - wanted).abs().max()) / size < 3e-5
    assert float((found - anatomy.model(ids, return_type="logits")).abs().max()) / size > 1e-3


def test_running_from_any_depth_is_running_on(anatomy: Anatomy) -> None:
    x = anatomy.embed(some_ids())
    wanted = anatomy.logits(anatomy.run(x))[:, -1]
    for depth in range(anatomy.last_depth + 1):
        found = anatomy.last_logits(anatomy.run(x, stop=depth), depth)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_leading_axes_are_batches(anatomy: Anatomy) -> None:
    x = anatomy.embed(some_ids())
    stacked = torch.stack([x, x.flip(0), x / 2])
    found = anatomy.last_logits(stacked, 0)
    for row, stream in zip(found, stacked, strict=True):
        torch.testing.assert_close(row, anatomy.last_logits(stream, 0), rtol=1e-4, atol=1e-4)


def test_outputs_of_both_halves_make_the_stream(anatomy: Anatomy) -> None:
    layers = range(anatomy.n_layers)
    seen, keep = recorder()
    names = [f"blocks.{i}.hook_{half}_out" for i in layers for half in ("attn", "mlp")]
    x = anatomy.embed(some_ids())
    last = anatomy.run(x, edits={name: keep(name) for name in names})
    torch.testing.assert_close(sum(seen.values(), x), last, rtol=1e-4, atol=1e-4)


def test_neurons_make_the_mlp(anatomy: Anatomy) -> None:
    if not anatomy.has_mlp:
        return
    x, name = anatomy.embed(some_ids()), "blocks.1.mlp.hook_post"
    same = anatomy.run(x, edits={name: lambda post: post * 1.0})
    torch.testing.assert_close(same, anatomy.run(x), rtol=1e-4, atol=1e-4)
    without = anatomy.run(x, edits={name: torch.zeros_like})
    assert float((without - same).abs().max()) > 1e-3


def test_a_frozen_model_is_linear_in_what_enters_it(anatomy: Anatomy) -> None:
    """Patterns, norm scales and MLP outputs frozen: the change for a sum is the sum of the changes."""
    ids = some_ids()
    frozen = frozen_edits(anatomy, ids)
    x, generator = anatomy.embed(ids), torch.Generator().manual_seed(0)
    a, b = (torch.randn(x.shape, generator=generator) for _ in range(2))
    base = anatomy.logits(anatomy.run(x, edits=frozen), frozen) if not anatomy.readout.soft_cap else None
    if base is None:
        return
    change = [anatomy.logits(anatomy.run(x + d, edits=frozen), frozen) - base for d in (a, b, a + b)]
    torch.testing.assert_close(change[0] + change[1], change[2], rtol=1e-3, atol=1e-3)


def frozen_edits(anatomy: Anatomy, ids: torch.Tensor) -> dict[str, Any]:
    seen, keep = recorder()
    norms = ("ln1", "ln1_post", "ln2", "ln2_post")
    names = [f"blocks.{i}.{n}.hook_scale" for i in range(anatomy.n_layers) for n in norms]
    names += [
        f"blocks.{i}.{n}" for i in range(anatomy.n_layers) for n in ("attn.hook_pattern", "hook_mlp_out")
    ]
    names.append("ln_final.hook_scale")
    edits = {name: keep(name) for name in names}
    anatomy.logits(anatomy.run(anatomy.embed(ids), edits=edits), edits)
    return {name: (lambda _, value=value: value) for name, value in seen.items()}


def test_a_wrong_part_is_refused_by_its_name(tmp_path: Path) -> None:
    anatomy = Anatomy(architecture_model(tmp_path, "gemma2"))
    block = anatomy.blocks[1]
    wrong = (
        (replace(block, attn=replace(block.attn, soft_cap=0.0)), r"blocks\.1\.attn\.hook_pattern"),
        (replace(block, ln1_post=replace(block.ln1_post, eps=1.0)), r"blocks\.1\.hook_resid_post"),
        (replace(block, parallel=True), r"blocks\.1\.hook_resid_post"),
        (replace(block, ln1=replace(block.ln1, centred=True)), r"blocks\.1\.attn\.hook_q"),
    )
    for changed, part in wrong:
        anatomy.blocks = (anatomy.blocks[0], changed, anatomy.blocks[2])
        with pytest.raises(UserError, match=f"computes {part} in a way that"):
            self_check(anatomy, some_ids())


def test_an_architecture_without_separate_halves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the MLP of block 0 cannot be run on its own"):
        open_anatomy(load_model(bert_dir(tmp_path / "bert")))


def test_low_precision_opens_and_keeps_its_dtype(tmp_path: Path) -> None:
    model = load_model(architecture_dir(tmp_path, "llama"), dtype=torch.bfloat16)
    anatomy = open_anatomy(model)
    assert anatomy.last_logits(anatomy.embed(some_ids()), 0).dtype == torch.bfloat16


def test_gradients_reach_the_embedding(anatomy: Anatomy) -> None:
    """The derivative along one direction against a difference quotient, in double precision where it is cheap."""
    x = anatomy.embed(some_ids()).clone().requires_grad_()
    with torch.enable_grad():
        value = anatomy.last_logits(x, 0).square().mean()
        (gradient,) = torch.autograd.grad(value, x)
    direction = gradient / gradient.norm()
    step = 1e-2
    with torch.no_grad():
        ends = [float(anatomy.last_logits(x + s * direction, 0).square().mean()) for s in (step, -step)]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.05)


def test_a_frozen_final_scale_stays_with_its_position(anatomy: Anatomy) -> None:
    x = anatomy.embed(some_ids())
    edits = {"ln_final.hook_scale": lambda scale: scale * torch.arange(1.0, 18.0)[:, None]}
    wanted = anatomy.logits(anatomy.run(x), edits)[:, -1]
    torch.testing.assert_close(anatomy.last_logits(x, 0, edits), wanted, rtol=1e-4, atol=1e-4)
