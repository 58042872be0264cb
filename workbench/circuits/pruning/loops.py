"""Compiled loops over a sparse graph whose edges are grouped by target (`order.py`)."""

from __future__ import annotations

from workbench.kernels.compiled import compiled


@compiled
def sinks_first(offsets, members, source, waiting, order):
    """Fill `order` with the nodes, each after all nodes it has edges to; returns how many could be placed.

    `waiting` comes in as the number of edges out of each node and is used up.
    """
    n_placed = 0
    for node in range(waiting.size):
        if waiting[node] == 0:
            order[n_placed] = node
            n_placed += 1
    done = 0
    while done < n_placed:
        node = order[done]
        done += 1
        for place in range(offsets[node], offsets[node + 1]):
            s = source[members[place]]
            waiting[s] -= 1
            if waiting[s] == 0:
                order[n_placed] = s
                n_placed += 1
    return n_placed


@compiled
def input_sums(target, weight, out):
    """out[t] += sum of |weight| of the edges into t."""
    for e in range(target.size):
        out[target[e]] += abs(weight[e])


@compiled
def input_sums_from(chosen, source, target, weight, out):
    """out[t] += sum of |weight| of the edges into t whose source is chosen."""
    for e in range(target.size):
        if chosen[source[e]]:
            out[target[e]] += abs(weight[e])


@compiled
def influence(offsets, members, source, weight, order, sums, start, out):
    """out[s] = sum over targets t of |weight| / sums[t] * (start[t] + out[t]); `out` comes in as zeros."""
    for i in range(order.size):
        t = order[i]
        passed_on = start[t] + out[t]
        if passed_on > 0 and sums[t] > 0:
            scale = passed_on / sums[t]
            for place in range(offsets[t], offsets[t + 1]):
                e = members[place]
                out[source[e]] += abs(weight[e]) * scale


@compiled
def edge_scores(target, weight, sums, reaching, out):
    """out[e] = |weight[e]| / sums[t] * reaching[t], t the target of e."""
    for e in range(target.size):
        t = target[e]
        out[e] = abs(weight[e]) / sums[t] * reaching[t] if sums[t] > 0 else 0.0


@compiled
def drop_without_output(offsets, members, source, kept, order, needs, alive, has):
    """Clear `alive` of nodes that need a live target and have none; `has` comes in as zeros."""
    for i in range(order.size):
        t = order[i]
        if needs[t] and not has[t]:
            alive[t] = False
        if alive[t]:
            for place in range(offsets[t], offsets[t + 1]):
                e = members[place]
                if kept[e]:
                    has[source[e]] = True


@compiled
def drop_without_input(offsets, members, source, kept, order, needs, alive):
    """Clear `alive` of nodes that need a live source and have none."""
    for i in range(order.size - 1, -1, -1):
        t = order[i]
        if needs[t] and alive[t]:
            found = False
            for place in range(offsets[t], offsets[t + 1]):
                e = members[place]
                if kept[e] and alive[source[e]]:
                    found = True
                    break
            alive[t] = found
