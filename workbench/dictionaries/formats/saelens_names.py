"""What the architecture in a SAELens configuration means, and which name a dictionary of ours gets.

    standard, topk, jumprelu, gated                    read and written
    batchtopk, matryoshka_batchtopk                    training checkpoints, read as jumprelu
    [jumprelu_][skip_]transcoder                       ReLU or JumpReLU, read and written

SAELens has no TopK and no gated transcoder. Where input and output are equally wide and there is no skip they
are written as `topk` and `gated` without input centring, which is the same function; otherwise, like GroupMax
and the cross-layer transcoder, under a name that SAELens does not know and refuses: `topk_transcoder`,
`gated_skip_transcoder`, `topk_skip`, `group_max`, ...

Configurations from before version 6 keep everything at the top level and write TopK as an activation
function; `modern` gives them the present form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.registry import FROZEN, find_frozen
from workbench.errors import UserError

PLAIN = ("standard", "topk", "jumprelu", "gated")
TRAINING = {"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu"}
SUFFIXES = ("_skip_transcoder", "_transcoder", "_skip")
KNOWN = (*PLAIN, "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
NOT_READ = {
    "abstopk": "its latents may be negative",
    "matching_pursuit": "its encoder is a loop",
    "temporal": "its codes depend on earlier tokens",
}


@dataclass(frozen=True)
class Kind:
    """What a name means.

    Attributes:
        base: Name of the frozen class.
        transcodes: Whether the output is another activation than the input.
        skip: Whether there is a linear path beside the latents.
    """

    base: str
    transcodes: bool = False
    skip: bool = False

    @property
    def name(self) -> str:
        """The name in `cfg.json`."""
        suffix = ("_skip" if self.skip else "") + ("_transcoder" if self.transcodes else "")
        return suffix[1:] if self.base == "standard" and self.transcodes else self.base + suffix

    @property
    def layered(self) -> bool:
        """Whether the class makes itself of the weights of several layers, of which SAELens has none."""
        return hasattr(find_frozen(self.base), "from_tensors")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors of a class that SAELens has too; see `SHAPES`."""
        biases = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}
        skip = ("W_skip",) if self.skip else ()
        return ("W_enc", "W_dec", "b_dec", *biases.get(self.base, ("b_enc",)), *skip)


def kind_of(name: str, folder: Path) -> Kind:
    """What an architecture's name in a configuration means.

    Raises:
        UserError: it is not known, or known and not read.
    """
    if name in NOT_READ:
        raise UserError(
            f"dictionary {str(folder)!r} is of architecture {name!r}, which is not read: {NOT_READ[name]}"
        )
    name = TRAINING.get(name, name)
    if name in FROZEN:
        return Kind(name)
    for suffix in SUFFIXES:
        base = "standard" + suffix if name == suffix[1:] else name
        if base.endswith(suffix) and base.removesuffix(suffix) in FROZEN:
            return Kind(base.removesuffix(suffix), "transcoder" in suffix, "skip" in suffix)
    find_frozen(name)
    raise AssertionError("find_frozen refuses what is not in FROZEN")


def kind_for(dictionary: Dictionary) -> Kind:
    """What a dictionary is written as; see the module."""
    if "W_dec" not in dictionary.tensors:
        return Kind(dictionary.architecture)
    skip, wide = dictionary.W_skip is not None, dictionary.d_in != dictionary.d_out
    transcodes = wide or (dictionary.is_transcoder and not dictionary.centred)
    kind = Kind(dictionary.architecture, transcodes, skip)
    return kind if kind.name in KNOWN or wide or skip else Kind(dictionary.architecture)


def modern(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration in the form of version 6.

    Raises:
        UserError: it is of before version 6 and asks for another activation function than ReLU and TopK.
    """
    metadata = config.get("metadata") or {}
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 6:
        return dict(config)
    kept = {key: value for key, value in {**config, **metadata}.items() if key in OLD_METADATA}
    found = {
        "architecture": "standard",
        **config,
        "metadata": {"hook_name": config.get("hook_point"), **kept},
    }
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if activation not in ("relu", "topk"):
        raise UserError(
            f"dictionary {str(folder)!r} has activation function {activation!r}, which is not read"
        )
    if activation == "topk" and "activation_fn_kwargs" in config:
        found |= {"architecture": "topk", "k": config["activation_fn_kwargs"].get("k")}
    normalised = config.get("normalize_activations")
    if normalised is None or isinstance(normalised, bool):
        found["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    return found


OLD_METADATA = frozenset(
    "model_name hook_name hook_name_out hook_head_index context_size dataset_path prepend_bos seqpos_slice "
    "model_from_pretrained_kwargs neuronpedia_id sae_lens_training_version workbench".split()
)
