"""A forward in use: it stops early, leaves others alone, survives interrupts and goes without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks.conftest import hook_counts, some_ids
from tests.models_on_disk import architecture_model
from workbench.errors import UserError
from workbench.hooks import Forward, open_forward, plain_path

POST = "blocks.1.hook_resid_post"
PATHS = ["plain", "bridge"]


def count_calls(forward: Forward, model: Any, component: str) -> list[str]:
    """A list that grows whenever the module of `component` runs on this forward's path."""
    ran: list[str] = []
    part = model.get_submodule(component)
    if forward.paths[forward.names[0]] == "plain":
        part = forward._path.plain.modules[part.name]  # pyright: ignore[reportAttributeAccessIssue]
    part.register_forward_pre_hook(lambda *_: ran.append(component))
    return ran


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("architecture", ["gpt2", "neox"])
def test_nothing_runs_after_the_deepest_hook(tmp_path: Path, architecture: str, path: Any) -> None:
    model = architecture_model(tmp_path, architecture)
    ids = some_ids(model)
    with open_forward(model, ["blocks.2.hook_resid_post", "hook_embed"], ids=ids, path=path) as forward:
        ran = [count_calls(forward, model, part) for part in ("ln_final", "unembed")]
        forward(ids)
        assert ran == [[], []]
    with open_forward(model, ["ln_final.hook_out"], ids=ids, path=path) as forward:
        before, after = count_calls(forward, model, "ln_final"), count_calls(forward, model, "unembed")
        forward(ids)
        assert (len(before), len(after)) == (1, 0)


def test_the_order_is_that_of_the_run_not_of_the_names(model_of) -> None:
    """In a parallel block the MLP runs after the attention, whatever the order asked for."""
    model = model_of("neox")
    names = ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.ln2.hook_in"]
    with open_forward(model, names, ids=some_ids(model)) as forward:
        assert list(forward(some_ids(model))) == names
        assert forward._path.recorder.stop_at == ("blocks.1.hook_mlp_out", 1)


@pytest.mark.parametrize("path", PATHS)
def test_close_leaves_the_hooks_that_were_there(tmp_path: Path, path: Any) -> None:
    model = architecture_model(tmp_path, "llama")
    model.add_hook(POST, lambda value, hook: None)
    model(some_ids(model))  # TransformerLens adds hooks of its own on the first pass
    before = hook_counts(model)
    forward = open_forward(model, [POST, "blocks.0.attn.hook_z"], ids=some_ids(model), path=path)
    forward(some_ids(model))
    assert (hook_counts(model) == before) == (path == "plain")
    forward.close()
    forward.close()
    assert hook_counts(model) == before
    with pytest.raises(UserError, match=f"the forward of hooks {POST}, blocks.0.attn.hook_z is closed"):
        forward(some_ids(model))


def test_a_refusal_leaves_no_hook(model_of) -> None:
    model = model_of("gpt2")
    model(some_ids(model))  # TransformerLens adds hooks of its own on the first pass
    before = hook_counts(model)
    with pytest.raises(UserError, match="did not fire"):
        open_forward(model, ["blocks.0.attn.hook_result", POST], ids=some_ids(model))
    assert hook_counts(model) == before


@pytest.mark.parametrize("path", PATHS)
def test_others_use_the_model_meanwhile(model_of, path: Any) -> None:
    model = model_of("qwen2")
    ids = some_ids(model)
    logits, cache = model.run_with_cache(ids)
    with (
        open_forward(model, [POST], ids=ids, path=path) as forward,
        open_forward(model, ["hook_embed"], ids=ids),
    ):
        first = forward(ids)[POST]
        again, cached = model.run_with_cache(ids)
        model.reset_hooks()
        assert torch.equal(forward(ids)[POST], first)
    assert torch.equal(again, logits)
    assert cached.keys() == cache.keys()
    assert torch.equal(cached[POST], cache[POST])


@pytest.mark.parametrize("path", PATHS)
def test_an_interrupt_leaves_it_usable(model_of, path: Any) -> None:
    model = model_of("gpt2")
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids, path=path) as forward:
        first = forward(ids)[POST]
        part = model.blocks[1].ln2
        if path == "plain":
            part = forward._path.plain.modules["transformer.h.1.ln_2"]  # pyright: ignore[reportAttributeAccessIssue]

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        handle = part.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            forward(ids)
        assert not forward._path.recorder.seen
        handle.remove()
        assert torch.equal(forward(ids)[POST], first)
        assert model(ids).isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_no_gradients_and_no_dropout(tmp_path: Path, path: Any) -> None:
    model = architecture_model(tmp_path, "bert").requires_grad_(True)
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids, path=path) as forward:
        calm = forward(ids)[POST]
        model.train()
        noisy = forward(ids)[POST]
        assert model.training
        assert model.original_model.bert.embeddings.dropout.training
    assert not calm.requires_grad
    assert torch.equal(calm, noisy)


def test_no_dropout_while_opening(tmp_path: Path) -> None:
    model = architecture_model(tmp_path, "bert").train()
    with open_forward(model, [POST], ids=some_ids(model)) as forward:
        assert forward.paths[POST] == "plain"


def test_what_the_model_overwrites_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLP that doubles its input when it is done with it must not change the value taken before."""
    right, name = plain_path.PlainModel, "blocks.1.mlp.hook_in"

    def overwriting(*args: Any) -> Any:
        plain = right(*args)
        plain.modules["transformer.h.1.mlp"].register_forward_hook(
            lambda _, args, output: args[0].mul_(2).numel() and None
        )
        return plain

    monkeypatch.setattr(plain_path, "PlainModel", overwriting)
    model = architecture_model(tmp_path, "gpt2")
    with open_forward(model, [name, POST], ids=some_ids(model)) as forward:
        assert forward.paths[name] == "plain"
        assert forward._path.recorder.copied == {name}
        forward._path.recorder.copied.clear()
        ids = some_ids(model)
        _, cache = model.run_with_cache(ids, names_filter=name)
        assert torch.allclose(forward(ids)[name], 2 * cache[name], atol=1e-4)  # what a copy prevents


def test_a_single_row_and_positions(model_of) -> None:
    """Position embeddings are one row in the plain model and one per row of the batch here."""
    model = model_of("gpt2")
    with open_forward(model, ["hook_pos_embed"], ids=some_ids(model, 1)) as forward:
        assert forward.paths["hook_pos_embed"] == "plain"
        assert forward(some_ids(model, 3, 7))["hook_pos_embed"].shape == (3, 7, 32)
