"""Whatever a file holds, it is read or refused in one sentence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dictionaries.formats.test_round_trips import make
from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary
from workbench.dictionaries.formats import FORMATS
from workbench.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key in nested objects."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def loaded_or_refused(folder: Path) -> Dictionary | None:
    """What is loaded; None where it is refused with a sentence that says which folder or which name."""
    try:
        return load_dictionary(folder)
    except UserError as error:
        message = str(error)
    assert str(folder) in message or "is not known" in message
    return None


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_the_configuration(format, ours, data):
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        save_dictionary(make("topk", unit=True), folder, format=format)
        path = folder / ("config.json" if format == "dictionary_learning" else "cfg.json")
        config = json.loads(path.read_text())
        if not ours:
            config.pop("workbench", config["metadata"].pop("workbench") if "metadata" in config else None)
        *parents, key = data.draw(st.sampled_from(sorted(places(config))))
        inside = config
        for parent in parents:
            inside = inside[parent]
        inside[key] = data.draw(JSON)
        path.write_text(json.dumps(config))
        loaded_or_refused(folder)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_weights_is_seen(format, data):
    with tempfile.TemporaryDirectory() as where:
        made = make("topk", unit=True)
        folder = save_dictionary(made, Path(where), format=format)
        path = folder / FORMATS[format].weights
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        found = loaded_or_refused(folder)
        assert found is None or found.hash == made.hash  # a byte between the tensors means nothing
