"""Your own activations: every row and label arrives; what is no array of vectors is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from workbench.capture import arrays, import_array
from workbench.errors import UserError


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32))
    return tmp_path / "x.npy"


def test_rows_and_labels(tmp_path: Path, array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "SHARD_BYTES", 6 * 4 * 16)
    labels = [f"kind {i % 3}" for i in range(50)]
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    store = import_array(tmp_path / "run", array, name="images", labels=tmp_path / "labels.txt")
    assert (store.n_rows, store.d_model, store.n_ctx, store.n_shards) == (50, 6, 1, 4)
    assert torch.equal(store.take(range(50)), torch.from_numpy(np.load(array)).flatten(1))
    assert [store.labels[i] for i in store.locate(range(50))["token"]] == labels
    again = import_array(tmp_path / "run", array, name="images", labels=tmp_path / "labels.txt")
    assert again.hash == store.hash
    np.save(array, np.load(array) + 1)
    with pytest.raises(UserError, match="made with another array_sha256"):
        import_array(tmp_path / "run", array, name="images", labels=tmp_path / "labels.txt")


def test_safetensors_by_name(tmp_path: Path) -> None:
    x = torch.randn(7, 4).bfloat16()
    save_file({"a": x, "b": torch.ones(3, 4)}, tmp_path / "x.safetensors")
    store = import_array(tmp_path / "run", tmp_path / "x.safetensors", tensor="a")
    assert store.dtype == torch.bfloat16
    assert torch.equal(store.take(range(7)), x)
    for tensor, message in ((None, "holds 2 tensors: name one"), ("c", "tensor 'c' is not in")):
        with pytest.raises(UserError, match=message):
            import_array(tmp_path / "other", tmp_path / "x.safetensors", tensor=tensor)


def test_names_that_are_no_folders_are_refused(tmp_path: Path, array: Path) -> None:
    for name in ("rows", "", "../x", "a/b", ".lock", "a b"):
        with pytest.raises(UserError, match=f"name {name!r} cannot name an array"):
            import_array(tmp_path / "run", array, name=name)
    assert not (tmp_path / "run").exists()


def test_arrays_of_one_run_have_the_same_rows(tmp_path: Path, array: Path) -> None:
    import_array(tmp_path / "run", array, name="one")
    np.save(tmp_path / "y.npy", np.ones((50, 9), np.float32))
    assert import_array(tmp_path / "run", tmp_path / "y.npy", name="two").d_model == 9
    np.save(tmp_path / "z.npy", np.ones((51, 9), np.float32))
    with pytest.raises(UserError, match=r"made with another text\.n_rows \(50, not 51\)"):
        import_array(tmp_path / "run", tmp_path / "z.npy", name="three")


def refused(tmp_path: Path, message: str, **options: object) -> None:
    with pytest.raises(UserError, match=message):
        import_array(tmp_path / "run", tmp_path / "x.npy", **options)  # type: ignore[arg-type]


def test_refusals(tmp_path: Path, array: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    refused(tmp_path, "has 2 entries, the array 50 rows", labels=tmp_path / "labels.txt")
    refused(tmp_path, "labels .* cannot be read", labels=tmp_path / "none.txt")
    refused(tmp_path, "dtype 'int8' is not a storage type", dtype="int8")
    np.save(array, np.ones((3, 4), np.int64))
    refused(tmp_path, "give floats of shape")
    np.save(array, np.ones(4))
    refused(tmp_path, "give floats of shape")
    np.save(array, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(tmp_path, "cannot be read")
    x = np.ones((9, 4), np.float32)
    x[5, 1] = np.nan
    np.save(array, x)
    refused(tmp_path, "row 5 of the array is not finite")
    save_file({"a": torch.ones(4, 4).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(
        UserError, match=r"of torch.float8_e4m3fn: give floats of shape .* in 16, 32 or 64 bits"
    ):
        import_array(tmp_path / "run", tmp_path / "x.safetensors")
    np.save(array, np.full((9, 4), 1e6))
    refused(tmp_path, "row 0 of the array is not finite in torch.float16", dtype="float16", name="other")
    array.unlink()
    refused(tmp_path, "is not a file")
