"""Serial loops compiled by Numba, and how they take tensors.

Every loop works on a range [start, stop) of rows or latents without the interpreter's lock, so several run
side by side (`threads.py`). Sums may be reassociated so that they vectorise: the order is then one that the
compiler fixed, the same on every call. NaN and infinities keep their meaning; a division by zero gives them,
without the check that would keep a loop from being vectorised.

Compiled code is kept on disk next to the source, in the user's cache folder, or nowhere where neither can be
written. A loop must not call a loop of another file: the cache follows changes of its own file only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from torch import Tensor

FASTMATH = {"reassoc", "contract", "nsz"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function over arrays and numbers as machine code; types are those of the first call."""
    plain = inspect.unwrap(function)  # a type checker's wrapper cannot be compiled
    try:
        return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy", cache=True)(plain)
    except RuntimeError:  # no folder for the cache
        return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(plain)


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory, contiguous, as an array."""
    return tensor.detach().contiguous().numpy()
