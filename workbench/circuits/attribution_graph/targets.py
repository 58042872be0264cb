"""What an attribution graph explains: features' pre-activations, logits, or any direction read anywhere.

    feature     activation of t = encoder_t . (what the transcoder reads), where t is active
    logit       (W_U[:, v] - mean over the vocabulary) . ln_final(x), the soft cap bypassed
    difference  (W_U[:, v] - W_U[:, w]) . ln_final(x)
    direction   any vector at the stream of any depth and position

A target is a depth, a position and a vector at the stream there, already pulled through the frozen norm. The
logits of a prompt are by default the smallest set whose probabilities sum to 0.95, at most 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.linear_run import constant_streams
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.errors import UserError

MASS_FRAC, MAX_LOGITS = 0.95, 10


@dataclass(frozen=True, eq=False)
class Targets:
    """Linear readers of the stream.

    Attributes:
        depth: Depth of the stream that each reads.
        pos: Position.
        vectors: At the stream; what a reader gets is its product with the stream there, and `bias`.
        bias: What it reads of a stream of zeros.
        constant: What it reads when every node writes nothing, `bias` included.
    """

    depth: Int[Tensor, " target"]
    pos: Int[Tensor, " target"]
    vectors: Float[Tensor, "target d_model"]
    bias: Float[Tensor, " target"]
    constant: Float[Tensor, " target"]

    def __len__(self) -> int:
        return len(self.depth)

    def read(self, streams: Sequence[Float[Tensor, "*batch pos d_model"]]) -> Float[Tensor, "*batch target"]:
        """What each target reads of streams at every depth. Status: exact with norms frozen."""
        rows = [streams[int(d)][..., int(p), :] for d, p in zip(self.depth, self.pos, strict=True)]
        return (torch.stack(rows, -2) * self.vectors).sum(-1) + self.bias

    def take(self, rows: Int[Tensor, " some"]) -> Targets:
        """Some of the targets."""
        return Targets(*(t[rows] for t in (self.depth, self.pos, self.vectors, self.bias, self.constant)))


def join(parts: Sequence[Targets]) -> Targets:
    """Targets one after another."""
    return Targets(
        *(torch.cat([getattr(p, n) for p in parts]) for n in ("depth", "pos", "vectors", "bias", "constant"))
    )


@dataclass(frozen=True, eq=False)
class FeatureTargets:
    """Active features as targets, whose vectors are made when they are asked for.

    Attributes:
        replacement: The replacement model.
        rows: Their numbers among the sources.
    """

    replacement: Replacement
    rows: Int[Tensor, " target"]
    _constants: list[Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def depth(self) -> Int[Tensor, " target"]:
        """Depth of the stream that each reads."""
        layer = self.replacement.sources.active.layer[self.rows]
        return 2 * layer + (0 if self.replacement.anatomy.parallel else 1)

    @property
    def pos(self) -> Int[Tensor, " target"]:
        """Position of each."""
        return self.replacement.sources.active.pos[self.rows]

    def of(self, rows: Int[Tensor, " other"]) -> FeatureTargets:
        """Other features of the same model."""
        return FeatureTargets(self.replacement, rows, self._constants)

    def take(self, which: Int[Tensor, " some"]) -> Targets:
        """Some of the targets, with their vectors."""
        model, active = self.replacement, self.replacement.sources.active
        rows = self.rows[which]
        layers, pos, like = active.layer[rows], active.pos[rows], model.frozen.embedded
        vectors, bias = like.new_empty(len(rows), like.shape[1]), like.new_empty(len(rows))
        constant = like.new_empty(len(rows))
        for layer in layers.unique().tolist():
            own = (layers == layer).nonzero()[:, 0]
            made = _read_by(model, layer, active.latent[rows[own]], pos[own])
            stream = self._constants[model.read_depth(layer)][pos[own]]
            vectors[own], bias[own] = made
            constant[own] = (stream * made[0]).sum(1) + made[1]
        depth = 2 * layers + (0 if model.anatomy.parallel else 1)
        return Targets(depth, pos, vectors, bias, constant)


def feature_targets(replacement: Replacement, rows: Int[Tensor, " target"] | None = None) -> FeatureTargets:
    """Features as targets, all of them by default."""
    if rows is None:
        rows = torch.arange(replacement.sources.n_features, device=replacement.anatomy.device)
    return FeatureTargets(replacement, rows, constant_streams(replacement))


def _read_by(
    model: Replacement, layer: int, latents: Int[Tensor, " n"], pos: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
    """Vectors at the stream and biases of features: their activation is the product with the stream plus the bias."""
    frozen, port = model.frozen.layers[layer], model.ports[layer]
    encoders = model.transcoders.encoders(layer, latents).to(frozen.stream)
    vectors = port.pull(frozen, encoders, frozen.scales["ln2"][pos])
    zero_read = port.read(frozen, torch.zeros_like(frozen.mlp_stream))[pos]
    bias = (zero_read * encoders).sum(1) + model.transcoders.encoder_bias(layer, latents).to(encoders)
    return vectors, bias


def direction_targets(
    replacement: Replacement,
    directions: Float[Tensor, "target d_model"],
    *,
    depth: int,
    pos: int,
    normed: bool = True,
) -> Targets:
    """Directions read at one depth and position.

    Args:
        replacement: The replacement model.
        directions: At the output of the norm there (that before attention, the MLP or the unembedding, by the depth),
            or at the stream itself.
        depth: 2 l before attention of layer l, 2 l + 1 before its MLP, 2 n before the unembedding.
        pos: Position.
        normed: Whether the directions are at the norm's output.

    Raises:
        UserError: a depth or position that the prompt does not have, directions of another width.
    """
    frozen = replacement.frozen
    _check_place(replacement, directions, depth, pos)
    norm, scale = frozen.norm_at(depth)
    directions = directions.to(frozen.embedded)
    vectors = norm.pull(directions, scale[pos]) if normed else directions
    zero = (
        norm(torch.zeros_like(frozen.embedded[pos]), scale[pos]) if normed else frozen.embedded.new_zeros(1)
    )
    bias = (zero * directions).sum(1)
    constant = vectors @ constant_streams(replacement)[depth][pos] + bias
    n = len(directions)
    depths, places = (torch.full((n,), value, device=vectors.device) for value in (depth, pos))
    return Targets(depths, places, vectors, bias, constant)


def _check_place(replacement: Replacement, directions: Tensor, depth: int, pos: int) -> None:
    last, n_pos = replacement.anatomy.last_depth, replacement.frozen.n_pos
    if not (0 <= depth <= last and 0 <= pos < n_pos):
        raise UserError(
            f"a target at depth {depth} and position {pos} is not in this prompt: depths are 0 to {last}, positions 0 "
            f"to {n_pos - 1}"
        )
    if directions.shape[-1] != replacement.anatomy.d_model:
        raise UserError(
            f"a direction of {directions.shape[-1]} entries does not fit a stream of {replacement.anatomy.d_model}: "
            "give directions of the stream's width"
        )


@dataclass(frozen=True, eq=False)
class LogitTargets:
    """Logits, or differences of logits, at one position.

    Attributes:
        targets: As readers of the stream.
        columns: What each reads of the final norm's output.
        pairs: Token id of each, and of the token whose logit is subtracted, or None.
        labels: Text of each.
        probs: Probability of each under the model; NaN for a difference.
        pos: Position.
    """

    targets: Targets
    columns: Float[Tensor, "target d_model"]
    pairs: list[tuple[int, int | None]]
    labels: list[str]
    probs: Float[Tensor, " target"]
    pos: int

    @property
    def token_ids(self) -> list[int]:
        """Token of each."""
        return [first for first, _ in self.pairs]


def logit_targets(
    replacement: Replacement,
    tokens: Sequence[int | str | tuple[int | str, int | str]] | None = None,
    *,
    pos: int = -1,
    mass_frac: float = MASS_FRAC,
    n_max: int = MAX_LOGITS,
) -> LogitTargets:
    """Logits as targets: those asked for, or the likeliest.

    Args:
        replacement: The replacement model.
        tokens: Token ids or texts of one token each; a pair stands for the difference of two. By default the smallest
            set whose probabilities sum to `mass_frac`.
        pos: Position; -1 for the last.
        mass_frac: Cumulative probability to reach, in (0, 1].
        n_max: At most so many.

    Raises:
        UserError: a text that is not one token (with the tokens it is), an id outside the vocabulary, or shares out of
            range.
    """
    pos = pos % replacement.frozen.n_pos
    probs = replacement.frozen.logits[pos].double().softmax(-1)
    if tokens is None:
        tokens = likeliest(probs, mass_frac, n_max)
    pairs = [t if isinstance(t, tuple) else (t, None) for t in tokens]
    ids = [(token_id(replacement, a), None if b is None else token_id(replacement, b)) for a, b in pairs]
    W_U = replacement.anatomy.readout.W_U
    mean = W_U.mean(1)
    columns = torch.stack([W_U[:, a] - (mean if b is None else W_U[:, b]) for a, b in ids])
    made = direction_targets(replacement, columns, depth=replacement.anatomy.last_depth, pos=pos)
    shown = torch.tensor([float("nan") if b is not None else float(probs[a]) for a, b in ids])
    labels = [
        text(replacement, a) if b is None else f"{text(replacement, a)} - {text(replacement, b)}"
        for a, b in ids
    ]
    return LogitTargets(_with_output_bias(replacement, made, ids), columns, ids, labels, shown, pos)


def _with_output_bias(
    replacement: Replacement, targets: Targets, ids: Sequence[tuple[int, int | None]]
) -> Targets:
    b_U = replacement.anatomy.readout.b_U
    if b_U is None:
        return targets
    added = torch.stack([b_U[a] - (b_U.mean() if b is None else b_U[b]) for a, b in ids]).to(targets.bias)
    return Targets(
        targets.depth, targets.pos, targets.vectors, targets.bias + added, targets.constant + added
    )


def likeliest(probs: Float[Tensor, " d_vocab"], mass_frac: float, n_max: int) -> list[int]:
    """The smallest set of tokens with that much probability, at most `n_max`; of equal ones the lower id first."""
    if not 0 < mass_frac <= 1 or n_max < 1:
        raise UserError(
            f"mass_frac {mass_frac} and n_max {n_max} choose no logits: give a share above 0 and at most 1, "
            "and 1 or more"
        )
    ranked = probs.argsort(descending=True, stable=True)[:n_max]
    before = probs[ranked].cumsum(0) - probs[ranked]
    return ranked[before < mass_frac].tolist()


def token_id(replacement: Replacement, token: int | str) -> int:
    """The id of a token given as an id or a text.

    Raises:
        UserError: the text is not one token, or the id is outside the vocabulary.
    """
    size = replacement.anatomy.readout.W_U.shape[1]
    if isinstance(token, int):
        if not 0 <= token < size:
            raise UserError(f"token id {token} is outside this model's vocabulary: give 0 to {size - 1}")
        return token
    tokenizer = replacement.anatomy.model.tokenizer
    if tokenizer is None:
        raise UserError(f"token {token!r} is a text and this model has no tokenizer: give token ids")
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        parts = ", ".join(repr(tokenizer.decode([i])) for i in ids)
        raise UserError(
            f"token {token!r} is {len(ids)} tokens ({parts}): give a text that is one token, mind the leading space"
        )
    return int(ids[0])


def text(replacement: Replacement, token: int) -> str:
    """The text of a token; its id where there is no tokenizer."""
    tokenizer = replacement.anatomy.model.tokenizer
    return str(token) if tokenizer is None else tokenizer.decode([token])
