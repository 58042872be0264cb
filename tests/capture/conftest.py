"""A tiny model and a text, and a way to capture them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models_on_disk import tiny_model_dir
from workbench.capture import capture
from workbench.store import ActivationStore

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.attn.hook_z")
OPTIONS = {"n_tokens": 900, "n_ctx": 32, "dtype": "float32", "batch_tokens": 96, "shard_tokens": 256}

Capture = Callable[..., dict[str, ActivationStore]]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model_dir(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    for number in range(4):
        lines = (f"def add_{i}(a, b):\n    return a + {number} * b + {i}\n\n" for i in range(40))
        (tmp_path / f"text{number}.py").write_text("".join(lines))
    return str(tmp_path / "text*.py")


@pytest.fixture
def run_capture(model_dir: str, text: str) -> Capture:
    def made(run: Path, **changes: object) -> dict[str, ActivationStore]:
        options = {"model": model_dir, "text": text, "hooks": HOOKS, **OPTIONS, **changes}
        return capture(run, **options)  # type: ignore[arg-type]

    return made


def content(root: Path) -> dict[str, bytes]:
    """Every file of a run's stores, but for the locks."""
    files = (f for f in sorted(root.rglob("*")) if f.is_file() and not f.name.startswith(".lock"))
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in files}
