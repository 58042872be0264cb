"""Text written under interventions, the unedited model's beside it.

generation = generate(anatomy, prompts, {"ablate": ablate("a1.h3")}, n_tokens=20)

`where` says which positions an intervention without positions of its own acts at: "every" one (each generated
position is edited as it is run), the "prompt"'s, or the "generated" ones. Every column draws with the same noise,
so columns part only where their predictions do (Gumbel-max: the token of largest logit / temperature + noise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.sweeps.sweep import check_option
from workbench.circuits.sweeps.tail import looks_ahead
from workbench.errors import UserError
from workbench.interventions.cached import Cache, tables_fit
from workbench.interventions.edits import Placed, edits_of, place
from workbench.interventions.intervene import Columns, Prompts, clean_ids, named_columns
from workbench.interventions.outcome import BASELINE
from workbench.progress import Progress

WHERE = ("every", "prompt", "generated")


@dataclass(frozen=True)
class Generation:
    """Continuations of the same prompts, one a column; the first is the baseline.

    Attributes:
        columns: Their names.
        prompts: Token ids of the prompts.
        tokens: Generated token ids.
        interventions: What was done, in words.
        where: Positions at which interventions without positions of their own acted.
        temperature: 0 for the most probable token.
        seed: Decides the noise.
        cached: Whether keys and values were kept.
    """

    columns: tuple[str, ...]
    prompts: Int[Tensor, "prompt pos"]
    tokens: Int[Tensor, "column prompt generated"]
    interventions: tuple[str, ...]
    where: str
    temperature: float
    seed: int
    cached: bool

    def texts(self, decode: Callable[[list[int]], str]) -> dict[str, list[str]]:
        """Continuations as text, by column."""
        return {
            c: [decode(row) for row in rows.tolist()]
            for c, rows in zip(self.columns, self.tokens, strict=True)
        }

    def same_frac(self) -> dict[str, float]:
        """Share of generated tokens that equal the baseline's at the same position, by column."""
        same = (self.tokens == self.tokens[:1]).double().mean((1, 2))
        return dict(zip(self.columns, same.tolist(), strict=True))


@torch.no_grad()
def generate(
    anatomy: Anatomy,
    prompts: Prompts,
    columns: Columns,
    *,
    n_tokens: int,
    where: str = "every",
    temperature: float = 0.0,
    seed: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> Generation:
    """Generated tokens of every prompt in every column.

    Args:
        anatomy: The model.
        prompts: Texts or token ids of one length, or pairs, whose clean prompts are continued.
        columns: As for `intervene`.
        n_tokens: Tokens to generate; nothing stops earlier.
        where: One of `WHERE`.
        temperature: 0 takes the most probable token, otherwise tokens are drawn from softmax(logits / temperature).
        seed: Decides the draws.
        cache: Keep keys and values; False runs the whole text again for every token.
        progress: Advanced by one a token and column.

    Raises:
        UserError: text longer than the model's context; a model that looks ahead; a patch at generated positions; a
            cache for a model whose rotary tables change with the length; what `place` refuses.

    Status: exact.
    """
    ids, counterfactual = clean_ids(anatomy, prompts)
    named = named_columns(columns)
    _check(anatomy, ids.shape[1], n_tokens, where=where, temperature=temperature, cache=cache)
    placed = {
        name: [_reaching(one, ids.shape[1], where) for one in place(anatomy, group, ids, counterfactual)]
        for name, group in named.items()
    }
    step = _cached_steps if cache else _whole_steps
    tokens = [
        _continue(step(anatomy, ids, group, n_tokens), ids, n_tokens, temperature, seed, progress)
        for group in ([], *placed.values())
    ]
    return Generation(
        (BASELINE, *placed), ids, torch.stack(tokens),
        tuple(", ".join(map(str, group)) or "none" for group in ([], *named.values())),
        where, float(temperature), seed, cache,
    )  # fmt: skip


def _check(
    anatomy: Anatomy, length: int, n_tokens: int, *, where: str, temperature: float, cache: bool
) -> None:
    check_option("where", where, WHERE)
    if n_tokens < 1:
        raise UserError(f"n_tokens {n_tokens} is less than 1: generate at least one token")
    if not 0 <= temperature < float("inf"):
        raise UserError(
            f"temperature {temperature:g} is no temperature: give 0 (most probable token) or more"
        )
    longest, n_ctx = length + n_tokens, int(anatomy.model.cfg.n_ctx)
    if longest > n_ctx:
        raise UserError(
            f"n_tokens {n_tokens} after a prompt of {length} exceeds the model's context of {n_ctx} tokens: generate "
            f"at most {n_ctx - length}"
        )
    if looks_ahead(anatomy, longest):
        raise UserError("this model looks ahead, so it cannot be continued token by token: use intervene")
    if cache and not tables_fit(anatomy, length, longest):
        raise UserError(
            "cache True does not fit this model, whose rotary tables change with the text's length: set cache=False"
        )


def _reaching(one: Placed, length: int, where: str) -> Placed:
    """The intervention with its positions bounded by `where`; its own positions stay."""
    if one.about.positions is None and one.source is not None and where != "prompt":
        raise UserError(
            f"'{one.about}' takes its values from a prompt, which has none for generated positions: set where to "
            "'prompt', or give positions"
        )
    if one.about.positions is None and where == "generated":
        return replace(one, span=(length, None))
    reach = one.about.positions is not None or where == "prompt"
    return replace(one, span=(0, length)) if reach else one


Steps = Callable[[Tensor], Tensor]


def _cached_steps(anatomy: Anatomy, ids: Tensor, placed: Sequence[Placed], n_tokens: int) -> Steps:
    """Logits after a text, of which all but the new positions are kept."""
    cache = Cache(anatomy, ids.shape[1] + n_tokens)

    def step(text: Tensor) -> Tensor:
        first, length = cache.length, text.shape[1]
        return cache.run(
            anatomy.embed(text)[:, first:], edits_of(anatomy, placed, first=first, length=length)
        )

    return step


def _whole_steps(anatomy: Anatomy, ids: Tensor, placed: Sequence[Placed], n_tokens: int) -> Steps:
    """Logits after a text, everything run again."""

    def step(text: Tensor) -> Tensor:
        edits = edits_of(anatomy, placed, first=0, length=text.shape[1])
        return anatomy.last_logits(anatomy.embed(text), 0, edits)

    return step


def _continue(
    step: Steps, ids: Tensor, n_tokens: int, temperature: float, seed: int, progress: Progress | None
) -> Int[Tensor, "prompt generated"]:
    generator = torch.Generator().manual_seed(seed)
    text = ids
    for _ in range(n_tokens):
        logits = step(text).float()
        if temperature:
            noise = -torch.empty(logits.shape).exponential_(generator=generator).log()
            logits = logits / temperature + noise.to(logits.device)
        text = torch.cat([text, logits.argmax(-1, keepdim=True)], 1)
        if progress is not None:
            progress.advance()
    return text[:, ids.shape[1] :]
