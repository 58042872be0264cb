"""The training stage: artefacts, determinism, caching, refusals."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import torch

from workbench.capture import open_store
from workbench.errors import UserError
from workbench.training import metrics, train
from workbench.training.step import Trainer

OPTIONS = {"d_sae": 48, "k": 3, "batch_size": 100, "n_tokens": 4_000, "lr": 3e-3}
HOOK = "blocks.0.hook_resid_post"


def test_artefacts_say_what_they_were_made_from(plant):
    run = plant(n_rows=1_500).run
    dictionary = train(run, **OPTIONS)
    config = json.loads((run / "dictionary" / "cfg.json").read_text())
    ours = config["metadata"]["workbench"]
    assert ours["store"] == ours["identity"]["store"] == open_store(run).hash
    assert {key: ours["identity"][key] for key in OPTIONS} == OPTIONS
    assert config["metadata"]["hook_name"] == dictionary.hook_name == HOOK
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(48), atol=1e-6)
    assert sorted(p.name for p in (run / "dictionary").iterdir()) == [
        "cfg.json", "metrics.parquet", "sae_weights.safetensors"]  # fmt: skip


def test_saved_dictionary_reconstructs_raw_activations_as_well_as_the_log_says(plant):
    run = plant(n_rows=5_000).run
    dictionary = train(run, **{**OPTIONS, "n_tokens": 20_000})
    log = pq.read_table(run / "dictionary" / "metrics.parquet").to_pandas()
    x = torch.cat([shard.activations for shard in open_store(run).shards()])
    fvu = float((x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())
    assert log.fvu.iloc[-1] == pytest.approx(fvu, rel=0.15)
    assert log.fvu.iloc[-1] < 0.75 * log.fvu.iloc[0]
    columns = ["step", "tokens", "loss", "fvu", "l0", "dead_frac", "aux_loss", "lr", "tokens_per_s"]
    assert list(log.columns) == columns
    assert (log.tokens == log.step * 100).all()
    assert (log.l0 <= 3).all()
    assert (log.tokens_per_s > 0).all()


def test_same_seed_same_bits_other_seed_other_bits(plant):
    a, b, c = (plant(n_rows=1_500, name=name).run for name in "abc")
    first, second, third = train(a, **OPTIONS), train(b, **OPTIONS), train(c, **OPTIONS, seed=1)
    assert first.hash == second.hash
    assert first.hash != third.hash


def test_a_finished_dictionary_is_not_trained_again_unless_an_option_changed(plant, monkeypatch):
    run = plant(n_rows=1_500).run
    first = train(run, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_batch", lambda *_: pytest.fail("trained again"))
        assert train(run, **OPTIONS).hash == first.hash
    assert train(run, **{**OPTIONS, "k": 4}).k == 4


def test_metrics_are_on_disk_while_training(plant, monkeypatch):
    run, seen = plant(n_rows=1_500).run, []
    monkeypatch.setattr(metrics, "INTERVAL_S", 0.0)
    train_batch = Trainer.train_batch

    def look(self, x):
        path = run / "dictionary" / "metrics.parquet"
        seen.append(pq.read_table(path).num_rows if path.exists() else 0)
        return train_batch(self, x)

    monkeypatch.setattr(Trainer, "train_batch", look)
    train(run, **OPTIONS)
    assert seen[-1] == 7
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 49}, "k 49 is not between 1 and d_sae 48: choose a smaller k or more latents"),
        (
            {"hook": "blocks.1.hook_resid_post"},
            "hook 'blocks.1.hook_resid_post' was not captured .* captured: " + HOOK,
        ),
        ({"architecture": "topq"}, "architecture 'topq' is not known; the nearest: topk"),
        ({"n_tokens": 99}, "n_tokens 99 is less than one batch of batch_size 100"),
        ({"batch_size": 2_000}, "batch_size 2000 is larger than a window of the store"),
        ({"lr": 0.0}, r"lr 0\.0 is not positive"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps 0 is not at least 1"),
        ({"lr": 1e30}, "the loss is not finite at step"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(plant, options, message):
    with pytest.raises(UserError, match=message) as caught:
        train(plant(n_rows=1_500).run, **{**OPTIONS, **options})
    assert "\n" not in str(caught.value)


def test_missing_activations_are_refused(tmp_path):
    with pytest.raises(UserError, match="capture first"):
        train(tmp_path)


def test_damaged_activations_are_refused(plant):
    run = plant(n_rows=1_500).run
    shard = run / "activations" / HOOK / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    with pytest.raises(UserError, match="is damaged: delete the folder and capture again"):
        train(run, **OPTIONS)
