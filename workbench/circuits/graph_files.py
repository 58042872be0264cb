"""A `CircuitGraph` on disk: `nodes.parquet`, `edges.safetensors` and `meta.json` in one folder.

The folder is whole or absent, and reading it executes nothing. `meta.json` carries the SHA-256 of both other
files, and a folder whose files are not those it was written with is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.artifacts import atomic_folder, read_json, sha256_file, write_json
from workbench.circuits.circuit_graph import CircuitGraph, edge_values
from workbench.errors import UserError

FORMAT = "workbench circuit graph 1"
NODES, EDGES, META = "nodes.parquet", "edges.safetensors", "meta.json"


def save_graph(graph: CircuitGraph, folder: Path) -> None:
    """Write a graph; the folder is replaced as a whole, also within an `atomic_folder` that is being filled."""
    with atomic_folder(folder) as temporary:
        graph.nodes.to_parquet(temporary / NODES, index=False)
        save_file(_tensors(graph), temporary / EDGES)
        write_json(temporary / META, _description(graph, temporary))


def load_graph(folder: Path) -> CircuitGraph:
    """Read a graph that `save_graph` wrote.

    Raises:
        UserError: the folder holds no such graph, or one of its files was changed or damaged.
    """
    said = _read_description(folder)
    _check_files(folder, said["sha256"])
    try:
        tensors = load_file(folder / EDGES)
    except SafetensorError as error:
        raise UserError(
            f"{EDGES} of {folder.name!r} cannot be read ({error}): write the graph again"
        ) from error
    ends = {name: tensors.pop(name).long() for name in ("source", "target")}
    kept = tensors.pop("kept").bool() if "kept" in tensors else None
    nodes = pd.read_parquet(folder / NODES)
    return CircuitGraph(nodes=nodes, **ends, **tensors, kept=kept, unit=said["unit"], meta=said["meta"])


def _tensors(graph: CircuitGraph) -> dict[str, Tensor]:
    ends = {"source": graph.source.to(torch.int32), "target": graph.target.to(torch.int32)}
    values = {n: t.to(torch.uint8) if t.dtype == torch.bool else t for n, t in edge_values(graph).items()}
    return {name: tensor.contiguous() for name, tensor in {**ends, **values}.items()}


def _description(graph: CircuitGraph, folder: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "n_nodes": graph.n_nodes,
        "n_edges": graph.n_edges,
        "unit": graph.unit,
        "meta": dict(graph.meta),
        "sha256": {name: sha256_file(folder / name) for name in (NODES, EDGES)},
    }


def _read_description(folder: Path) -> dict[str, Any]:
    if not (folder / META).is_file():
        raise UserError(f"folder {folder.name!r} has no {META}: give the folder of a saved circuit graph")
    said = read_json(folder / META)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise UserError(f"{META} of {folder.name!r} does not describe a {FORMAT!r}: give the folder of one")
    return said


def _check_files(folder: Path, hashes: dict[str, str]) -> None:
    for name in (NODES, EDGES):
        path = folder / name
        if not path.is_file() or sha256_file(path) != hashes[name]:
            raise UserError(
                f"{name} of {folder.name!r} is absent or not the file that was written: write the graph again"
            )
