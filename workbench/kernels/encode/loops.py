"""Compiled proposals of encode-and-select: from approximate products to short lists of latents.

A loop reads a tile of approximate products p (float32, or bfloat16 as bits), makes for every latent the two ends
between which its value lies (`bounds.py`), and lists the latents that the rule may choose. A row whose list does
not fit gets the length -1 and goes to a better proposal.
"""

from __future__ import annotations

import numpy as np

from workbench.kernels.compiled import compiled

ROUND = np.float32(2.0**-21)


@compiled
def _unpack(bits, out):
    """The bfloat16 numbers with these bits."""
    for j in range(bits.size):
        out[j] = np.uint32(np.uint32(bits[j]) << 16).view(np.float32)


@compiled
def _ends(products, bias, norm, slope, c, floor, low, high):
    """Between which ends each value lies."""
    for j in range(bias.size):
        a = products[j] + bias[j]
        margin = slope * abs(products[j]) + ROUND * abs(a) + c * norm[j] + floor
        low[j] = a - margin
        high[j] = a + margin


@compiled
def _raise(maxima, values):
    """Elementwise maximum, in place; a NaN never gets in."""
    for j in range(values.size):
        maxima[j] = values[j] if values[j] > maxima[j] else maxima[j]


@compiled
def _row_ends(r, bits, tile, bias, norm, slope, c, floor, scratch, low, high):
    """Ends of the values of row r."""
    if bits.size:
        _unpack(bits[r], scratch)
        _ends(scratch, bias, norm, slope, c[r], floor[r], low, high)
    else:
        _ends(tile[r], bias, norm, slope, c[r], floor[r], low, high)


@compiled
def _class_maxima(values, maxima):
    """Maxima of the values over the latents of each class modulo the number of maxima."""
    maxima[:] = -np.inf
    for j in range(0, values.size, maxima.size):
        _raise(maxima, values[j : j + maxima.size])


@compiled
def _reached_by(values, k):
    """A number that at least k of the values reach, close to the k-th largest; -inf where a value is not finite."""
    bottom, top = np.float32(np.inf), np.float32(-np.inf)
    for value in values:
        if not np.isfinite(value):
            return np.float32(-np.inf)
        bottom, top = min(bottom, value), max(top, value)
    if k > values.size:
        return np.float32(-np.inf)
    for _ in range(26):
        middle = np.float32(np.float32(0.5) * bottom + np.float32(0.5) * top)
        count = 0
        for i in range(values.size):
            count += values[i] >= middle
        if count >= k:
            bottom = middle
            if count == k:
                break
        else:
            top = middle
    return bottom


@compiled
def _collect(low, high, best_high, edge, latents, lows):
    """List the latents whose high end reaches the edge and their low ends; -1 if there is no room for all."""
    count = 0
    for b in range(best_high.size):
        if best_high[b] >= edge:
            for j in range(b, high.size, best_high.size):
                if high[j] >= edge:
                    if count == latents.size:
                        return -1
                    latents[count], lows[count] = j, low[j]
                    count += 1
    return count


@compiled
def _narrow(high, edge, latents, lows, count):
    """Keep the listed latents whose high end reaches the edge."""
    kept = 0
    for i in range(count):
        if high[latents[i]] >= edge:
            latents[kept], lows[kept] = latents[i], lows[i]
            kept += 1
    return kept


@compiled
def propose_largest(bits, tile, bias, norm, slope, c, floor, k, at_least, n_maxima, latents, lows, counts):
    """Per row the latents that may be among its k largest (k > 0), or that may reach `at_least` (k = 0).

    At least k latents have a value that reaches the k-th largest of the low ends' maxima. A latent whose high
    end is below it is not among the k largest; the same holds of the k-th largest low end among those listed.
    """
    n = bias.size
    scratch, low, high = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    best_low, best_high = np.empty(n_maxima, np.float32), np.empty(n_maxima, np.float32)
    for r in range(counts.size):
        _row_ends(r, bits, tile, bias, norm, slope, c, floor, scratch, low, high)
        _class_maxima(low, best_low)
        _class_maxima(high, best_high)
        edge = _reached_by(best_low, k) if k else at_least
        count = _collect(low, high, best_high, edge, latents[r], lows[r])
        if k and count >= k:
            edge = _reached_by(lows[r, :count], k)
            count = _narrow(high, edge, latents[r], lows[r], count)
        counts[r] = count if count >= k else -1


@compiled
def propose_above(bits, tile, bias, norm, slope, c, floor, threshold, latents, counts):
    """Per row the latents whose value may be above their threshold, ascending."""
    n = bias.size
    scratch, low, high = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    listed = np.empty(n + 1, np.int32)
    for r in range(counts.size):
        _row_ends(r, bits, tile, bias, norm, slope, c, floor, scratch, low, high)
        count = 0
        for j in range(n):
            listed[count] = j
            count += not high[j] <= threshold[j]
        counts[r] = count if count <= latents.shape[1] else -1
        for i in range(counts[r]):
            latents[r, i] = listed[i]


@compiled
def propose_group_max(bits, tile, bias, norm, slope, c, floor, size, latents, counts):
    """Per row the latents that may be the largest of their group of `size` consecutive ones, group after group."""
    n = bias.size
    scratch, low, high = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for r in range(counts.size):
        _row_ends(r, bits, tile, bias, norm, slope, c, floor, scratch, low, high)
        count = 0
        for first in range(0, n, size):
            edge = np.float32(-np.inf)
            for j in range(first, first + size):
                edge = low[j] if low[j] > edge else edge
            for j in range(first, first + size):
                if not high[j] < edge and count >= 0:
                    latents[r, count] = j
                    count = count + 1 if count + 1 < latents.shape[1] else -1
        counts[r] = count
