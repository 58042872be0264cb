"""Hook names, one batch with early exit, and the self-check that sees a wrong capture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models_on_disk import tiny_model_dir
from workbench.errors import UserError
from workbench.hooks import capture_forward, check_context, check_hook, once, self_check
from workbench.models import load_model

NAMES = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z", "blocks.0.hook_mlp_out", "hook_embed"]


@pytest.fixture
def model(tmp_path: Path):
    return load_model(tiny_model_dir(tmp_path))


def test_capture_equals_run_with_cache(model) -> None:
    ids = torch.randint(0, 4096, (2, 10))
    seen = capture_forward(model, ids, NAMES)
    _, cache = model.run_with_cache(ids)
    assert seen.keys() == set(NAMES)
    for name in NAMES:
        assert torch.equal(seen[name], cache[name])


def test_the_forward_stops_after_the_deepest_hook(model) -> None:
    ran: list[int] = []
    for layer in (0, 1):
        model.blocks[layer].mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    capture_forward(model, torch.randint(0, 4096, (1, 4)), ["blocks.0.hook_resid_post"])
    assert ran == [0]
    model(torch.randint(0, 4096, (1, 4)))
    assert ran == [0, 0, 1]


def test_no_hook_is_left_behind(model) -> None:
    ids = torch.randint(0, 4096, (1, 4))
    before = model(ids)
    capture_forward(model, ids, NAMES)
    assert torch.equal(model(ids), before)


def test_self_check_sees_a_wrong_capture(model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, 4096, (1, 8))
    self_check(model, ids, NAMES)
    right = once.capture_forward

    def wrong(model, ids, names):
        seen = right(model, ids, names)
        return seen | {"hook_embed": seen["hook_embed"] * 1.001}

    monkeypatch.setattr(once, "capture_forward", wrong)
    with pytest.raises(UserError, match="hook 'hook_embed': early-exit capture differs"):
        self_check(model, ids, NAMES)


def test_unknown_hook_names_the_nearest(model) -> None:
    with pytest.raises(UserError, match=r"'blocks\.1\.resid_post' .* nearest: blocks\.1\.hook_resid_post"):
        check_hook(model, "blocks.1.resid_post")


@pytest.mark.parametrize("n_ctx", [1, 65])
def test_context_beyond_the_model(model, n_ctx: int) -> None:
    with pytest.raises(UserError, match=f"n_ctx {n_ctx} does not fit: this model's context is 64"):
        check_context(model, n_ctx)


def test_a_hook_that_never_fires_is_named(model) -> None:
    with pytest.raises(
        UserError, match=r"hook 'blocks\.0\.attn\.hook_result' did not fire in this model's forward"
    ):
        capture_forward(model, torch.randint(0, 4096, (1, 4)), ["hook_embed", "blocks.0.attn.hook_result"])


def test_an_edit_by_others_is_seen(model) -> None:
    ids = torch.randint(0, 4096, (1, 4))
    with model.hooks(fwd_hooks=[("hook_embed", lambda value, hook: torch.zeros_like(value))]):
        seen = capture_forward(model, ids, ["hook_embed"])
    assert not seen["hook_embed"].any()
    assert capture_forward(model, ids, ["hook_embed"])["hook_embed"].any()
