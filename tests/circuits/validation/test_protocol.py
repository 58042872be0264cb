"""Protocols are data that say in one sentence what they do, and refuse what has no meaning."""

from __future__ import annotations

import json

import pytest

from workbench.circuits.validation.protocol import (
    DENOISE,
    KINDS,
    MEAN,
    OPTIMAL,
    POSITION_MEAN,
    RESAMPLE,
    ZERO,
    Protocol,
    Reference,
)
from workbench.errors import UserError

ALL_OF_THEM = (RESAMPLE, MEAN, POSITION_MEAN, ZERO, OPTIMAL, DENOISE)


@pytest.mark.parametrize("protocol", ALL_OF_THEM, ids=lambda p: f"{p.kind}-{p.direction}")
def test_a_protocol_is_one_sentence_and_json(protocol: Protocol) -> None:
    sentence = protocol.describe()
    assert sentence.count(".") == 1
    assert sentence.endswith(".")
    record = json.loads(json.dumps(protocol.as_dict()))
    assert record["description"] == sentence
    assert record["kind"] in KINDS


def test_sentences_tell_protocols_apart() -> None:
    some = Protocol(kind="resample", positions=(-1, 2))
    drawn = Protocol(kind="resample", reference=Reference(name="clean", number=8, seed=3))
    assert len({p.describe() for p in (*ALL_OF_THEM, some, drawn)}) == len(ALL_OF_THEM) + 2
    assert "[-1, 2]" in some.describe()
    assert "8 clean prompts" in drawn.describe()
    assert "seed 3" in drawn.describe()


def test_the_default_reference_follows_the_kind() -> None:
    assert RESAMPLE.source == Reference(name="paired")
    assert ZERO.source == Reference(name="none")
    assert MEAN.source == POSITION_MEAN.source == OPTIMAL.source == Reference(name="counterfactual")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "means"}, "kind 'means' is not known; the nearest: mean"),
        ({"kind": "mean", "direction": "noise"}, "direction 'noise' is not known"),
        ({"kind": "mean", "positions": "last"}, "positions 'last' names no position"),
        ({"kind": "mean", "positions": ()}, r"positions \(\) names no position"),
        (
            {"kind": "mean", "reference": Reference(name="paired")},
            "reference 'paired' gives no values for kind 'mean': give counterfactual or clean",
        ),
        ({"kind": "mean", "direction": "denoising"}, "direction 'denoising' restores clean values"),
        ({"kind": "zero", "direction": "denoising"}, "so kind 'zero' with reference 'none' has no meaning"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol(**options)


def test_references_are_checked() -> None:
    with pytest.raises(UserError, match="reference 'corrupt' is not known"):
        Reference(name="corrupt")
    with pytest.raises(UserError, match="number -1 is less than 0"):
        Reference(name="clean", number=-1)
