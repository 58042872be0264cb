"""Reading the graph schema of circuit-tracer and Neuronpedia into a `CircuitGraph`.

Nodes keep the names they have in the file. What the schema says of a node lies in the columns of the table, plus
`covered_frac` (the file's `influence`, a cumulative share), `is_target_logit` and `feature_type`. The rest of the
file (metadata, saved state, attention tracing) lies in `meta`, so that writing the graph again gives the file back.

The schema knows one weight a link. Links written by the workbench carry `intervened`, `low`, `high` and `kept` as
well, and a file may be split: `metadata.link_pages` names further files of links in the same folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.artifacts import sha256_file
from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.circuits.exchange.checks import is_whole, need, need_list, shown
from workbench.circuits.exchange.json_files import MAX_BYTES, read_strict_json
from workbench.circuits.exchange.names import KIND_OF, feature_index, vocabulary_index
from workbench.circuits.exchange.validate import LINK_NUMBERS, SLUG, layer_of, validate_graph
from workbench.circuits.node_names import node_record
from workbench.errors import UserError

FOREIGN_UNIT = "logits into logit nodes, pre-activation into other nodes"
NAN = float("nan")
_OUTPUT = re.compile(r'Output "(.*)"(?: \(p=[0-9.]+\))?\Z', re.DOTALL)


def read_graph(path: Path, *, n_layers: int | None = None, max_bytes: int = MAX_BYTES) -> CircuitGraph:
    """The graph in a JSON file of circuit-tracer, of Neuronpedia, or of the workbench.

    Args:
        path: The file; its further pages, if it has some, lie beside it.
        n_layers: Layers of the model, when nodes of other layers should be found.
        max_bytes: Refuse files larger than this, pages together.

    Raises:
        UserError: a damaged or too large file, or whatever `validate_graph` refuses.
    """
    record = read_strict_json(path, max_bytes=max_bytes)
    need(record, ("metadata", "qParams", "nodes", "links"), f"file {path.name!r}")
    need(record["metadata"], (), "metadata")
    left = max_bytes - path.stat().st_size
    for page in need_list(record["metadata"].get("link_pages") or [], "metadata.link_pages"):
        links, n_bytes = _read_page(path.parent, page, max_bytes=left)
        record["links"], left = [*need_list(record["links"], "links"), *links], left - n_bytes
    return graph_of_record(record, n_layers=n_layers)


def graph_of_record(record: dict[str, Any], *, n_layers: int | None = None) -> CircuitGraph:
    """The graph in parsed JSON whose links are all there.

    Raises:
        UserError: whatever `validate_graph` refuses.
    """
    validate_graph(record, n_layers=n_layers)
    nodes, links = record["nodes"], record["links"]
    row = {node["node_id"]: i for i, node in enumerate(nodes)}
    tokens = record["metadata"]["prompt_tokens"]
    ends = {
        end: torch.tensor([row[link[end]] for link in links], dtype=torch.int64)
        for end in ("source", "target")
    }
    return CircuitGraph(
        nodes=node_table([_row(node, tokens) for node in nodes]),
        **ends,
        weight=_numbers([link["weight"] for link in links]),
        **_optional(links),
        unit=str(record["metadata"].get("weight_unit", FOREIGN_UNIT)),
        meta=_meta(record),
    )


def _row(node: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    layer, pos = layer_of(node["layer"]), node["ctx_idx"]
    kind = "embed" if node["node_id"] == "embed" else KIND_OF[node["feature_type"]]
    token_id = vocabulary_index(node) if kind in ("token", "logit") else -1
    return {
        "node_id": node["node_id"],
        "kind": kind,
        "layer": layer,
        "head": _head(node) if kind == "head" else -1,
        "feature": feature_index(node, layer) if kind == "feature" else -1,
        "site": str(node.get("site", "")),
        "pos": -1 if node.get("all_positions") is True else pos,
        "token_id": token_id,
        "token": _token(node, kind, tokens),
        "activation": _or_nan(node.get("activation")),
        "prob": _or_nan(node.get("token_prob")) if kind == "logit" else NAN,
        "label": node["clerp"],
        "covered_frac": _or_nan(node.get("influence")),
        "is_target_logit": bool(node.get("is_target_logit", False)),
        "feature_type": node["feature_type"],
    }


def _token(node: dict[str, Any], kind: str, tokens: list[str]) -> str:
    said = _OUTPUT.match(node["clerp"]) if kind == "logit" else None
    if kind == "token" and node["ctx_idx"] < len(tokens):
        return tokens[node["ctx_idx"]]
    return str(said[1]) if said else ""


def _head(node: dict[str, Any]) -> int:
    try:
        return int(node_record(node["node_id"]).get("head", -1))
    except UserError:
        return -1


def _or_nan(value: float | None) -> float:
    return NAN if value is None else float(value)


def _numbers(values: Sequence[float]) -> Tensor:
    """Float32 where that keeps every number as it is, else float64."""
    exact = torch.tensor(values, dtype=torch.float64)
    short = exact.float()
    return short if torch.equal(short.double().nan_to_num(), exact.nan_to_num()) else exact


def _optional(links: list[dict[str, Any]]) -> dict[str, Tensor]:
    found = {
        key: _numbers([_or_nan(link.get(key)) for link in links])
        for key in LINK_NUMBERS
        if any(key in link for link in links)
    }
    if any("kept" in link for link in links):
        found["kept"] = torch.tensor([bool(link.get("kept", False)) for link in links])
    return found


def _meta(record: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = dict(record["qParams"])
    logits = [layer_of(node["layer"]) for node in record["nodes"] if node["feature_type"] == "logit"]
    described = {k: v for k, v in record["metadata"].items() if k not in ("link_pages", "weight_unit")}
    found = {
        "pins": state.pop("pinnedIds", None) or [],
        "supernodes": state.pop("supernodes", None) or [],
        "state": state,
        "metadata": described,
        "logit_layer": max(logits, default=None),
        "qk_only_nodes": record.get("qk_only_nodes"),
        "qk_tracing_results": {
            node["node_id"]: node["qk_tracing_results"]
            for node in record["nodes"]
            if node.get("qk_tracing_results") is not None
        },
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def _read_page(folder: Path, page: Any, *, max_bytes: int) -> tuple[list[Any], int]:
    """The links of one further page and its size; only a file beside the first, with the hash it was written with."""
    need(page, ("file", "n_links", "sha256"), "an entry of metadata.link_pages")
    name = page["file"]
    if not isinstance(name, str) or not SLUG.fullmatch(name):
        raise UserError(
            f"link page {shown(name)} is no file name: pages lie beside the graph, name the file alone"
        )
    path = folder / name
    links = need_list(read_strict_json(path, max_bytes=max(0, max_bytes)).get("links"), f"links of {name!r}")
    if sha256_file(path) != page["sha256"] or len(links) != page["n_links"] or not is_whole(page["n_links"]):
        raise UserError(
            f"link page {name!r} is not the one that was written with the graph: write the graph again"
        )
    return links, path.stat().st_size
