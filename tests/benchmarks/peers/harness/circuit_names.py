"""Writers and readers of a sequential transformer in one order, for score matrices that every tool fills alike.

Writers (rows): `embed`, then per layer its heads `a{layer}.h{head}` and `m{layer}`. Readers (columns): per layer
`a{layer}.h{head}.q` of all heads, then `.k`, then `.v`, then `m{layer}`; last `logit`. It imports nothing: the
harnesses use it in their environments and the comparison in ours.
"""

from __future__ import annotations


def writers(n_layers: int, n_heads: int) -> list[str]:
    """Names of the nodes that write to the residual stream."""
    names = ["embed"]
    for layer in range(n_layers):
        names += [*(f"a{layer}.h{head}" for head in range(n_heads)), f"m{layer}"]
    return names


def readers(n_layers: int, n_heads: int) -> list[str]:
    """Names of the nodes that read it."""
    names = []
    for layer in range(n_layers):
        names += [f"a{layer}.h{head}.{letter}" for letter in "qkv" for head in range(n_heads)]
        names.append(f"m{layer}")
    return [*names, "logit"]


def depth(name: str) -> int:
    """Place of a node in the order of the model: embedding 0, then attention and MLP of every layer in turn."""
    if name in ("embed", "logit"):
        return 0 if name == "embed" else 10**9
    return 1 + 2 * int(name[1:].split(".")[0]) + (name[0] == "m")


def is_edge(writer: str, reader: str) -> bool:
    """Whether the writer comes before the reader."""
    return depth(writer) < depth(reader)
