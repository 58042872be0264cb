"""Sparse kernels of dictionary learning, one operation a folder.

Each folder has the same files: `reference.py` is the definition in plain torch (any device, any float
dtype, differentiable by autograd), `cpu.py` and `triton.py` what beats it on a CPU and on a GPU, `op.py` the
public function with its own backward, `README.md` the mathematics and the measurements. `backend.py` chooses.

A batch of latents is always `(indices, values)`, both (row, width): row r is the sum over s of
`values[r, s]` times the basis vector of latent `indices[r, s]`. Where rows have different numbers of entries
they are padded at the end with index 0 and value 0.0; a value of exactly 0 contributes nothing and gets no
gradient. No (row, d_sae) matrix leaves a kernel.
"""

from workbench.kernels.decode_loss.op import decode_loss
from workbench.kernels.encode.op import batch_topk_encode, group_max_encode, threshold_encode, topk_encode
from workbench.kernels.gather_latents.op import gather_latents
from workbench.kernels.latent_sum.op import LatentMajor, latent_counts, latent_major, latent_sum, latent_total
from workbench.kernels.sparse_decode.op import sparse_decode
from workbench.kernels.sparse_encode.op import CSR, encode_csr

__all__ = [
    "CSR",
    "LatentMajor",
    "batch_topk_encode",
    "decode_loss",
    "encode_csr",
    "gather_latents",
    "group_max_encode",
    "latent_counts",
    "latent_major",
    "latent_sum",
    "latent_total",
    "sparse_decode",
    "threshold_encode",
    "topk_encode",
]
