"""Compile the programs with Tracr, once, into `data/testbeds/tracr`.

    python workbench/testbeds/tracr/compile_programs.py --target data/testbeds/tracr

Needs Tracr (github.com/google-deepmind/tracr, 2024-02-05) with jax 0.10.2, dm-haiku 0.0.17, chex 0.1.92,
networkx 3.6.1, numpy 2.4.6, and safetensors, in an environment of its own; nothing here is imported by the
workbench.

**Weights.** Almost all are 0, so each program is stored as the flat places and values of the others.

**True edges.** Every head and MLP of Tracr's craft graph says which variables it reads and writes. A reader
reads a variable where its weights differ between two of the variable's values (for a number: are not 0),
beginning and padding left out. A variable varies if the program, run in RASP on `N_SAMPLED` prompts or more
spread over all of its length, gives it different values. True edges carry a varying variable to a reader that
reads it, on a path to the output.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PARTS = {"attn/query": "attn.q", "attn/key": "attn.k", "attn/value": "attn.v", "attn/linear": "attn.o",
         "mlp/linear_1": "mlp.fc_in", "mlp/linear_2": "mlp.fc_out"}  # fmt: skip
SPECIAL = ("compiler_bos", "compiler_pad")
N_SAMPLED = 300


class Component(NamedTuple):
    """A head or an MLP: its name, which variables each input reads, and which it writes."""

    name: str
    reads: dict[str, set[str]]
    writes: set[str]


class Compiled(NamedTuple):
    """Tracr's model, its craft graph, and its components."""

    model: Any
    graph: Any
    sink: Any
    components: list[Component]


def _module(name: str) -> Any:
    return importlib.import_module(f"tracr.{name}")


def compile_program(make: Any, vocabulary: tuple[Any, ...], length: int, causal: bool) -> Compiled:
    """As `compile_rasp_to_model`, but keeps the graph."""
    program = make()
    extracted = _module("compiler.rasp_to_graph").extract_rasp_graph(program)
    graph, sources, sink = extracted.graph, extracted.sources, extracted.sink
    _module("compiler.basis_inference").infer_bases(graph, sink, set(vocabulary), length)
    bos = _module("craft.bases").BasisDirection("tokens", SPECIAL[0])
    _module("compiler.expr_to_craft_graph").add_craft_components_to_rasp_graph(graph, bos_dir=bos)
    to_model = _module("compiler.craft_graph_to_model")
    allocation = dict(to_model._allocate_modules_to_layers(graph, sources))
    craft = to_model.craft_graph_to_model(graph, sources)
    model = _module("compiler.craft_model_to_transformer").craft_model_to_transformer(
        craft_model=craft, graph=graph, sink=sink, max_seq_len=length, compiler_bos=SPECIAL[0],
        compiler_pad=SPECIAL[1], causal=causal,
    )  # fmt: skip
    return Compiled(model, graph, sink, list(_components(graph, craft, allocation)))


def _components(graph: Any, craft: Any, allocation: dict[str, int]) -> Iterator[Component]:
    """Every head and every MLP of the graph, by the names of the assembled model."""
    _, modules = _module("compiler.assemble")._get_model_config_and_module_names(craft)
    places = sorted(n for node, low in allocation.items() for n in _halves(graph, node, low))
    layer = {p: int(m.split("_")[1].split("/")[0]) for p, m in zip(sorted(set(places)), modules, strict=True)}
    n_heads: dict[int, int] = {}
    for node, low in allocation.items():
        block = graph.nodes[node]["MODEL_BLOCK"]
        for place, part in zip(_halves(graph, node, low), getattr(block, "blocks", [block]), strict=True):
            if hasattr(part, "w_qk"):
                head = n_heads[place] = n_heads.get(place, -1) + 1
                yield _head(f"a{layer[place]}.h{head}", part)
            else:
                read = _read(part.fst.input_space, part.fst.matrix)
                # What it reads it only clears at the beginning token, by a constant.
                written = _names(part.snd.output_space) - read
                yield Component(f"m{layer[place]}", {f"m{layer[place]}": read}, written)


def _halves(graph: Any, node: str, low: int) -> list[int]:
    """Half-layers that a node takes: two for a selector width, else one."""
    return [low, low + 1] if hasattr(graph.nodes[node]["MODEL_BLOCK"], "blocks") else [low]


def _head(name: str, head: Any) -> Component:
    reads = {
        f"{name}.q": _read(head.w_qk.left_space, head.w_qk.matrix),
        f"{name}.k": _read(head.w_qk.right_space, head.w_qk.matrix.T),
        f"{name}.v": _read(head.w_ov.input_space, head.w_ov.matrix),
    }
    return Component(name, reads, _names(head.w_ov.output_space))


def _names(space: Any) -> set[str]:
    return {direction.name for direction in space.basis}


def _read(space: Any, matrix: np.ndarray) -> set[str]:
    """Variables on whose value the rows of a matrix depend."""
    rows: dict[str, list[np.ndarray]] = {}
    for direction, row in zip(space.basis, np.asarray(matrix), strict=True):
        if direction.value not in SPECIAL:
            rows.setdefault(direction.name, []).append(row)
    # A number has one direction, and its other value is 0.
    spread = {name: np.ptp([*r, np.zeros_like(r[0])] if len(r) == 1 else r, 0) for name, r in rows.items()}
    return {name for name, values in spread.items() if np.any(values > 0)}


def varying(compiled: Compiled, vocabulary: tuple[Any, ...], length: int) -> set[str]:
    """Variables that are not the same for all prompts of the length."""
    found = {"tokens"}
    prompts = [list(p) for p in itertools.product(vocabulary, repeat=length)]
    sampled = prompts[:: max(1, len(prompts) // N_SAMPLED)]
    for label, node in compiled.graph.nodes.items():
        if "OUTPUT_BASIS" in node and len({repr(node["EXPR"](p)) for p in sampled}) > 1:
            found |= {d.name for d in node["OUTPUT_BASIS"]} | {label}
    return found | _inner(compiled, found)


def _inner(compiled: Compiled, found: set[str]) -> set[str]:
    """Numbers between the two halves of a selector width, which vary with what it gives."""
    known = {d.name for n in compiled.graph.nodes.values() for d in n.get("OUTPUT_BASIS", ())}
    inner: set[str] = set()
    for head in compiled.components:
        for name in head.writes - known:
            readers = [c for c in compiled.components if any(name in r for r in c.reads.values())]
            inner |= {name} if any(reader.writes & found for reader in readers) else set()
    return inner


def true_edges(compiled: Compiled, varies: set[str]) -> list[tuple[str, str]]:
    """(writer, reader) that carry a varying variable on a path to the output."""
    writers = [("embed", {"tokens"})] + [(c.name, c.writes) for c in compiled.components]
    needed = {d.name for d in compiled.sink["OUTPUT_BASIS"]}
    edges = {(w, "logit") for w, written in writers if written & needed & varies}
    todo = [c for c in compiled.components if c.writes & needed & varies]
    while todo:
        component = todo.pop()
        for reader, read in component.reads.items():
            edges |= {(w, reader) for w, written in writers if written & read & varies}
            todo += [c for c in compiled.components if c.writes & read & varies]
    return sorted(edges)


def weights(compiled: Compiled) -> dict[str, np.ndarray]:
    """By the names of the native model of TransformerLens."""
    model = compiled.model
    labels = {label: i for i, label in enumerate(model.residual_labels)}
    params, config = model.params, model.model_config
    found = {"tok_embed.weight": params["token_embed"]["embeddings"]}
    found["pos.weight"] = params["pos_embed"]["embeddings"]
    for layer, (theirs, ours) in itertools.product(range(config.num_layers), PARTS.items()):
        module = params[f"transformer/layer_{layer}/{theirs}"]
        found[f"layers.{layer}.{ours}.weight"] = np.asarray(module["w"]).T
        found[f"layers.{layer}.{ours}.bias"] = module["b"]
    basis = compiled.sink["OUTPUT_BASIS"]
    head = np.zeros((len(basis), len(labels)))
    for direction in basis:
        head[model.output_encoder.encoding_map[direction.value], labels[str(direction)]] = 1
    return {name: np.asarray(w, dtype=np.float32) for name, w in {**found, "head.weight": head}.items()}


def about(compiled: Compiled, tensors: dict[str, np.ndarray], program: Any) -> dict[str, Any]:
    """What the JSON file says of a program."""
    model, config = compiled.model, compiled.model.model_config
    varies = varying(compiled, program.vocabulary, program.length)
    tokens, outputs = model.input_encoder.encoding_map, model.output_encoder.encoding_map
    return {
        "shape": {
            "n_layers": config.num_layers, "n_heads": config.num_heads, "d_head": config.key_size,
            "d_mlp": config.mlp_hidden_size, "d_model": len(model.residual_labels),
            "n_ctx": program.length + 1, "d_vocab": len(tokens), "d_vocab_out": len(outputs),
            "attention_dir": "causal" if program.causal else "bidirectional",
        },
        "vocabulary": sorted(tokens, key=tokens.get),
        "outputs": sorted(outputs, key=outputs.get),
        "beginning": SPECIAL[0],
        "residual_labels": model.residual_labels,
        "edges": true_edges(compiled, varies),
        "sizes": {name: list(w.shape) for name, w in tensors.items()},
    }  # fmt: skip


def main() -> None:
    """Compile all programs and write one safetensors and one JSON file."""
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="folder to write to")
    target = parser.parse_args().target
    records, stored = {}, {}
    for name, program in importlib.import_module("programs").PROGRAMS.items():
        compiled = compile_program(*program)
        tensors = weights(compiled)
        records[name] = about(compiled, tensors, program)
        flat = np.concatenate([tensors[n].ravel() for n in sorted(tensors)])
        places = np.flatnonzero(flat)
        stored |= {f"{name}.places": places.astype(np.int32), f"{name}.values": flat[places]}
    save_file(stored, target / "programs.safetensors")
    (target / "programs.json").write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
