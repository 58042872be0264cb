"""Training from activations in memory: no store on disk, and a killed training goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.models_on_disk import tiny_model_dir
from tests.training.test_resume import KilledError, after_step, assert_equal, kill
from workbench.capture import CaptureOptions, LiveStore
from workbench.training import train

OPTIONS = {"d_sae": 64, "k": 3, "batch_size": 100, "n_tokens": 4_000, "checkpoint_every_steps": 4}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., LiveStore]]:
    model = str(tiny_model_dir(tmp_path / "model"))
    (tmp_path / "text.py").write_text("".join(f"def f_{i}(x):\n    return x + {i}\n\n" for i in range(150)))
    opened: list[LiveStore] = []

    def made(**changes: object) -> LiveStore:
        options = CaptureOptions(
            model=model, hooks=["blocks.1.hook_resid_post"], text=str(tmp_path / "text.py"), n_ctx=32,
            batch_tokens=256, **changes,  # type: ignore[arg-type]
        )  # fmt: skip
        opened.append(LiveStore(options, capacity_rows=700))
        return opened[-1]

    yield made
    for store in opened:
        store.__exit__()


@pytest.mark.parametrize("changes", [{}, {"max_norm_multiple": 1.3}], ids=["plain", "norm limit"])
def test_a_killed_training_goes_on_from_what_it_captures_again(
    tmp_path: Path, live: Callable[..., LiveStore], monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    whole = train(tmp_path / "whole", store=live(**changes), **OPTIONS)
    with monkeypatch.context() as patch:
        after_step(patch, 19, kill)
        with pytest.raises(KilledError):
            train(tmp_path / "cut", store=live(**changes), **OPTIONS)
    assert_equal(train(tmp_path / "cut", store=live(**changes), **OPTIONS), whole)
    assert whole.metadata["model_hash"] == live(**changes).description["model_hash"]
    assert not (tmp_path / "whole" / "activations").exists()
