"""Pruning of large attribution graphs: influence on the logits, what to keep, the heaviest edges of a stream.

prune.prune_graph(graph)                        # a CircuitGraph, with its share scores before and after
topk.StreamingTopK(k, n_nodes=n).add(...)       # the k heaviest edges, never all of them in memory
"""
