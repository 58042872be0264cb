"""Traces that several test files read."""

from __future__ import annotations

import pytest

from tests.circuits.attribution_graph.beds import bed_anatomy, make_transcoders, prompt
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt


@pytest.fixture(scope="session")
def traced() -> AttributionTrace:
    """A traced prompt of a tiny Llama with grouped heads."""
    anatomy = bed_anatomy("llama")
    return trace_prompt(anatomy, prompt(), make_transcoders(anatomy))
