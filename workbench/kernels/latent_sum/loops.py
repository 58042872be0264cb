"""Compiled loops of the latent-major sums."""

from __future__ import annotations

from workbench.kernels.compiled import compiled


@compiled
def counting_sort(flat, offsets, members):
    """Positions of `flat` sorted stably by value; offsets must come in as zeros, one longer than the values."""
    for e in range(flat.size):
        offsets[flat[e] + 1] += 1
    for j in range(1, offsets.size):
        offsets[j] += offsets[j - 1]
    place = offsets.copy()
    for e in range(flat.size):
        j = flat[e]
        members[place[j]] = e
        place[j] += 1


@compiled
def latent_sum(offsets, members, width, values, rows, out, start, stop):
    """out[j] = sum of values[e] * rows[e // width] over the members of latents start .. stop."""
    for j in range(start, stop):
        total = out[j]
        total[:] = 0
        for place in range(offsets[j], offsets[j + 1]):
            value = values[members[place]]
            if value != 0:
                row = rows[members[place] // width]
                for i in range(row.size):
                    total[i] += value * row[i]


@compiled
def latent_total(offsets, members, values, out):
    """out[j] = sum of values[e] over the members of latent j, in float64."""
    for j in range(out.size):
        total = 0.0
        for place in range(offsets[j], offsets[j + 1]):
            total += values[members[place]]
        out[j] = total


@compiled
def latent_counts(offsets, members, values, out):
    """out[j] = number of members of latent j with a positive value."""
    for j in range(out.size):
        count = 0
        for place in range(offsets[j], offsets[j + 1]):
            count += values[members[place]] > 0
        out[j] = count
