"""What every kernel test compares with: the definition in float64, and the rounding it would have itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory is NaN, so a kernel that forgets to write an element is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def two_threads() -> Callable[[], AbstractContextManager[None]]:
    """A context in which kernels run on two threads."""

    @contextmanager
    def context() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return context


@pytest.fixture
def assert_within_rounding() -> Callable[..., None]:
    """Our float32 error is at most twice that of the plain float32 definition, plus a few roundings."""

    def check(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
        assert ours.shape == exact.shape
        assert ours.isfinite().all()
        budget = (
            2 * (plain.double() - exact).abs().max() + 8 * exact.abs().max() * torch.finfo(torch.float32).eps
        )
        assert float((ours.double() - exact).abs().max()) <= float(budget)

    return check
