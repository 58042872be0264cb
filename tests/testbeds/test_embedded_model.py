"""The embedded model's training: reproducible batches, exact resume, an honest evaluation, a loadable export."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from workbench.models import embedded_model_dir, load_model
from workbench.testbeds.embedded_model import corpus, evaluate
from workbench.testbeds.embedded_model.corpus import SHARES, Blocks
from workbench.testbeds.embedded_model.export import export
from workbench.testbeds.embedded_model.tokenizer import train_tokenizer
from workbench.testbeds.embedded_model.train import TrainConfig, Trainer
from workbench.text import is_held_out

TINY = TrainConfig(
    d_vocab=300,
    d_model=16,
    n_layers=1,
    n_heads=2,
    n_ctx=32,
    batch_size=2,
    total_tokens=32 * 2 * 8,
    warmup_steps=2,
)


def fake_corpus(folder: Path) -> Path:
    """Random ids in the files that `corpus.build` would write."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for kind in SHARES:
        if kind != "repeated":
            np.save(folder / f"{kind}.npy", rng.integers(1, TINY.d_vocab, 4000).astype(np.uint16))
    return folder


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


def test_blocks_hold_each_kind_as_often_as_its_share(tmp_path: Path) -> None:
    blocks = Blocks(fake_corpus(tmp_path), n_ctx=32, d_vocab=TINY.d_vocab, seed=0)
    drawn = [blocks.block(i)[1:] for i in range(100)]
    repeated = [b for b in drawn if any((b[p:] == b[:-p]).all() for p in range(8, 16))]
    assert len(repeated) == round(100 * SHARES["repeated"])
    others = [b.tobytes() for b in drawn if not any(b is r for r in repeated)]
    assert len(set(others)) == len(others), "a window was drawn twice before its kind ran out"


def test_a_batch_follows_from_seed_and_step(tmp_path: Path) -> None:
    folder = fake_corpus(tmp_path)
    one, same, other = (Blocks(folder, n_ctx=32, d_vocab=300, seed=s).batch(5, 3) for s in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    assert (one[:, 0] == 0).all()


def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer(fake_corpus(tmp_path / "whole"), TINY, device="cpu")
    whole.run(checkpoint_every=100)
    cut = Trainer(fake_corpus(tmp_path / "cut"), TINY, device="cpu")
    step = cut.train_step

    def interrupted() -> torch.Tensor:
        if cut.step == 3:
            signal.raise_signal(signal.SIGINT)
        return step()

    monkeypatch.setattr(cut, "train_step", interrupted)
    with pytest.raises(SystemExit, match="stopped at step 4"):
        cut.run(checkpoint_every=100)
    resumed = Trainer(tmp_path / "cut", TINY, device="cpu")
    assert resumed.step == 4
    resumed.run(checkpoint_every=100)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    longer = replace(TINY, total_tokens=60 * TINY.batch_size * TINY.n_ctx)
    trainer = Trainer(fake_corpus(tmp_path), longer, device="cpu")
    first = float(trainer.train_step())
    trainer.blocks.batch = lambda step, size: Blocks.batch(trainer.blocks, 0, size)  # type: ignore[method-assign]
    for _ in range(30):
        last = float(trainer.train_step())
    assert last < first - 0.5


@given(step=st.integers(0, 5492))
def test_learning_rate_warms_up_stays_and_falls(step: int) -> None:
    config = TrainConfig()
    scale = config.lr_scale(step)
    assert 0 < scale <= 1
    if config.warmup_steps <= step < (1 - config.decay_frac) * config.n_steps - 1:
        assert scale == 1
    if step > (1 - config.decay_frac) * config.n_steps + 1:
        assert config.lr_scale(step + 1) < scale < 1


def test_closing_marks_are_single_tokens() -> None:
    tokenizer = train_tokenizer(['x = f(a[1], {"k": (2, 3)})\n"""doc"""'] * 50, d_vocab=400)
    tokens = tokenizer.encode('f(a[1])})"]) """').tokens
    for mark in ")]}":
        assert tokens.count(mark) == 'f(a[1])})"]) """'.count(mark)
    assert '"""' in tokens
    assert tokenizer.decode(tokenizer.encode("naïve\n\t x  y").ids) == "naïve\n\t x  y"


def test_held_out_files_and_their_copies_are_not_in_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    library = corpus.stdlib_files()[:200]
    held = next(f for f in library if is_held_out(f.name))
    copy = corpus.TextFile("site-packages/vendored.py", held.path)
    monkeypatch.setattr(corpus, "stdlib_files", lambda: library)
    monkeypatch.setattr(corpus, "package_files", lambda: [copy])
    names = {name for name, _ in corpus.python_documents()}
    assert names
    assert not any(is_held_out(name) for name in names if name.startswith("stdlib/"))
    assert copy.name not in names


@given(n=st.integers(1, 300), n_ctx=st.integers(4, 40))
def test_windows_count_every_token_once_with_its_context(n: int, n_ctx: int) -> None:
    ids = list(range(1, n + 1))
    windows, counted = evaluate.file_windows(ids, 0, n_ctx)
    targets = windows[:, 1:][counted].tolist()
    assert sorted(targets) == ids
    assert (windows[:, 0] == 0).all()


def test_bits_per_byte_of_a_uniform_model_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform logits need log2(d_vocab) bits a token, whatever the text."""
    files = evaluate.find_text("stdlib-heldout")[:6]
    monkeypatch.setattr(evaluate, "find_text", lambda source: files)
    tokenizer = load_model().tokenizer
    measured = evaluate.file_bits(lambda ids: torch.zeros(*ids.shape, 4096), tokenizer, n_ctx=256)
    figure = evaluate.bits_per_byte(measured)
    tokens = sum(len(tokenizer.encode(f.read(), add_special_tokens=False)) for f in files)
    n_bytes = sum(len(f.read().encode()) for f in files)
    assert figure.value == pytest.approx(math.log2(4096) * tokens / n_bytes, rel=1e-6)
    assert figure.low < figure.value < figure.high
    assert figure.n == len(files)


def test_files_that_are_left_out_count_neither_bits_nor_bytes() -> None:
    measured = evaluate.FileBits(
        ("a.py", "b.py", "c.py"), np.array([10.0, 40.0, 90.0]), np.array([10, 20, 30])
    )
    assert evaluate.bits_per_byte(measured).value == 140 / 60
    strict = evaluate.bits_per_byte(measured, leave_out=["b.py"])
    assert (strict.value, strict.low, strict.high, strict.n) == (2.5, 1.0, 3.0, 2)


def test_induction_gain_of_a_model_that_copies() -> None:
    """A model that knows the first copy exactly gains the whole of the first half's loss."""

    def copying(ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, 50)
        logits[:, 100:-1].scatter_(2, ids[:, 101:, None], 50.0)
        return logits

    gain = evaluate.induction_gain_nats(copying, d_vocab=50)
    assert gain.value == pytest.approx(math.log(50), rel=1e-3)
    blind = evaluate.induction_gain_nats(lambda ids: torch.zeros(*ids.shape, 50), d_vocab=50)
    assert blind.value == pytest.approx(0, abs=1e-6)


def test_a_model_of_random_logits_is_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    tokenizer = load_model().tokenizer
    hits = evaluate.task_accuracy(
        lambda ids: torch.randn(*ids.shape, 4096, generator=generator), tokenizer, "ioi", n_pairs=200
    )
    assert hits.low < 0.5 < hits.high


def test_an_exported_checkpoint_loads_with_the_same_weights(tmp_path: Path) -> None:
    trainer = Trainer(fake_corpus(tmp_path / "work"), TINY, device="cpu")
    trainer.run()
    texts = ["some text"] * 3
    train_tokenizer(texts, d_vocab=TINY.d_vocab).save(str(tmp_path / "work" / "tokenizer.json"))
    export(tmp_path / "work", tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in weights(trainer).items():
        assert torch.equal(saved[name], value)
    assert load_model(tmp_path / "out").cfg.n_layers == 1


def test_the_committed_card_agrees_with_the_model() -> None:
    """A task figure of the card is measured again on fewer prompts and must lie near its interval."""
    from workbench.artifacts import read_json

    card = read_json(embedded_model_dir() / "card.json")
    model = load_model()
    with torch.no_grad():
        again = evaluate.task_accuracy(lambda ids: model(ids), model.tokenizer, "ioi", n_pairs=200)
    stated = card["trained"]["accuracy_ioi"]
    assert again.low <= stated["high"] + 0.03
    assert again.high >= stated["low"] - 0.03
    assert card["random_weights"]["accuracy_ioi"]["low"] < 0.6


def test_near_copies_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that shares most of its long lines with one training file is named; one that shares few is not."""
    lines = [f"a long line of source code, number {i:04d}" for i in range(20)]
    texts = {"mostly.py": lines[:10], "hardly.py": [*lines[10:12], *(f"{line}, its own" for line in lines)]}
    files = []
    for name, content in texts.items():
        (tmp_path / name).write_text("\n".join(content))
        files.append(corpus.TextFile(name, tmp_path / name))
    monkeypatch.setattr(corpus, "find_text", lambda source: files)
    monkeypatch.setattr(corpus, "python_documents", lambda: [("copy.py", "\n".join(lines[1:13]))])
    assert corpus.near_copies() == ["mostly.py"]
    monkeypatch.setattr(corpus, "python_documents", lambda: [("other.py", "\n".join(lines[6:13]))])
    assert corpus.near_copies() == []
