"""What a store refuses with."""

from __future__ import annotations


class StoreError(ValueError):
    """A store that is missing, incomplete, damaged, in use, or made from something else."""
