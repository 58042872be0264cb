"""Compiled loop of decode and loss: reconstruction, error and squared error of a row while it is in the cache."""

from __future__ import annotations

from workbench.kernels.compiled import compiled


@compiled
def decode_loss(indices, values, W_dec, b_dec, target, prefixes, x_hat, errors, squares, start, stop):
    """Rows start .. stop: for each prefix group add its latents to x_hat[r], then write errors[q, r].

    squares[q, r] is the summed squared error of row r.
    """
    for r in range(start, stop):
        total, wanted, low = x_hat[r], target[r], 0
        for i in range(b_dec.size):
            total[i] = b_dec[i]
        for q in range(prefixes.size):
            for s in range(indices.shape[1]):
                j, value = indices[r, s], values[r, s]
                if value != 0 and low <= j < prefixes[q]:
                    latent = W_dec[j]
                    for i in range(latent.size):
                        total[i] += value * latent[i]
            error, square = errors[q, r], wanted[0] * 0
            for i in range(error.size):
                difference = total[i] - wanted[i]
                error[i] = difference
                square += difference * difference
            squares[q, r] = square
            low = prefixes[q]
