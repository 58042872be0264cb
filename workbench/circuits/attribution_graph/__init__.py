"""Attribution graphs: direct effects between features, errors, tokens and logits of one prompt, exact and verified.

trace_prompt(model, prompt, transcoders)      replacement model, freeze check, effects (`AttributionTrace`)
verify_edges(found), verify_nodes(found)      predicted against intervened, frozen and live
to_graph(found), prune_trace(found)           a `CircuitGraph`; what carries the logits, with share scores
first_hop_loadings, layer_loadings            which heads carry an edge
qk_attribution                                why a head attends, as pairs of nodes
find_supernodes, check_groups                 groups of features, each checked by intervention
trace_many                                    one graph of many prompts, an interval on every edge
"""

from workbench.circuits.attribution_graph.collapse import check_groups, collapsed_graph
from workbench.circuits.attribution_graph.freeze_check import FreezeCheck
from workbench.circuits.attribution_graph.graph import node_name, to_graph
from workbench.circuits.attribution_graph.head_loadings import first_hop_loadings, layer_loadings
from workbench.circuits.attribution_graph.many import trace_many
from workbench.circuits.attribution_graph.qk import qk_attribution
from workbench.circuits.attribution_graph.replacement import Replacement, open_replacement
from workbench.circuits.attribution_graph.scores import prune_trace, trace_scores
from workbench.circuits.attribution_graph.supernodes import Supernodes, find_supernodes
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt
from workbench.circuits.attribution_graph.verify import Verification, verify_edges, verify_nodes

__all__ = [
    "AttributionTrace",
    "FreezeCheck",
    "Replacement",
    "Supernodes",
    "Verification",
    "check_groups",
    "collapsed_graph",
    "find_supernodes",
    "first_hop_loadings",
    "layer_loadings",
    "node_name",
    "open_replacement",
    "prune_trace",
    "qk_attribution",
    "to_graph",
    "trace_many",
    "trace_prompt",
    "trace_scores",
    "verify_edges",
    "verify_nodes",
]
