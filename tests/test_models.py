"""Loading models: the embedded one, a directory, and every refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.models_on_disk import architecture_dir, bert_dir, tiny_model_dir
from workbench.errors import UserError
from workbench.models import blank_missing_head, embedded_model_dir, load_model, model_hash


def test_the_embedded_model_gives_the_logits_of_hugging_face() -> None:
    bridge = load_model()
    reference = AutoModelForCausalLM.from_pretrained(embedded_model_dir()).eval()
    ids = torch.randint(0, 4096, (2, 32))
    with torch.no_grad():
        assert (bridge(ids) - reference(ids).logits).abs().max() < 1e-4


def test_the_embedded_model_is_a_gpt2_of_at_least_the_promised_size() -> None:
    cfg = load_model().cfg
    assert cfg.n_layers >= 4
    assert cfg.d_model >= 256
    assert cfg.n_ctx >= 256
    size = sum(p.stat().st_size for p in embedded_model_dir().iterdir())
    assert size <= 32e6


def test_parameters_are_frozen() -> None:
    assert not any(p.requires_grad for p in load_model().parameters())


def test_hash_follows_the_weights(tmp_path: Path) -> None:
    a, b = (load_model(tiny_model_dir(tmp_path / str(i), seed=i)) for i in (0, 1))
    again = load_model(tmp_path / "0")
    assert model_hash(a) == model_hash(again) != model_hash(b)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a directory"):
        load_model(tmp_path / "none")
    with pytest.raises(UserError, match=r"'./none' is not a directory"):
        load_model("./none")


def test_a_name_that_no_hub_answers_for() -> None:
    with pytest.raises(UserError, match="'no-such-model' could not be loaded"):
        load_model("no-such-model")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", r"has no \.safetensors weights"),
        ("tokenizer.json", "has no tokenizer files"),
    ],
)
def test_an_incomplete_directory_is_refused(tmp_path: Path, file: str, message: str) -> None:
    (tiny_model_dir(tmp_path) / file).unlink()
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


def test_an_encoder_without_a_head_gives_no_number_from_a_random_one(tmp_path: Path) -> None:
    """TransformerLens adds a random head to `BertModel`; here it is NaN, and the trunk is the checkpoint's."""
    from transformers import BertModel

    ids = torch.randint(5, 60, (2, 9))
    bridge = load_model(bert_dir(tmp_path, head="BertModel"))
    assert bridge(ids).isnan().all()
    _, cache = bridge.run_with_cache(ids, names_filter="blocks.2.hook_resid_post")
    with torch.no_grad():
        wanted = BertModel.from_pretrained(tmp_path).eval()(ids).last_hidden_state
    assert torch.allclose(cache["blocks.2.hook_resid_post"], wanted, rtol=0, atol=1e-4)
    assert model_hash(bridge) == model_hash(load_model(tmp_path))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert"])
def test_heads_of_the_checkpoint_are_kept(tmp_path: Path, architecture: str) -> None:
    bridge = load_model(architecture_dir(tmp_path, architecture))
    assert blank_missing_head(bridge) == []
    assert bridge(torch.randint(5, 60, (1, 9))).isfinite().all()


def test_device_map_loads_without_a_device(tmp_path: Path) -> None:
    bridge = load_model(architecture_dir(tmp_path, "llama"), device_map={"": "cpu"})
    assert {p.device.type for p in bridge.parameters()} == {"cpu"}
