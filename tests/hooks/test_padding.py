"""Rows of unequal length in one batch: values at real positions are those of the rows alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.conftest import some_ids
from workbench.errors import UserError
from workbench.hooks import open_forward

NAMES = ["hook_embed", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"]
LENGTHS = (12, 7, 1)


def padded(model: Any) -> tuple[Tensor, Tensor]:
    """(ids, mask) of rows of `LENGTHS`, padded on the right with token 0."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return some_ids(model, len(LENGTHS), max(LENGTHS)) * mask, mask


def largest_error(values: dict[str, Tensor], alone: dict[str, Tensor], row: int) -> float:
    """Largest difference at the row's real positions, as a share of the largest element."""
    n = LENGTHS[row]
    errors = [
        (values[name][row, :n] - alone[name][0]).abs().max() / alone[name].abs().max() for name in NAMES
    ]
    return float(max(errors))


@pytest.mark.parametrize("path", ["plain", "bridge"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "gemma3"])
def test_padding_changes_no_real_position(model_of, architecture: str, path: Any) -> None:
    model = model_of(architecture)
    ids, mask = padded(model)
    with open_forward(model, NAMES, ids=some_ids(model), path=path) as forward:
        values = forward(ids, mask)
        for row, n in enumerate(LENGTHS):
            assert largest_error(values, forward(ids[row : row + 1, :n]), row) < 1e-5


def test_without_its_mask_an_encoder_reads_the_padding(model_of) -> None:
    model = model_of("bert")
    ids, _ = padded(model)
    with open_forward(model, NAMES, ids=some_ids(model)) as forward:
        assert largest_error(forward(ids), forward(ids[1:2, : LENGTHS[1]]), 1) > 1e-2


def test_a_bidirectional_native_model_gets_its_mask() -> None:
    from tests.models_on_disk import native_model

    model = native_model(attention_dir="bidirectional")
    ids, mask = padded(model)
    with open_forward(model, NAMES, ids=some_ids(model)) as forward:
        assert largest_error(forward(ids, mask), forward(ids[1:2, : LENGTHS[1]]), 1) < 1e-5
        assert largest_error(forward(ids), forward(ids[1:2, : LENGTHS[1]]), 1) > 1e-4


@pytest.mark.parametrize(("architecture", "passed"), [("bert", True), ("gpt2", False)])
def test_only_an_encoder_is_given_the_mask(
    model_of, monkeypatch: pytest.MonkeyPatch, architecture: str, passed: bool
) -> None:
    model = model_of(architecture)
    ids, mask = padded(model)
    with open_forward(model, NAMES, ids=some_ids(model)) as forward:
        run, seen = forward._path.run, []
        monkeypatch.setattr(forward._path, "run", lambda ids, mask: (seen.append(mask), run(ids, mask)))
        forward(ids, mask)
        forward(ids, torch.ones_like(mask))
    assert [mask is not None for mask in seen] == [passed, False]


@pytest.mark.parametrize("real", [[0, 1, 1], [1, 0, 1], [0, 0, 0]])
def test_other_padding_is_refused(model_of, real: list[int]) -> None:
    model = model_of("bert")
    ids = some_ids(model, 1, 3)
    with (
        open_forward(model, NAMES, ids=ids) as forward,
        pytest.raises(UserError, match=r"mask of shape \(1, .\) is not right padding of ids \(1, 3\)"),
    ):
        forward(ids, torch.tensor([real]).bool())
