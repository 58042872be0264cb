"""Writing a `CircuitGraph` in the graph schema of circuit-tracer and Neuronpedia.

Nodes get the schema's names (`names.py`), and pins, supernodes and attention tracing follow them. A graph of many
links can be written in part (`n_links`: the heaviest; the file says how many there were and what share of all
absolute weight was left out) and in pages (`page_links`: the heaviest links in the first file, the rest in files
beside it), so that a reader need not load more than it shows. Links are written a few thousand at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from workbench.artifacts import atomic_file, read_json, sha256_file, write_json
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.exchange.names import exchange_ids
from workbench.circuits.exchange.records import Links, heaviest, links_of, node_records, state_record
from workbench.circuits.exchange.validate import validate_parts
from workbench.errors import UserError

CHUNK_LINKS = 20_000
INDEX = "graph-metadata.json"


def graph_record(
    graph: CircuitGraph,
    *,
    metadata: Mapping[str, Any] | None = None,
    n_layers: int | None = None,
    n_links: int | None = None,
) -> dict[str, Any]:
    """The graph as the JSON object that `write_graph` writes without pages; arguments and refusals as there."""
    head, links = _parts(graph, metadata=metadata, n_layers=n_layers, n_links=n_links)
    return {**head, "links": links.records(0, len(links))}


def write_graph(
    graph: CircuitGraph,
    path: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    n_layers: int | None = None,
    n_links: int | None = None,
    page_links: int | None = None,
) -> list[Path]:
    """Write a graph; returns the files, first the one to give to a reader.

    Args:
        graph: The graph.
        path: The file, `<slug>.json`.
        metadata: `slug` (default: the file's name), `scan`, `prompt`, `prompt_tokens` and what else describes the
            graph; over what it was read with.
        n_layers: Layers of the model; logits are of layer n_layers + 1. Not needed for a graph that was read.
        n_links: Write only so many, the heaviest.
        page_links: At most so many links in a file, the heaviest first.

    Raises:
        UserError: a cycle, two edges between the same nodes, a graph without the metadata that the schema
            requires, or counts that are none.
    """
    for name, count in (("n_links", n_links), ("page_links", page_links)):
        if count is not None and count < 1:
            raise UserError(f"{name} {count} is no number of links: give at least 1")
    given = {"slug": path.stem, **(metadata or {})}
    most = graph.n_edges if n_links is None and page_links is not None else n_links
    head, links = _parts(graph, metadata=given, n_layers=n_layers, n_links=most)
    size = max(1, len(links)) if page_links is None else page_links
    pages = _write_pages(path, links, size)
    if pages:
        head["metadata"]["link_pages"] = pages
    _write(path, head, links, 0, min(size, len(links)))
    return [path, *(path.with_name(page["file"]) for page in pages)]


def index_graphs(folder: Path) -> Path:
    """Write `graph-metadata.json`, the metadata of every graph of a folder, as circuit-tracer's viewer reads it."""
    found = []
    for path in sorted(folder.glob("*.json")):
        record = read_json(path) if path.name != INDEX else None
        if isinstance(record, dict) and "metadata" in record and "nodes" in record:
            found.append(record["metadata"])
    write_json(folder / INDEX, {"graphs": found})
    return folder / INDEX


def _parts(
    graph: CircuitGraph, *, metadata: Mapping[str, Any] | None, n_layers: int | None, n_links: int | None
) -> tuple[dict[str, Any], Links]:
    """Everything but the links, checked, and the links."""
    graph.sinks_first()
    order = None if n_links is None else heaviest(graph, n_links)
    described = {"schema_version": 1, "slug": "graph", **graph.meta.get("metadata", {}), **(metadata or {})}
    described |= {"weight_unit": graph.unit, **_left_out(graph, order)}
    missing = [key for key in ("scan", "prompt", "prompt_tokens") if key not in described]
    if missing:
        raise UserError(f"metadata lacks {', '.join(missing)}: give them, the exchange schema requires them")
    logit_layer = _logit_layer(graph, n_layers)
    ids = exchange_ids(graph, logit_layer=logit_layer)
    names = dict(zip(graph.ids, ids, strict=True))
    n_ctx = len(described["prompt_tokens"])
    head: dict[str, Any] = {
        "metadata": described,
        "qParams": state_record(graph, names),
        "nodes": node_records(graph, names, logit_layer=logit_layer, n_ctx=n_ctx),
    }
    if graph.meta.get("qk_only_nodes"):
        head["qk_only_nodes"] = graph.meta["qk_only_nodes"]
    validate_parts(head)
    return head, links_of(graph, ids, order)


def _logit_layer(graph: CircuitGraph, n_layers: int | None) -> int:
    known = graph.meta.get("logit_layer")
    if n_layers is None and known is None:
        raise UserError(
            "n_layers is not given and the graph does not say it: give the model's number of layers"
        )
    return int(known) if n_layers is None and known is not None else (n_layers or 0) + 1


def _left_out(graph: CircuitGraph, order: Any) -> dict[str, Any]:
    if order is None or len(order) == graph.n_edges:
        return {}
    size = graph.weight.abs().double()
    total = float(size.sum())
    left = 1 - float(size[order].sum()) / total if total else 0.0
    return {"n_links_total": graph.n_edges, "left_out_abs_frac": left}


def _write_pages(path: Path, links: Links, size: int) -> list[dict[str, Any]]:
    """Write all links beyond the first `size` beside the graph; how the graph names those files."""
    pages = []
    for number, start in enumerate(range(size, len(links), size), 2):
        page, stop = path.with_name(f"{path.stem}.links-{number}.json"), min(start + size, len(links))
        _write(page, {}, links, start, stop)
        pages.append({"file": page.name, "n_links": stop - start, "sha256": sha256_file(page)})
    return pages


def _write(path: Path, head: Mapping[str, Any], links: Links, start: int, stop: int) -> None:
    """One file: what stands in `head`, then links [start, stop)."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{\n")
        for name, part in head.items():
            file.write(f"{_text(name)}: {_text(part)},\n")
        file.write('"links": [')
        _write_links(file, links, start, stop)
        file.write("]\n}\n")


def _write_links(file: TextIO, links: Links, start: int, stop: int) -> None:
    for first in range(start, stop, CHUNK_LINKS):
        records = links.records(first, min(first + CHUNK_LINKS, stop))
        file.write(",\n" if first > start else "\n")
        file.write(",\n".join(_text(record) for record in records))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
