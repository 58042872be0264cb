"""Tied weights: the encoder is the transpose of the decoder, one tensor that is trained through both uses.

    a = (x - b_dec) W_dec^T + b_enc;   x_hat = z W_dec + b_dec

A layout has an encoder of its own. An architecture that ties it encodes within `tied`, where the layout reads
W_dec^T in its place, so W_dec gets the gradient of both uses and W_enc none: it stays as it started, and is
neither read nor exported. Limit: it keeps its memory, with its two moments.

Only an autoencoder of one hook point can be tied: elsewhere input and target are in different spaces. An architecture
says so in its `layouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.dictionaries.layouts.base import Folded

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee


@contextmanager
def tied(trainee: Trainee, **replaced: Tensor) -> Iterator[None]:
    """Within the block the trainee's encoder is the transpose of its decoder.

    Args:
        trainee: Whose parameters are read.
        **replaced: Further parameters by name, in place of its own.
    """
    present = trainee.parameters
    try:
        trainee.parameters = {**present, "W_enc": present["W_dec"].T, **replaced}
        yield
    finally:
        trainee.parameters = present


def folded(trainee: Trainee, **replaced: Tensor) -> Folded:
    """The weights for raw activations of a trainee whose encoder is tied.

    Args:
        trainee: Whose parameters are folded.
        **replaced: Parameters by name, in place of its own.
    """
    with tied(trainee, **replaced):
        return trainee.layout.fold(
            trainee.parameters,
            trainee.inputs,
            trainee.outputs,
            rescalable=trainee.architecture.rescalable,
        )
