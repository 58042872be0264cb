"""Compiled loops of the Adam step: a row of the five arrays stays in the nearest cache for all three passes."""

from __future__ import annotations

import math

import numpy as np

from workbench.kernels.compiled import compiled


@compiled
def step_rows(w, grad, exp_avg, exp_avg_sq, numbers, unit_rows, start, stop):
    """Rows start .. stop. `numbers` is float32: scale, alpha, root, epsilon, beta1, 1 - beta1, beta2, 1 - beta2."""
    scale, alpha, root, epsilon = numbers[0], numbers[1], numbers[2], numbers[3]
    beta1, new1, beta2, new2 = numbers[4], numbers[5], numbers[6], numbers[7]
    zero = np.float32(0)
    for r in range(start, stop):
        row, g, m, v = w[r], grad[r], exp_avg[r], exp_avg_sq[r]
        along, dot, square, total = zero, zero, zero, zero
        if unit_rows:
            for i in range(row.size):
                dot += g[i] * row[i]
                square += row[i] * row[i]
            if square > 0:
                along = scale * dot / square
        for i in range(row.size):
            gradient = scale * g[i] - along * row[i]
            mean = beta1 * m[i] + new1 * gradient
            mean_square = beta2 * v[i] + new2 * gradient * gradient
            m[i], v[i] = mean, mean_square
            moved = row[i] - alpha * mean / (root * math.sqrt(mean_square) + epsilon)
            row[i] = moved
            total += moved * moved
        if unit_rows and total > 0:
            length = math.sqrt(total)
            for i in range(row.size):
                row[i] /= length


@compiled
def square_sums(grad, out, size, start, stop):
    """out[p] = sum of squares of the entries p * size .. (p + 1) * size of a flat array, for p in start .. stop."""
    for p in range(start, stop):
        total = 0.0
        part = grad[p * size : (p + 1) * size]
        for i in range(part.size):
            total += np.float64(part[i]) * part[i]
        out[p] = total


@compiled
def round_stochastically(bits, out, key, start, stop):
    """Upper halves of the float32 bits, after 16 random bits were added; positions start .. stop, flat."""
    for i in range(start, stop):
        x = np.uint64(i) & np.uint64(0xFFFFFFFF)
        x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x7FEB352D)) & np.uint64(0xFFFFFFFF)
        x = ((x ^ (x >> np.uint64(15))) * np.uint64(0x846CA68B)) & np.uint64(0xFFFFFFFF)
        x ^= x >> np.uint64(16)
        x = (x + (np.uint64(i) >> np.uint64(32)) + np.uint64(key)) & np.uint64(0xFFFFFFFF)
        x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x7FEB352D)) & np.uint64(0xFFFFFFFF)
        x = ((x ^ (x >> np.uint64(15))) * np.uint64(0x846CA68B)) & np.uint64(0xFFFFFFFF)
        up = (x ^ (x >> np.uint64(16))) & np.uint64(0xFFFF)
        value = np.uint64(bits[i])
        if (value & np.uint64(0x7F800000)) == np.uint64(0x7F800000):
            up = np.uint64(0x8000) if value & np.uint64(0x7FFFFF) else np.uint64(0)
            value = value & np.uint64(0xFFFF0000) | up << np.uint64(7)
            up = np.uint64(0)
        out[i] = np.uint16((value + up) >> np.uint64(16))
