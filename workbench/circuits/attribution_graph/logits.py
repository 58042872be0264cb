"""The logits that an attribution graph explains.

    logit        (W_U[:, v] - mean over the vocabulary) . ln_final(x), the soft cap bypassed
    difference   (W_U[:, v] - W_U[:, w]) . ln_final(x)
    direction    any vector at the output of the final norm

By default the smallest set of tokens whose probabilities sum to 0.95, at most 10. The mean over the vocabulary moves
all logits alike and no probability, so it is taken out. The output bias is in the targets' constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.targets import Targets, direction_targets
from workbench.errors import UserError

MASS_FRAC, MAX_LOGITS = 0.95, 10


@dataclass(frozen=True, eq=False)
class LogitTargets:
    """Logits, differences of logits, or directions at the final norm's output, at one position.

    Attributes:
        targets: As readers of the stream.
        columns: What each reads of the final norm's output.
        pairs: Token id of each (-1 for a direction), and of the token whose logit is subtracted, or None.
        labels: Text of each.
        probs: Probability of each under the model; NaN for a difference or a direction.
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
    tokens: Sequence[int | str | tuple[int | str, int | str]] | Tensor | None = None,
    *,
    pos: int = -1,
    mass_frac: float = MASS_FRAC,
    n_max: int = MAX_LOGITS,
) -> LogitTargets:
    """Logits as targets: those asked for, or the likeliest.

    Args:
        replacement: The replacement model.
        tokens: Token ids or texts of one token each, a pair for the difference of two; or directions at the final
            norm's output (target, d_model). By default the smallest set whose probabilities sum to `mass_frac`.
        pos: Position; -1 for the last.
        mass_frac: Cumulative probability to reach, in (0, 1].
        n_max: At most so many.

    Raises:
        UserError: a text that is not one token (with the tokens it is), an id outside the vocabulary, a target given
            twice, none at all, or shares out of range.
    """
    pos, depth = pos % replacement.frozen.n_pos, replacement.anatomy.last_depth
    if isinstance(tokens, Tensor):
        made = direction_targets(replacement, tokens, depth=depth, pos=pos)
        names, none = [f"direction {i}" for i in range(len(tokens))], torch.full((len(tokens),), torch.nan)
        return LogitTargets(made, tokens.to(made.vectors), [(-1, None)] * len(tokens), names, none, pos)
    probs = replacement.frozen.logits[pos].double().softmax(-1)
    ids = _ids(replacement, likeliest(probs, mass_frac, n_max) if tokens is None else tokens)
    W_U = replacement.anatomy.readout.W_U
    mean = W_U.mean(1)
    columns = torch.stack([W_U[:, a] - (mean if b is None else W_U[:, b]) for a, b in ids])
    made = direction_targets(replacement, columns, depth=depth, pos=pos)
    shown = torch.tensor([float("nan") if b is not None else float(probs[a]) for a, b in ids])
    labels = [" - ".join(text(replacement, token) for token in pair if token is not None) for pair in ids]
    return LogitTargets(_with_output_bias(replacement, made, ids), columns, ids, labels, shown, pos)


def _ids(
    replacement: Replacement, tokens: Sequence[int | str | tuple[int | str, int | str]]
) -> list[tuple[int, int | None]]:
    """Token ids of each target, and of what is subtracted."""
    pairs = [t if isinstance(t, tuple) else (t, None) for t in tokens]
    ids = [(token_id(replacement, a), None if b is None else token_id(replacement, b)) for a, b in pairs]
    if not ids or len(set(ids)) < len(ids):
        raise UserError(f"targets {list(tokens)} are none or name one twice: give each token once")
    return ids


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
