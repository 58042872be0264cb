"""Several processes on one dictionary (torchrun): other rows each, or other latents each.

**data**: every process reads the same batch and takes its share of the rows. Gradients are averaged, what
is a ratio of sums over the batch (AuxK) takes its sums over all processes, counters take the least.

**latents**: every process holds d_sae / n latents and sees all rows. A selection is exchanged by values
only: each process selects among its own latents, all gather the values (row, k), and an entry stays if
it is among the k largest of the row over all processes; equal values: the lower process, which has the lower
latents. Partial reconstructions are summed; every process then has the whole error and the gradients of its
own latents. Two autograd functions say which sums belong to the forward and which to the backward:

    SumForward    y = sum over processes of x,  dL/dx = dL/dy       (reconstruction)
    SumBackward   y = x,  dL/dx = sum over processes of dL/dy       (pre-bias that each encoder subtracts)

Both equal one process up to the order of additions (tests/training/test_distributed.py, two gloo processes).
"""

from workbench.training.distributed.place import MODES, Place
from workbench.training.distributed.share import share, whole_of

__all__ = ["MODES", "Place", "share", "whole_of"]
