"""Random circuit graphs with positions, labels that are markup, and optional tensors."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from workbench.circuits.circuit_graph import CircuitGraph, node_table

N_LAYERS, N_CTX = 4, 5
TOKENS = [f"<t{i}>" for i in range(N_CTX)]
METADATA = {"scan": "tiny", "prompt": "".join(TOKENS), "prompt_tokens": TOKENS}
labels = st.text(max_size=12)
numbers = st.floats(-1e6, 1e6, width=32)
layers, places, indices = st.integers(0, N_LAYERS - 1), st.integers(0, N_CTX - 1), st.integers(0, 9)


def _records() -> st.SearchStrategy[dict[str, Any]]:
    feature = st.fixed_dictionaries(
        {"kind": st.just("feature"), "layer": layers, "feature": indices, "pos": places, "label": labels,
         "activation": numbers, "covered_frac": st.floats(0, 1)}
    )  # fmt: skip
    error = st.fixed_dictionaries({"kind": st.just("error"), "layer": layers, "pos": places, "label": labels})
    token = st.fixed_dictionaries({"kind": st.just("token"), "token_id": indices, "pos": places})
    logit = st.fixed_dictionaries(
        {"kind": st.just("logit"), "token_id": indices, "pos": st.just(N_CTX - 1), "prob": st.floats(0, 1),
         "token": st.text(max_size=5), "is_target_logit": st.booleans()}
    )  # fmt: skip
    head = st.fixed_dictionaries(
        {"kind": st.just("head"), "layer": layers, "head": indices, "pos": st.just(-1)}
    )
    return st.one_of(feature, error, token, logit, head)


def _named(record: dict[str, Any]) -> dict[str, Any]:
    at = f"@{record['pos']}" if record["pos"] >= 0 else ""
    layer, index = record.get("layer"), record.get("feature", record.get("head", record.get("token_id")))
    reads = "." + record["site"] if record.get("site") else ""
    name = {"feature": f"f{layer}.{index}", "error": f"e{layer}", "token": f"embed.{index}",
            "logit": f"logit.{index}", "head": f"a{layer}.h{index}{reads}", "mlp": f"m{layer}",
            "group": f"g{index}", "embed": "embed"}[record["kind"]]  # fmt: skip
    token = {"token": TOKENS[record["pos"]]} if record["kind"] == "token" else {}
    known = {key: value for key, value in record.items() if record["kind"] != "group" or key != "feature"}
    return {**known, **token, "node_id": name + at}


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """What `made` makes a graph without cycles of: edges run from earlier to later rows."""
    drawn = draw(st.lists(_records(), min_size=1, max_size=12))
    records = list({record["node_id"]: record for record in map(_named, drawn)}.values())
    ids = [record["node_id"] for record in records]
    possible = [(s, t) for t in range(len(ids)) for s in range(t)]
    edges = draw(st.lists(st.sampled_from(possible), unique=True, max_size=20)) if possible else []
    some = st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=len(edges), max_size=len(edges))
    optional = {n: draw(some) for n in ("intervened", "low", "high") if draw(st.booleans())}
    members = st.lists(st.sampled_from(ids), min_size=1, max_size=3)
    meta = {
        "pins": draw(st.lists(st.sampled_from(ids), max_size=3)),
        "supernodes": [[draw(labels), *draw(members)] for _ in range(draw(st.integers(0, 2)))],
    }
    if draw(st.booleans()):
        pair = [draw(st.sampled_from(ids)), draw(st.sampled_from(ids)), draw(numbers)]
        meta["qk_tracing_results"] = {ids[0]: {"pair_wise_contributors": [pair]}}
    weight = draw(st.lists(numbers, min_size=len(edges), max_size=len(edges)))
    return {"records": records, "edges": edges, "values": {"weight": weight, **optional}, "meta": meta}


def made(recipe: dict[str, Any]) -> CircuitGraph:
    """The graph of a recipe; made outside the strategy, where type checkers may draw at random."""
    source, target = (torch.tensor([e[end] for e in recipe["edges"]], dtype=torch.int64) for end in (0, 1))
    values = {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in recipe["values"].items()}
    nodes = node_table(recipe["records"])
    return CircuitGraph(nodes=nodes, source=source, target=target, **values, meta=recipe["meta"])
