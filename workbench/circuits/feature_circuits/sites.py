"""Dictionaries at any set of sites of a model, in the order in which the model computes them.

A site is a place where a vector of the residual stream's width is written or stands: the token embedding
(`hook_embed`), what attention or an MLP adds (`hook_attn_out`, `hook_mlp_out`, after a post-norm), or the
stream itself (`hook_resid_pre`, `hook_resid_mid`, `hook_resid_post`). At each site

    x = decode(encode(x)) + error

with one node for every active feature and position and one error node for every position. The first `n_bos`
positions hold the same token in every prompt and are left out of dictionary training, so there everything
belongs to the error.

Edges need the gradient of a feature in its input. For an active feature of every autoencoder here that is one
row, its encoder column (times the gain of a gated dictionary); `open_sites` compares it with the dictionary's
own codes and refuses where it is not so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edit
from workbench.circuits.nodes import Site, site_of_hook
from workbench.dictionaries import Dictionary
from workbench.errors import UserError, nearest
from workbench.hooks import capture_forward

EMBED_HOOK = "hook_embed"
N_PROBE, PROBE_STEP, LINEAR_TOLERANCE, HOOK_TOLERANCE = 8, 1e-2, 1e-3, 1e-4


@dataclass(frozen=True, eq=False)
class FeatureSite:
    """One dictionary at its place.

    Attributes:
        site: Its hook, layer (-1 for the embedding), depth, and whether it is the stream itself.
        dictionary: What splits the activation there.
        reads: Gradient of an active feature in the activation (d_sae, d_model).
        name: Short and unique: `embed`, `attn_out2`, `resid_post0`.
    """

    site: Site
    dictionary: Dictionary
    reads: Float[Tensor, "d_sae d_model"]
    name: str

    @property
    def order(self) -> tuple[int, bool]:
        """Sorts sites by computation: a write comes before the stream that holds it."""
        return self.site.depth, self.site.is_stream


class FeatureSites:
    """The sites of a feature circuit.

    Attributes:
        anatomy: The model.
        sites: In the order of computation.
        n_bos: Number of first positions whose activation belongs to the error alone.
    """

    def __init__(self, anatomy: Anatomy, sites: Sequence[FeatureSite], *, n_bos: int = 1) -> None:
        self.anatomy, self.n_bos = anatomy, n_bos
        self.sites = tuple(sorted(sites, key=lambda s: s.order))
        self._position_parts: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[FeatureSite]:
        return iter(self.sites)

    def __getitem__(self, index: int) -> FeatureSite:
        return self.sites[index]

    def index(self, hook: str) -> int:
        """The number of the site at a hook (or of a short name).

        Raises:
            UserError: no dictionary is there.
        """
        names = {key: i for i, s in enumerate(self.sites) for key in (s.name, s.site.hook)}
        if hook not in names:
            raise UserError(f"site {hook!r} has no dictionary here; {nearest(hook, names)}")
        return names[hook]

    def position_part(self, length: int) -> Float[Tensor, "pos d_model"]:
        """What the model adds to the token embeddings at depth 0; the same for all tokens."""
        ids = torch.zeros(1, length, dtype=torch.long, device=self.anatomy.device)
        return (self.anatomy.embed(ids) - capture_forward(self.anatomy.model, ids, [EMBED_HOOK])[EMBED_HOOK])[
            0
        ]

    def upstream(self, target: int) -> range:
        """Sites with a direct path to site `target` (`len(self)` for the metric).

        The nearest stream site before it, if any, and the writes after that one.
        """
        streams = [i for i in range(target) if self.sites[i].site.is_stream]
        return range(streams[-1] if streams else 0, target)


def open_sites(anatomy: Anatomy, dictionaries: Sequence[Dictionary], *, n_bos: int = 1) -> FeatureSites:
    """Dictionaries at their hooks of a model.

    Args:
        anatomy: The model.
        dictionaries: Autoencoders, at most one for a place.
        n_bos: Number of first positions that dictionaries were not trained on.

    Raises:
        UserError: none given, a transcoder or crosscoder, a dictionary of another model, hook or width, two at one
            place, or codes that are not linear in the activation.
    """
    if not dictionaries:
        raise UserError("dictionaries is empty: a feature circuit needs a dictionary at one site at least")
    _check_model(anatomy, dictionaries)
    found = [_open(anatomy, dictionary) for dictionary in dictionaries]
    _check_places(anatomy, found)
    sites = FeatureSites(anatomy, found, n_bos=n_bos)
    _check_hooks(sites)
    return sites


def reading_rows(dictionary: Dictionary) -> Float[Tensor, "d_sae d_in"]:
    """Gradient of each feature in the activation where it is active. Status: exact (see `open_sites`)."""
    rows, gain = dictionary.W_enc.T, dictionary.tensors.get("r_mag")
    return rows if gain is None else rows * gain.exp()[:, None]


def _open(anatomy: Anatomy, dictionary: Dictionary) -> FeatureSite:
    if dictionary.is_transcoder or dictionary.sites:
        raise UserError(
            f"the dictionary of {dictionary.hook_name!r} does not reconstruct the one activation that it reads "
            "(a transcoder or crosscoder): feature circuits need autoencoders, use an attribution graph instead"
        )
    site = _site(anatomy, dictionary.hook_name)
    dictionary.check_width(anatomy.d_model)
    like = anatomy.readout.W_U
    dictionary = replace(dictionary, **{name: tensor.to(like) for name, tensor in dictionary.tensors.items()})
    rows = reading_rows(dictionary)
    _check_linear(dictionary, rows)
    return FeatureSite(site, dictionary, rows, _short(site))


def _site(anatomy: Anatomy, hook: str) -> Site:
    site = Site(hook, -1, 0, False) if hook == EMBED_HOOK else site_of_hook(anatomy.model, hook)
    if anatomy.parallel and hook.endswith("hook_resid_mid"):
        raise UserError(
            f"hook {hook!r} does not exist in parallel blocks: use hook_resid_pre or hook_resid_post"
        )
    return site


def _short(site: Site) -> str:
    return "embed" if site.hook == EMBED_HOOK else f"{site.hook.rsplit('hook_', 1)[1]}{site.layer}"


def _check_model(anatomy: Anatomy, dictionaries: Sequence[Dictionary]) -> None:
    from workbench.models import model_hash

    trained = {d.hook_name: d.metadata["model_hash"] for d in dictionaries if d.metadata.get("model_hash")}
    own = model_hash(anatomy.model) if trained else ""
    for hook, wanted in trained.items():
        if wanted != own:
            raise UserError(
                f"the dictionary of {hook!r} was trained on the model {wanted[:12]}, and this one is {own[:12]}: "
                "features mean nothing in another model, load the dictionary's own"
            )


def _check_places(anatomy: Anatomy, sites: Sequence[FeatureSite]) -> None:
    """Two dictionaries at one hook, or at two names of one point of the stream, cannot both be nodes."""
    taken: dict[object, str] = {}
    for s in sites:
        place = s.site.depth if s.site.is_stream else s.site.hook
        if place in taken:
            raise UserError(
                f"dictionaries at {taken[place]!r} and {s.site.hook!r} split the same vector: give one of them"
            )
        taken[place] = s.site.hook


@torch.no_grad()
def _check_hooks(sites: FeatureSites) -> None:
    """The bridge's value at each hook is what the anatomy replaces there."""
    anatomy = sites.anatomy
    length = min(N_PROBE, int(getattr(anatomy.model.cfg, "n_ctx", 0) or N_PROBE))
    n_tokens = int(anatomy.model.cfg.d_vocab)
    ids = torch.randint(0, n_tokens, (2, length), generator=torch.Generator().manual_seed(0)).to(
        anatomy.device
    )
    theirs = capture_forward(anatomy.model, ids, [s.site.hook for s in sites])
    ours = activations(sites, ids)
    for s, own in zip(sites, ours, strict=True):
        error = float((own - theirs[s.site.hook]).abs().max()) / max(1.0, float(own.abs().max()))
        if not error <= HOOK_TOLERANCE:
            raise UserError(
                f"hook {s.site.hook!r} of this model is not what is added to its residual stream (they differ by "
                f"{error:.1e} of its size): a dictionary there is no site of a feature circuit"
            )


@torch.no_grad()
def activations(
    sites: FeatureSites, ids: Int[Tensor, "prompt pos"]
) -> list[Float[Tensor, "prompt pos d_model"]]:
    """The activation at every site."""
    embedded, seen = sites.anatomy.embed(ids), dict[str, list[Tensor]]()
    for at in sites:
        seen[at.site.hook] = (
            [embedded - sites.position_part(ids.shape[1])] if at.site.hook == EMBED_HOOK else []
        )
    sites.anatomy.run(embedded, edits={name: catching(caught) for name, caught in seen.items() if not caught})
    return [seen[at.site.hook][0] for at in sites]


def catching(caught: list[Tensor]) -> Edit:
    """An edit that changes nothing and appends the value that it sees."""
    return lambda value: (caught.append(value), value)[1]


@torch.no_grad()
def _check_linear(dictionary: Dictionary, rows: Float[Tensor, "d_sae d_in"]) -> None:
    """A small step along a random direction changes each feature that stays active by row . step."""
    generator = torch.Generator().manual_seed(0)
    x, step = (torch.randn(N_PROBE, dictionary.d_in, generator=generator).to(rows) for _ in range(2))
    x, step = x + dictionary.b_pre, PROBE_STEP * step
    before, after = (_dense(dictionary, y) for y in (x, x + step))
    both = (before > 0) & (after > 0)
    error = ((after - before - step @ rows.T) * both).abs().max()
    size = (step @ rows.T * both).abs().max().clamp_min(1e-6)
    if float(error / size) > LINEAR_TOLERANCE:
        raise UserError(
            f"active features of the {dictionary.architecture} dictionary of {dictionary.hook_name!r} are not linear "
            "in the activation, so edges into them cannot be computed: use a ReLU, TopK, JumpReLU or gated one"
        )


def _dense(dictionary: Dictionary, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_sae"]:
    indices, values = dictionary.encode(x)
    return x.new_zeros(len(x), dictionary.d_sae).scatter_add_(1, indices, values)
