"""The validator of exchange graphs: what a file must hold before anything is read from it or written to it.

Checked are keys and types, names (unique, and never markup), layers, positions, numbers, links (their ends are
nodes, none is doubled, none closes a cycle) and the saved state (pins, supernodes, attention tracing). Labels and
tokens are text for people: any string is kept as it is, and whoever shows one escapes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workbench.circuits.circuit_graph import check_id
from workbench.circuits.exchange.checks import is_number, is_whole, need, need_list, need_text, shown
from workbench.circuits.exchange.names import KIND_OF
from workbench.circuits.pruning.order import sinks_first
from workbench.errors import UserError, nearest

NODE_KEYS = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")
METADATA_KEYS = ("slug", "scan", "prompt_tokens", "prompt")
NUMBERS = ("influence", "activation", "token_prob")
LINK_NUMBERS = ("intervened", "low", "high")
EMBEDDING = "E"
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_LAYER = re.compile(r"\d{1,5}")
_QK_LISTS = {"pair_wise_contributors": 2, "top_q_marginal_contributors": 1, "top_k_marginal_contributors": 1}


def validate_graph(graph: Mapping[str, Any], *, n_layers: int | None = None) -> None:
    """Check a graph against the exchange schema, ours or another tool's.

    Args:
        graph: The parsed JSON.
        n_layers: Layers of the model, when nodes of other layers should be found.

    Raises:
        UserError: whatever the schema forbids; the sentence names the node or link.
    """
    need(graph, ("metadata", "qParams", "nodes", "links"), "the graph")
    validate_parts(graph, n_layers=n_layers)
    validate_links(need_list(graph["links"], "links"), [node["node_id"] for node in graph["nodes"]])


def validate_parts(graph: Mapping[str, Any], *, n_layers: int | None = None) -> None:
    """Check everything but the links; arguments and refusals as for `validate_graph`."""
    _check_metadata(graph["metadata"])
    n_ctx = len(graph["metadata"]["prompt_tokens"])
    nodes = need_list(graph["nodes"], "nodes")
    for node in nodes:
        _check_node(node, n_ctx=n_ctx, n_layers=n_layers)
    count = Counter(node["node_id"] for node in nodes)
    twice = next((name for name, n in count.items() if n > 1), None)
    if twice is not None:
        raise UserError(
            f"node_id {twice!r} occurs {count[twice]} times: an id names one node, rename the others"
        )
    need(graph["qParams"], (), "qParams")
    _check_state(graph["qParams"], count.keys())
    _check_attention(graph, count.keys(), n_ctx=n_ctx, n_layers=n_layers)


def validate_links(links: list[Any], ids: list[str]) -> None:
    """Check that links join known nodes once each, without a cycle, with weights that are numbers."""
    rows = {name: row for row, name in enumerate(ids)}
    for link in links:
        _check_link(link, rows)
    ends = [np.array([rows[link[end]] for link in links], dtype=np.int64) for end in ("source", "target")]
    key, count = np.unique(ends[0] * max(1, len(ids)) + ends[1], return_counts=True)
    if (count > 1).any():
        source, target = divmod(int(key[np.argmax(count > 1)]), len(ids))
        raise UserError(f"link {ids[source]!r} -> {ids[target]!r} occurs {count.max()} times: give their sum")
    sinks_first(ends[0], ends[1], len(ids), names=ids)


def layer_of(layer: str | int) -> int:
    """The schema's layer as a number; -1 for embeddings."""
    return -1 if layer == EMBEDDING else int(layer)


def _check_metadata(metadata: Any) -> None:
    need(metadata, METADATA_KEYS, "metadata")
    for key in ("scan", "prompt"):
        need_text(metadata[key], f"metadata.{key}")
    if not SLUG.fullmatch(need_text(metadata["slug"], "metadata.slug")):
        raise UserError(
            f"metadata.slug {shown(metadata['slug'])} is no file name: use 1 to 128 letters, digits and _ . -, "
            "first a letter or a digit"
        )
    for token in need_list(metadata["prompt_tokens"], "metadata.prompt_tokens"):
        need_text(token, "a token of metadata.prompt_tokens")


def _check_node(node: Any, *, n_ctx: int, n_layers: int | None) -> None:
    need(node, NODE_KEYS, f"node {shown(node.get('node_id')) if isinstance(node, dict) else shown(node)}")
    check_id(node["node_id"])
    name = node["node_id"]
    check_id(node["jsNodeId"], what=f"jsNodeId of node {name!r}")
    need_text(node["clerp"], f"clerp of node {name!r}")
    feature, context = node["feature"], node["ctx_idx"]
    if feature is not None and not is_whole(feature):
        raise UserError(f"feature of node {name!r} is {shown(feature)}: give a whole number or null")
    if not is_whole(context) or not 0 <= context < max(1, n_ctx):
        raise UserError(
            f"ctx_idx of node {name!r} is {shown(context)}: the prompt has positions 0 to {n_ctx - 1}"
        )
    for key in NUMBERS:
        if node.get(key) is not None and not is_number(node[key]):
            raise UserError(f"{key} of node {name!r} is {shown(node[key])}: give a finite number or null")
    _check_place(node, n_layers)


def _check_place(node: dict[str, Any], n_layers: int | None) -> None:
    name, layer, kind = node["node_id"], node["layer"], node["feature_type"]
    if not isinstance(kind, str) or kind not in KIND_OF:
        raise UserError(f"feature_type of node {name!r} is {shown(kind)}; {nearest(str(kind), KIND_OF)}")
    known = is_whole(layer) or isinstance(layer, str)
    if not known or not (layer == EMBEDDING or _LAYER.fullmatch(str(layer))):
        raise UserError(
            f"layer of node {name!r} is {shown(layer)}: give {EMBEDDING!r} for an embedding or a number from 0"
        )
    last = None if n_layers is None else n_layers + 1 if kind == "logit" else n_layers - 1
    if last is not None and layer_of(layer) > last:
        raise UserError(f"layer {layer_of(layer)} of node {name!r} is not in a model of {n_layers} layers")


def _check_link(link: Any, known: Mapping[str, int]) -> None:
    need(link, ("source", "target", "weight"), "a link")
    called = f"link {shown(link['source'])} -> {shown(link['target'])}"
    for end in ("source", "target"):
        if not isinstance(link[end], str) or link[end] not in known:
            raise UserError(f"{called}: its {end} is no node of the graph, add it")
    if not is_number(link["weight"]):
        raise UserError(f"{called} has weight {shown(link['weight'])}: give a number")
    for key in LINK_NUMBERS:
        if link.get(key) is not None and not is_number(link[key]):
            raise UserError(f"{key} of {called} is {shown(link[key])}: give a number or null")


def _check_state(parameters: dict[str, Any], known: Iterable[str]) -> None:
    named = list(need_list(parameters.get("pinnedIds") or [], "qParams.pinnedIds"))
    for group in need_list(parameters.get("supernodes") or [], "qParams.supernodes"):
        label, *members = need_list(group, "a supernode") or [None]
        need_text(label, "the label of a supernode")
        named += members
    named += [parameters["clickedId"]] if parameters.get("clickedId") else []
    present = set(known)
    lost = next((i for i in named if not isinstance(i, str) or i not in present), None)
    if lost is not None:
        raise UserError(
            f"qParams names node {shown(lost)}, which is not in the graph: pin nodes of the graph only"
        )


def _check_attention(
    graph: Mapping[str, Any], known: Iterable[str], *, n_ctx: int, n_layers: int | None
) -> None:
    others = graph.get("qk_only_nodes") or {}
    need(others, (), "qk_only_nodes")
    for name in others:
        check_id(name, what="a name of qk_only_nodes")
    present = {*known, *others}
    for node in graph["nodes"]:
        results = node.get("qk_tracing_results")
        if results is not None:
            _check_tracing(results, present, f"qk_tracing_results of node {node['node_id']!r}")


def _check_tracing(results: Any, present: set[str], what: str) -> None:
    need(results, (), what)
    for key, n_names in _QK_LISTS.items():
        for entry in need_list(results.get(key, []), f"{key} of {what}"):
            right = isinstance(entry, list) and len(entry) == n_names + 1 and is_number(entry[-1])
            if not right or not all(isinstance(n, str) and n in present for n in entry[:-1]):
                raise UserError(
                    f"an entry of {key} of {what} is {shown(entry)}: give {n_names} node ids of the graph and a number"
                )
