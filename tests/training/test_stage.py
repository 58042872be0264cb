"""The training stage: artefacts, determinism, caching, refusals."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import torch

from tests.arrays import CONCEPTS, plant_array
from tests.stores import block_rows
from workbench.capture import open_store
from workbench.errors import UserError
from workbench.store import Origin, RowShard, StoreWriter
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
    assert log.fvu.iloc[-3:].mean() == pytest.approx(fvu, rel=0.15)
    assert log.fvu.iloc[-1] < 0.75 * log.fvu.iloc[0]
    columns = ["step", "tokens", "loss", "part_reconstruction", "part_aux", "fvu", "explained_variance", "l0",
               "dead_frac", "grad_norm", "lr", "tokens_per_s", "wait_frac"]  # fmt: skip
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
        patch.setattr(Trainer, "train_batch", lambda *_, **__: pytest.fail("trained again"))
        assert train(run, **OPTIONS).hash == first.hash
    assert train(run, **{**OPTIONS, "k": 4}).k == 4


def test_metrics_are_on_disk_while_training(plant, monkeypatch):
    run, seen = plant(n_rows=1_500).run, []
    monkeypatch.setattr(metrics, "INTERVAL_S", 0.0)
    monkeypatch.setattr(metrics, "SHARE", float("inf"))
    train_batch = Trainer.train_batch

    def look(self, *batch, **options):
        path = run / "dictionary" / "metrics.parquet"
        seen.append(pq.read_table(path).num_rows if path.exists() else 0)
        return train_batch(self, *batch, **options)

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
        ({"batch_size": 2_000}, "batch_size 2000 does not fit: choose 1 to 1500, the rows of the store"),
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
    with pytest.raises(UserError, match=r"is damaged \(its SHA-256 is another than when it was written\)"):
        train(run, **OPTIONS)


def test_more_activations_are_other_activations(plant):
    """A store that was appended to is trained on anew; the rows that were there are the same."""
    run = plant(n_rows=1_500).run
    first, before = train(run, **OPTIONS), open_store(run)
    append_shard(run, before)
    after = open_store(run)
    assert after.n_rows == before.n_rows + 700
    assert torch.equal(after.take(range(before.n_rows)), before.take(range(before.n_rows)))
    again = train(run, **OPTIONS)
    assert again.hash != first.hash
    assert again.metadata["store"] == after.hash != before.hash


def append_shard(run, store):
    """Another shard of seven blocks."""
    base = {key: store.description[key] for key in ("n_ctx", "d_vocab", "text")}
    made = {key: store.description[key] for key in ("model_hash", "hook", "dtype", "precision", "array")}
    told = {key: store.description[key] for key in ("model", "source")}
    writer = StoreWriter(run / "activations", Origin(base), {HOOK: Origin(made, told)})
    rows = block_rows(torch.ones(7, store.n_ctx, dtype=torch.int32))
    writer.add(store.n_shards, RowShard(rows), {HOOK: torch.ones(700, store.d_model)})


def test_an_array_is_trained_on_like_captured_activations(tmp_path):
    """Every planted direction is found; random ones are not."""
    planted = plant_array(tmp_path)
    options = {"d_sae": 16, "k": 1, "batch_size": 250, "n_tokens": 60_000, "lr": 5e-3}
    dictionary = train(planted.run, **options)
    rows = torch.from_numpy(planted.rows)
    means = torch.stack([rows[[name == c for name in planted.label]].mean(0) for c in CONCEPTS])
    directions = torch.nn.functional.normalize(means - rows.mean(0), dim=1)
    assert (directions @ dictionary.W_dec.T).max(1).values.min() > 0.9
    assert dictionary.metadata["model"] is dictionary.metadata["model_hash"] is None
    chance = torch.nn.functional.normalize(
        torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert (chance @ dictionary.W_dec.T).max() < 0.6
