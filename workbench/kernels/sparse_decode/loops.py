"""Compiled loops of the sparse decode: rows of the decoder added up, and its two gradients in one pass."""

from __future__ import annotations

from workbench.kernels.compiled import compiled


@compiled
def decode(indices, values, W_dec, out, start, stop):
    """out[r] = sum of values[r, s] * W_dec[indices[r, s]] for rows start .. stop."""
    for r in range(start, stop):
        total = out[r]
        total[:] = 0
        for s in range(indices.shape[1]):
            value = values[r, s]
            if value != 0:
                latent = W_dec[indices[r, s]]
                for i in range(latent.size):
                    total[i] += value * latent[i]


@compiled
def value_gradients(indices, grad, W_dec, out, start, stop):
    """out[r, s] = <grad[r], W_dec[indices[r, s]]> for rows start .. stop."""
    for r in range(start, stop):
        row = grad[r]
        for s in range(indices.shape[1]):
            latent, product = W_dec[indices[r, s]], row[0] * 0
            for i in range(latent.size):
                product += latent[i] * row[i]
            out[r, s] = product


@compiled
def gradients(
    offsets, members, width, prefixes, values, upstream, W_dec, for_values, for_decoder, start, stop
):
    """Both gradients for latents start .. stop; latents of prefix group q take upstream[q].

    A row of `upstream` is read once for both: for the sum of the latent and for the product with it.
    """
    q = 0
    for j in range(start, stop):
        while j >= prefixes[q]:
            q += 1
        latent, total = W_dec[j], for_decoder[j]
        total[:] = 0
        for place in range(offsets[j], offsets[j + 1]):
            e = members[place]
            value, product = values[e], values[e] * 0
            if value != 0:
                row = upstream[q, e // width]
                for i in range(row.size):
                    total[i] += value * row[i]
                    product += latent[i] * row[i]
            for_values[e] = product
