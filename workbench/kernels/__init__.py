"""Sparse kernels of dictionary learning, one operation a folder.

Each folder has the same files: `reference.py` is the definition in plain torch (any device, any float
dtype, differentiable by autograd), `cpu.py` what beats it on a CPU, `op.py` the public function with its
own backward and the choice of backend, `README.md` the mathematics and the measurements.

A batch of latents is always `(indices, values)`, both (row, k): row r is the sum over s of
`values[r, s]` times the basis vector of latent `indices[r, s]`. No (row, d_sae) matrix leaves a kernel.
"""

from workbench.kernels.latent_sum.op import latent_sum
from workbench.kernels.sparse_decode.op import sparse_decode
from workbench.kernels.topk_encode.op import topk_encode

__all__ = ["latent_sum", "sparse_decode", "topk_encode"]
