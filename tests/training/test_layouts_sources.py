"""Several stores in step: the same token in every row, in one run and in two, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stores import write_store
from workbench.capture import open_store
from workbench.errors import UserError
from workbench.store import shuffle
from workbench.training import source_joint
from workbench.training.source import open_source

A, B, C = "blocks.0.a", "blocks.1.b", "blocks.2.c"
N_BLOCKS, N_CTX = 30, 21


def tokens_of(seed: int = 0) -> Tensor:
    return torch.randint(1, 90, (N_BLOCKS, N_CTX), generator=torch.Generator().manual_seed(seed)).int()


def numbered(width: int, sign: float) -> Tensor:
    """Rows that hold their own number, so that a batch says which rows it is made of."""
    return (
        sign
        * torch.arange(N_BLOCKS * (N_CTX - 1), dtype=torch.float32).unsqueeze(1).expand(-1, width).clone()
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A run with numbered rows at each hook, of other widths, types and shards."""

    def made(name: str = "run", tokens: Tensor | None = None, hooks: Any = (A, B, C), **options: Any) -> Path:
        run, given = tmp_path / name, tokens_of() if tokens is None else tokens
        options = {"blocks_per_shard": 7, **options}
        for hook in hooks:
            width, sign = {A: (3, 1.0), B: (40, -1.0), C: (700, 2.0)}[hook]
            write_store(run, hook, numbered(width, sign), tokens=given, **options)
        return run

    return made


def rows_read(reader: Any, n_batches: int) -> list[tuple[Tensor, Tensor]]:
    return [(batch.x, batch.y) for batch in (next(reader) for _ in range(n_batches))]


@pytest.mark.parametrize("window_rows", [None, 150])
def test_every_column_is_of_the_same_token(write: Callable[..., Path], window_rows: int | None) -> None:
    source = open_source(write(), layout="cross_layer_transcoder", hook=[A, B], hook_out=[B, C])
    state = {"seed": 3} if window_rows is None else {"seed": 3, "window_rows": window_rows}
    reader: Any = source.reader(50, **state)
    seen: list[Tensor] = []
    for x, y in rows_read(reader, 24):
        number = x[:, 0]
        assert x.shape == (50, 43)
        assert y.shape == (50, 740)
        assert torch.equal(x, torch.cat([number[:, None].expand(-1, 3), -number[:, None].expand(-1, 40)], 1))
        assert torch.equal(
            y, torch.cat([-number[:, None].expand(-1, 40), 2 * number[:, None].expand(-1, 700)], 1)
        )
        seen.append(number)
    n = reader.readers[0].plan.batches_per_pass
    assert n == (12 if window_rows is None else 8)
    assert len(torch.cat(seen[:n]).unique()) == 50 * n, "a pass has no row twice"
    assert not torch.equal(seen[0].sort().values, torch.arange(50.0)), "shuffled"
    assert len(reader.readers) == 3, "a hook that is input and target is read once"


def test_stores_with_chunks_of_their_own_sizes_would_not_be_in_step(write: Callable[..., Path]) -> None:
    """What the joint reader prevents: read alone, each store cuts chunks by its own width."""
    run = write()
    rows = [next(open_store(run, hook).reader(50, seed=3, window_rows=150))[:, 0] for hook in (A, C)]
    assert not torch.equal(2 * rows[0], rows[1])


def test_the_window_is_that_of_one_store(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_joint, "WINDOW_BYTES", 743 * 4 * 200)
    reader: Any = open_source(write(), layout="crosscoder", hook=[A, B, C]).reader(50, seed=0)
    next(reader)
    assert reader.state()["window_rows"] == 200
    assert sum(r.nbytes for r in reader.readers) <= 743 * 4 * 201
    assert shuffle.WINDOW_BYTES == 512 << 20


def test_a_reader_goes_on_from_its_state(write: Callable[..., Path]) -> None:
    source = open_source(write(), layout="transcoder", hook=A, hook_out=B)
    reader = source.reader(70, seed=1, window_rows=210)
    rows_read(reader, 5)
    again = source.reader(70, **reader.state())
    for (x, y), (other_x, other_y) in zip(rows_read(reader, 12), rows_read(again, 12), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_the_hash_tells_layouts_hooks_and_options_apart(write: Callable[..., Path]) -> None:
    run = write()
    made = [
        open_source(run, layout="crosscoder", hook=[A, B]),
        open_source(run, layout="crosscoder", hook=[B, A]),
        open_source(run, layout="crosscoder", hook=[A, B], layout_options={"norm": "whole"}),
        open_source(run, layout="transcoder", hook=A, hook_out=B),
        open_source(run, layout="transcoder", hook=B, hook_out=A),
        open_source(run, layout="skip_transcoder", hook=A, hook_out=B),
        open_source(run, layout="cross_layer_transcoder", hook=[A], hook_out=[B]),
    ]
    assert len({source.hash for source in made}) == len(made)
    assert open_source(run, layout="crosscoder", hook=[A, B]).hash == made[0].hash
    assert (made[0].hook_name, made[0].hook_name_out) == (f"{A} + {B}", None)
    assert (made[3].hook_name, made[3].hook_name_out) == (A, B)


def test_two_models_on_the_same_text(write: Callable[..., Path]) -> None:
    first = write("first", hooks=(A,), about={"model": "one"})
    second = write("second", hooks=(A,), about={"model": "two"}, blocks_per_shard=11)
    source = open_source(first, layout="crosscoder", other_run=second)
    assert [site.name for site in source.layout.sites] == [f"one:{A}", f"two:{A}"]
    batch = next(source.reader(40, seed=2))
    assert torch.equal(batch.x[:, :3], batch.x[:, 3:])
    assert batch.y is None
    same = open_source(
        first, layout="crosscoder", other_run=write("third", hooks=(A,), about={"model": "one"})
    )
    assert [site.name for site in same.layout.sites] == [f"first:{A}", f"third:{A}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.index_put((torch.tensor(17), torch.tensor(5)), torch.tensor(77).int()),
         r"token 362 has id \d+ and id 77"),
        (lambda t: t.view(15, 42), "token 21 has position 0 and position 21"),
        (lambda t: t[:20], "they have 600 and 400 rows"),
    ],
)  # fmt: skip
def test_other_tokens_are_refused_by_the_first_difference(
    write: Callable[..., Path], tmp_path: Path, change: Callable[[Tensor], Tensor], message: str
) -> None:
    first, tokens = write("first", hooks=(A,)), change(tokens_of())
    n_rows = len(tokens) * (tokens.shape[1] - 1)
    write_store(tmp_path / "second", A, numbered(3, 1.0)[:1].expand(n_rows, 3).clone(), tokens=tokens)
    with pytest.raises(UserError, match=message) as caught:
        open_source(first, layout="crosscoder", other_run=tmp_path / "second")
    assert "capture both with the same text" in str(caught.value)


def test_rows_left_out_in_one_of_two_are_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write("first", hooks=(A,)), write("second", hooks=(A,), blocks_per_shard=4)
    from workbench.store import ActivationStore

    rows = ActivationStore.rows

    def without_one(self: ActivationStore, index: int) -> Any:
        found = rows(self, index)
        if self.folder.parent.parent.name == "second" and index == 2:
            found.kept[3] = False
        return found

    monkeypatch.setattr(ActivationStore, "rows", without_one)
    with pytest.raises(UserError, match="token 171 has a row in one of them only"):
        open_source(first, layout="crosscoder", other_run=second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "crossover", "hook": A}, "layout 'crossover' is not known; the nearest: crosscoder"),
        ({"layout": "autoencoder", "hook": [A, B]}, "is 2 hooks, but layout 'autoencoder' has one"),
        ({"layout": "autoencoder", "hook": A, "hook_out": B}, "hook_out 'blocks.1.b' has no use with layout"),
        (
            {"layout": "transcoder", "hook": A},
            "layout 'transcoder' needs hook_out: name a captured hook point",
        ),
        ({"layout": "transcoder", "hook": A, "hook_out": "x"}, "hook 'x' was not captured"),
        ({"layout": "crosscoder", "hook": A}, "a crosscoder of 1 site reads nothing together"),
        ({"layout": "crosscoder", "hook": [A, B], "layout_options": {"nrom": 1}}, "'nrom' is not an option"),
        (
            {"layout": "transcoder", "hook": A, "hook_out": B, "other_run": Path("r")},
            "two models are read by a",
        ),
        (
            {"layout": "transcoder", "hook": A, "hook_out": B, "layout_options": {"norm": "sum"}},
            "it has none",
        ),
        ({"layout": "cross_layer_transcoder", "hook": [A, B], "hook_out": [C]}, "reads 2 hooks and writes 1"),
    ],
)
def test_hooks_that_are_not_those_of_the_layout_are_refused(
    write: Callable[..., Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_source(write(), **options)


def test_a_store_in_memory_has_one_hook(write: Callable[..., Path]) -> None:
    run = write()
    with pytest.raises(UserError, match="its hooks are read from the run's stores, on disk"):
        open_source(run, layout="crosscoder", hook=[A, B], store=open_store(run, A))
