"""What an intervention acts on: a vector of the stream, a direction in it, a head, neurons, or features.

Every target is a set of coordinates of one value that the model computes, and every action is a change of the
coordinates:

    target                        value (TransformerLens name)      coordinates
    stream, attention, mlp        hook_resid_*, hook_attn_out,      the vector x itself
                                  hook_mlp_out
    direction of one of those     the same                          x . u with |u| = 1;  x' = x + (c' - c) u
    head                          attn.hook_z                       z of the head
    neurons                       mlp.hook_post                     their activations
    features                      the dictionary's hook             f = encode(x);  x' = x + (f' - f) W_dec
    features of a transcoder      hook_mlp_out                      f = encode(what the MLP reads);  x' alike

The features' error is left as it is. Position 0 holds the same token in every prompt and is left out of a
dictionary's training: features are silent there, and are changed there only where position 0 is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy, Edits
from workbench.circuits.sweeps import Reading, read_dictionary
from workbench.circuits.sweeps.sites import feature_values, n_neurons
from workbench.dictionaries import Dictionary
from workbench.errors import UserError, nearest

PARTS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
_NAME = re.compile(
    r"a(?P<a>\d+)(?:\.h(?P<head>\d+))?|m(?P<m>\d+)(?:\.n(?P<neuron>\d+))?|(?P<part>resid_\w+)\.(?P<layer>\d+)"
)


@dataclass(frozen=True, eq=False)
class Target:
    """Coordinates of one value of one layer.

    Attributes:
        kind: "vector", "head", "neuron" or "feature".
        layer: Block index; -1 for features until the model is known.
        part: Of vectors, one of `PARTS`.
        units: Head, neurons or features.
        direction: Of vectors, the unit direction whose coordinate is meant (d_model); None for the whole vector.
        dictionary: Whose features are meant.
        reading: The dictionary joined to the model, once that is known.
    """

    kind: str
    layer: int = -1
    part: str = ""
    units: tuple[int, ...] = ()
    direction: Float[Tensor, " d_model"] | None = None
    dictionary: Dictionary | None = None
    reading: Reading | None = None

    @property
    def hook(self) -> str:
        """TransformerLens name of the value."""
        if self.dictionary is not None:
            return self.dictionary.hook_name_out or self.dictionary.hook_name
        name = {"head": "attn.hook_z", "neuron": "mlp.hook_post"}.get(self.kind, f"hook_{self.part}")
        return f"blocks.{self.layer}.{name}"

    def __str__(self) -> str:
        """A short name: `a1.h3`, `m1.n5`, `resid_post.1`, `features 3, 17`."""
        listed = ", ".join(map(str, self.units))
        if self.kind == "feature":
            return f"features {listed} at {self.hook}"
        if self.kind == "vector":
            short = {"mlp_out": f"m{self.layer}", "attn_out": f"a{self.layer}"}
            name = short.get(self.part, f"{self.part}.{self.layer}")
            return name if self.direction is None else f"{name} direction"
        return f"a{self.layer}.h{listed}" if self.kind == "head" else f"m{self.layer}.n{listed}"

    def width(self, anatomy: Anatomy) -> int:
        """Number of coordinates at one position."""
        if self.kind == "head":
            return anatomy.blocks[self.layer].attn.d_head
        return len(self.units) or (anatomy.d_model if self.direction is None else 1)

    def given(self, anatomy: Anatomy, seen: Mapping[str, Tensor], scales: Edits) -> Tensor | None:
        """What a transcoder reads, from the recorded stream that its MLP reads; None for every other target.

        Args:
            anatomy: The model.
            seen: Recorded values by TransformerLens name.
            scales: Edits that hold norm scales, if any do.
        """
        if self.reading is None or self.reading.reads == "own":
            return None
        block, x, held = (
            anatomy.blocks[self.layer],
            seen[self.reading.source],
            f"blocks.{self.layer}.ln2.hook_scale",
        )
        return self.reading.given(block, x, scales[held](block.ln2.scale(x)) if held in scales else None)

    def read(
        self, value: Tensor, first: int, given: Tensor | None = None
    ) -> Float[Tensor, "*batch pos width"]:
        """The coordinates, from the value at positions `first` and later; a transcoder's from what it reads."""
        if self.kind == "head":
            return value[..., self.units[0], :]
        if self.kind == "neuron":
            return value[..., list(self.units)]
        if self.dictionary is not None:
            found = feature_values(self.dictionary, value if given is None else given, self.units)
            if first == 0:
                found[..., 0, :] = 0
            return found
        return value if self.direction is None else (value @ self.direction.to(value))[..., None]

    def write(self, value: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """The value with its coordinates changed from `old` to `new`."""
        if self.kind in ("head", "neuron"):
            value = value.clone()
            at = (..., self.units[0], slice(None)) if self.kind == "head" else (..., list(self.units))
            value[at] = new
            return value
        if self.dictionary is not None:
            return value + (new - old) @ self.dictionary.W_dec[list(self.units)].to(value)
        return new if self.direction is None else value + (new - old) * self.direction.to(value)


def head(layer: int, index: int) -> Target:
    """One head's output before W_O."""
    return Target("head", layer, units=(index,))


def neurons(layer: int, *indices: int) -> Target:
    """Post-activations of neurons of one MLP."""
    return Target("neuron", layer, units=indices)


def mlp(layer: int) -> Target:
    """What one MLP adds to the stream, after a post-norm."""
    return Target("vector", layer, "mlp_out")


def attention(layer: int) -> Target:
    """What one attention layer adds to the stream, after a post-norm."""
    return Target("vector", layer, "attn_out")


def stream(layer: int, part: str = "resid_post", *, direction: Tensor | None = None) -> Target:
    """The stream at one point, or its coordinate along a direction of any length.

    Raises:
        UserError: an unknown part, or a direction of length 0.
    """
    if part not in PARTS:
        raise UserError(f"part {part!r} is not known; {nearest(part, PARTS)}")
    if direction is None:
        return Target("vector", layer, part)
    size = float(direction.norm())
    if not 0 < size < float("inf"):
        raise UserError(
            f"direction has length {size}, so it points nowhere: give a finite vector that is not 0"
        )
    return Target("vector", layer, part, direction=direction.detach() / size)


def features(dictionary: Dictionary, *indices: int) -> Target:
    """Activations of features of a dictionary.

    Raises:
        UserError: no feature, or an index beyond the dictionary.
    """
    bad = [i for i in indices if not 0 <= i < dictionary.d_sae]
    if bad or not indices:
        what = f"feature {bad[0]} is out of range" if bad else "no feature was named"
        raise UserError(f"{what}: the dictionary of {dictionary.hook_name!r} has 0 to {dictionary.d_sae - 1}")
    return Target("feature", units=indices, dictionary=dictionary)


def target(name: str) -> Target:
    """The target of a node's name: `a1` attention, `a1.h3` head, `m1` MLP, `m1.n5` neuron, `resid_post.1` stream.

    Raises:
        UserError: the name says nothing.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"node {name!r} is not known: write a1, a1.h3, m1, m1.n5 or resid_post.1 (resid_pre, resid_mid), and "
            "use features(dictionary, 3) for features"
        )
    said = {key: value for key, value in match.groupdict().items() if value is not None}
    if "part" in said:
        return stream(int(said["layer"]), said["part"])
    if "a" in said:
        return head(int(said["a"]), int(said["head"])) if "head" in said else attention(int(said["a"]))
    return neurons(int(said["m"]), int(said["neuron"])) if "neuron" in said else mlp(int(said["m"]))


def checked(anatomy: Anatomy, wanted: Target) -> Target:
    """The target, on the model's device.

    Raises:
        UserError: a layer, head or neuron that the model does not have; a direction of another width; a dictionary of
            another model or hook; a part that the architecture lacks.
    """
    if wanted.dictionary is not None:
        reading = read_dictionary(anatomy, wanted.dictionary)
        return replace(wanted, layer=reading.site.layer, dictionary=reading.dictionary, reading=reading)
    _check_index(f"layer {wanted.layer} of node '{wanted}'", wanted.layer, anatomy.n_layers)
    for unit in wanted.units:
        n = anatomy.n_heads if wanted.kind == "head" else n_neurons(anatomy, wanted.layer)
        _check_index(f"{wanted.kind} {unit} of node '{wanted}'", unit, n)
    if wanted.part == "mlp_out" and not anatomy.has_mlp:
        raise UserError(f"node '{wanted}' is an MLP, and this model has attention only")
    if wanted.part == "resid_mid" and anatomy.parallel:
        raise UserError(f"node '{wanted}' does not exist in parallel blocks, whose halves read one stream")
    if wanted.direction is not None and len(wanted.direction) != anatomy.d_model:
        raise UserError(
            f"direction of node '{wanted}' has {len(wanted.direction)} entries, and the stream {anatomy.d_model}"
        )
    return wanted


def _check_index(what: str, index: int, n: int) -> None:
    if not 0 <= index < n:
        raise UserError(f"{what} is out of range: there are {n}, from 0 to {n - 1}")
