"""Names of hook points in other tools' terms, as far as they say which activation they mean.

A module path of a Hugging Face model stands for the module's output, or for input and output of a module in a
transcoder. `layers.10`, `h.3` and `gpt_neox.layers.3` are the residual stream after a block. A normalised
input of an MLP or of attention is the output of the norm before it, weights included, so that it is the same
in a model whose norms were not folded.

    layers.N          blocks.N.hook_resid_post           transcoder: blocks.N.hook_resid_pre ->
    layers.N.mlp      blocks.N.hook_mlp_out              transcoder: blocks.N.ln2.hook_normalized ->
    layers.N.attn     blocks.N.hook_attn_out             transcoder: blocks.N.ln1.hook_normalized ->

A name that is not recognised is kept as it is: the dictionary then loads, and says what it was called.
"""

from __future__ import annotations

import re

BLOCK = re.compile(r"(?:^|.*\.)(?:layers|h|blocks)\.(\d+)(?:\.(.+))?$")
PARTS = {
    None: ("hook_resid_pre", "hook_resid_post"),
    "mlp": ("ln2.hook_normalized", "hook_mlp_out"),
    **dict.fromkeys(("attn", "attention", "self_attn"), ("ln1.hook_normalized", "hook_attn_out")),
}
SUBMODULE = re.compile(r"(resid_post|resid|mlp|attn|attention)(?:_out)?_?layer_?(\d+)$")


def from_module_path(path: str, *, transcode: bool) -> tuple[str, str | None]:
    """What a dictionary at a module reads, and what it reconstructs if that is something else."""
    found = BLOCK.fullmatch(path)
    if found is None or found[2] not in PARTS:
        return path, path if transcode else None
    before, after = (f"blocks.{found[1]}.{name}" for name in PARTS[found[2]])
    return (before, after) if transcode else (after, None)


def from_submodule_name(name: str) -> str:
    """The hook point of a free name such as `resid_post_layer_8`; the name itself where it is another."""
    found = SUBMODULE.fullmatch(name)
    if found is None:
        return name
    kind = {"mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out"}.get(found[1], "resid_post")
    return f"blocks.{found[2]}.hook_{kind}"
