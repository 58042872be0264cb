"""Which value a dictionary reads, and where its features write: an autoencoder's own hook, or across an MLP.

    autoencoder     reads and writes one vector of the stream or one block half's output
    transcoder      reads what its MLP reads, writes what the MLP adds to the stream
                    normed       the normalised input, weight and bias applied
                    unweighted   the same without weight and bias
                    stream       the stream itself

Hook names show other tensors from architecture to architecture (`ln2.hook_normalized` is `unweighted` on Hugging
Face models and `normed` on native ones), so what a transcoder reads is found by comparing values on a probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy, Block, recorder
from workbench.circuits.nodes import Site, site_of_hook
from workbench.circuits.observation import Activations
from workbench.circuits.split import activation_at
from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.hooks import capture_forward, check_hook
from workbench.models import model_hash

INPUTS = ("normed", "unweighted", "stream")
_TOLERANCE = 1e-3
_PROBE_TOKENS = 8


@dataclass(frozen=True, eq=False)
class Reading:
    """A dictionary joined to a model.

    Attributes:
        dictionary: The dictionary.
        site: Where its features write.
        reads: "own" for an autoencoder, else one of `INPUTS`.
        source: TransformerLens name of the value from which `given` makes what the dictionary reads.
    """

    dictionary: Dictionary
    site: Site
    reads: str
    source: str

    def given(
        self, block: Block, x: Float[Tensor, "*batch pos d_model"], scale: Tensor | None = None
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What the dictionary reads, from the value at `source`; `scale` is a frozen scale of the MLP's norm."""
        return x if self.reads == "own" else mlp_input(block, x, scale, self.reads)

    def on(self, anatomy: Anatomy, seen: Activations) -> Float[Tensor, "prompt pos d_model"]:
        """What the dictionary reads in one run."""
        if self.reads == "own":
            return activation_at(seen, self.site)
        block = anatomy.blocks[self.site.layer]
        return self.given(block, seen.resid[2 * block.layer + (0 if block.parallel else 1)])


def mlp_input(
    block: Block, x: Float[Tensor, "*batch pos d_model"], scale: Tensor | None, kind: str
) -> Float[Tensor, "*batch pos d_model"]:
    """The input of a block's MLP as one of `INPUTS`, from the stream that it reads."""
    if kind == "normed":
        return block.ln2(x, scale)
    if kind == "stream":
        return x
    centred = x - x.mean(-1, keepdim=True) if block.ln2.centred else x
    return centred / (block.ln2.scale(x) if scale is None else scale)


def read_dictionary(anatomy: Anatomy, dictionary: Dictionary | None) -> Reading:
    """How a dictionary is joined to this model.

    Raises:
        UserError: none was given; it has several sites; another hook, width or model than this one's; a transcoder
            that does not read its own MLP's input.
    """
    if dictionary is None:
        raise UserError("no dictionary was given: features are those of a dictionary, so pass dictionary=")
    if dictionary.sites:
        raise UserError(
            f"the dictionary of {dictionary.hook_name!r} has several sites: its features write to all of them at "
            "once, so give one of a single hook point"
        )
    site = site_of_hook(anatomy.model, dictionary.hook_name_out or dictionary.hook_name)
    dictionary.check_width(anatomy.d_model)
    _check_model(anatomy, dictionary)
    dictionary = replace(dictionary, **{name: t.to(anatomy.device) for name, t in dictionary.tensors.items()})
    if not dictionary.is_transcoder:
        return Reading(dictionary, site, "own", site.hook)
    part = "hook_resid_pre" if anatomy.blocks[site.layer].parallel else "hook_resid_mid"
    source = f"blocks.{site.layer}.{part}"
    return Reading(dictionary, site, _input_kind(anatomy, dictionary, site, source), source)


def _check_model(anatomy: Anatomy, dictionary: Dictionary) -> None:
    trained_on = dictionary.metadata.get("model_hash")
    found = model_hash(anatomy.model) if trained_on else None
    if trained_on != found:
        raise UserError(
            f"the dictionary of {dictionary.hook_name!r} was trained on a model with weights {str(trained_on)[:12]}, "
            f"and this one has {str(found)[:12]}: use the dictionary's own model"
        )


@torch.no_grad()
def _input_kind(anatomy: Anatomy, dictionary: Dictionary, site: Site, source: str) -> str:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, int(anatomy.model.cfg.d_vocab), (1, _PROBE_TOKENS), generator=generator)
    name = check_hook(anatomy.model, dictionary.hook_name)
    value = capture_forward(anatomy.model, ids.to(anatomy.device), [name])[name]
    seen, keep = recorder()
    anatomy.run(anatomy.embed(ids.to(anatomy.device)), stop=2 * site.layer + 2, edits={source: keep(source)})
    if site.hook.endswith("hook_mlp_out"):
        for kind in INPUTS:
            wanted = mlp_input(anatomy.blocks[site.layer], seen[source], None, kind)
            if float((value - wanted).abs().max()) <= _TOLERANCE * float(wanted.abs().max()):
                return kind
    raise UserError(
        f"the dictionary of {dictionary.hook_name!r} writes to {site.hook!r} but does not read that MLP's input: give "
        "a transcoder of one MLP, or a dictionary that reconstructs its own hook point"
    )
