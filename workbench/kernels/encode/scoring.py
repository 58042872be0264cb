"""Compiled loops that decide: rounding with its residuals, the float32 values, and the choice among them.

`score` is the only place where a value is computed, so a row and a latent give the same bits for every rule,
tile and batch.
"""

from __future__ import annotations

import numpy as np

from workbench.kernels.compiled import compiled

LOWEST_FIRST = 0x7FFFFFFF


@compiled
def round_rows(rows, bits, norm, lost, start, stop):
    """Bits of the rows in bfloat16 (none if `bits` is empty), norms of the rows and of the rounding residuals."""
    back = np.empty(rows.shape[1], np.float32)
    for r in range(start, stop):
        row = rows[r]
        squares, residuals = np.float32(0), np.float32(0)
        for i in range(row.size):
            squares += row[i] * row[i]
        if bits.size:
            low = bits[r]
            for i in range(row.size):
                b = np.float32(row[i]).view(np.uint32)
                kept = np.uint32((np.uint32(b + 0x7FFF + ((b >> 16) & 1))) >> 16)
                low[i] = np.uint16(kept)
                back[i] = np.uint32(kept << 16).view(np.float32)
            for i in range(row.size):
                residuals += (row[i] - back[i]) * (row[i] - back[i])
        norm[r], lost[r] = np.sqrt(squares), np.sqrt(residuals)


@compiled
def score(x, rows, bias, which, latents, counts, values):
    """values[r, i] = <x[which[r]], rows[latents[r, i]]> + bias, in float32, for the first counts[r] entries."""
    for r in range(counts.size):
        row = x[which[r]]
        for i in range(counts[r]):
            latent = rows[latents[r, i]]
            product = np.float32(0)
            for d in range(row.size):
                product += row[d] * latent[d]
            values[r, i] = product + bias[latents[r, i]]


@compiled
def _key(value, latent):
    """A number that orders entries as the tie rule does: larger values, then lower latents, come out larger."""
    bits = np.int64(np.float32(value).view(np.int32))
    if value != value:
        bits = np.int64(LOWEST_FIRST)
    elif value == 0:
        bits = np.int64(0)
    elif bits < 0:
        bits = bits ^ np.int64(LOWEST_FIRST)
    return (bits << np.int64(32)) | np.int64(LOWEST_FIRST - latent)


@compiled
def _latent_of(key):
    """The latent that a key was made of."""
    return LOWEST_FIRST - (key & LOWEST_FIRST)


@compiled
def _value_of(key):
    """The value that a key was made of; a zero comes back as +0."""
    bits = key >> np.int64(32)
    return np.int32(bits ^ np.int64(LOWEST_FIRST) if bits < 0 else bits).view(np.float32)


@compiled
def _sort(keys):
    """Sort in place, descending (Shell 1959): the lists are short and the compiler's own sort takes it seconds."""
    gap = 1
    while gap < keys.size // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, keys.size):
            key, j = keys[i], i
            while j >= gap and keys[j - gap] < key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 3


@compiled
def choose_largest(latents, values, counts, k, rows, out_latents, out_values):
    """The k largest of each listed row in descending order, written to the rows `rows`; skips lists of length -1."""
    keys = np.empty(latents.shape[1], np.int64)
    for r in range(counts.size):
        for i in range(counts[r]):
            keys[i] = _key(values[r, i], latents[r, i])
        if counts[r] >= 0:
            _sort(keys[: counts[r]])
            for s in range(k):
                out_latents[rows[r], s], out_values[rows[r], s] = _latent_of(keys[s]), _value_of(keys[s])


@compiled
def choose_group_max(latents, values, counts, size, rows, out_latents, out_values):
    """The largest of each group in each listed row, written to the rows `rows`; skips lists of length -1."""
    for r in range(counts.size):
        group, best = -1, np.int64(0)
        for i in range(counts[r]):
            key = _key(values[r, i], latents[r, i])
            if latents[r, i] // size != group or key > best:
                group, best = latents[r, i] // size, key
                out_latents[rows[r], group], out_values[rows[r], group] = latents[r, i], values[r, i]


@compiled
def keep_above(latents, values, counts, threshold):
    """Drop the listed entries that are not above their latent's threshold, in place."""
    for r in range(counts.size):
        kept = 0
        for i in range(counts[r]):
            if values[r, i] > threshold[latents[r, i]]:
                latents[r, kept], values[r, kept] = latents[r, i], values[r, i]
                kept += 1
        counts[r] = min(counts[r], kept)


@compiled
def list_above(tile, bias, threshold, latents, values, counts):
    """All latents of a tile of float32 products whose value is above its threshold, ascending."""
    for r in range(counts.size):
        count = 0
        for j in range(bias.size):
            value = tile[r, j] + bias[j]
            latents[r, count], values[r, count] = j, value
            count += value > threshold[j]
        counts[r] = count


@compiled
def keep_best(latents, values, counts, rows, edge, last_row, last_latent):
    """Drop the entries below the edge, and of those at the edge all behind the last (row, latent), in place."""
    for r in range(counts.size):
        kept = 0
        for i in range(counts[r]):
            j, value = latents[r, i], values[r, i]
            early = rows[r] < last_row or (rows[r] == last_row and j <= last_latent)
            if value > edge or (value == edge and early):
                latents[r, kept], values[r, kept] = j, value
                kept += 1
        counts[r] = min(counts[r], kept)


@compiled
def write_lists(latents, values, counts, rows, by_value, out_latents, out_values):
    """Lists into the rows `rows`, as they are or in descending order, zeros behind them; skips length -1."""
    keys = np.empty(latents.shape[1], np.int64)
    for r in range(counts.size):
        row, count = rows[r], counts[r]
        for i in range(count):
            out_latents[row, i], out_values[row, i] = latents[r, i], values[r, i]
            keys[i] = _key(values[r, i], latents[r, i])
        if by_value and count > 0:
            _sort(keys[:count])
            for i in range(count):
                out_latents[row, i], out_values[row, i] = _latent_of(keys[i]), _value_of(keys[i])
        if count >= 0:
            out_latents[row, count:] = 0
            out_values[row, count:] = 0
