"""The tiny models of the sweeps' tests."""

from tests.circuits.sweeps.conftest import opened

__all__ = ["opened"]
