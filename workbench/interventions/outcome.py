"""What the columns of an intervention came to: logits, logit differences with intervals, top tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from workbench.intervals import N_RESAMPLES, mean_estimate

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"


@dataclass(frozen=True)
class Outcome:
    """Columns of one set of prompts; the first is the baseline.

    Attributes:
        columns: Their names.
        logits: Logits at the last position (column, prompt, d_vocab).
        difference_logits: m of each (column, prompt); None without answers.
        interventions: What was done, in words.
        freeze: Parts that were held.
    """

    columns: tuple[str, ...]
    logits: Float[Tensor, "column prompt d_vocab"]
    difference_logits: Float[Tensor, "column prompt"] | None
    interventions: tuple[str, ...]
    freeze: tuple[str, ...]

    @property
    def kl_nats(self) -> Float[Tensor, "column prompt"]:
        """Divergence of each column's prediction from the baseline's, KL(baseline, column)."""
        logs = self.logits.double().log_softmax(-1)
        return (logs[0].exp() * (logs[0] - logs)).sum(-1).float()

    @property
    def effect_logits(self) -> Float[Tensor, "column prompt"] | None:
        """m(baseline) - m(column): positive where what was changed had helped the answer; None without answers."""
        m = self.difference_logits
        return None if m is None else m[0] - m

    def table(self, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> pd.DataFrame:
        """One row a column: m, effect and divergence, each a mean over prompts with its 95% interval.

        Effects are paired: a prompt is drawn with both its runs.
        """
        import pandas as pd

        values = {
            "kl_nats": self.kl_nats,
            "difference_logits": self.difference_logits,
            "effect_logits": self.effect_logits,
        }
        rows = []
        for i, column in enumerate(self.columns):
            row: dict[str, object] = {"column": column, "interventions": self.interventions[i]}
            for name, value in values.items():
                if value is not None:
                    sample = value[i].double().cpu().numpy()
                    row |= mean_estimate(sample, n_resamples=n_resamples, seed=seed).as_dict(name)
            rows.append({**row, "n_prompts": self.logits.shape[1]})
        return pd.DataFrame(rows)

    def top_tokens(self, decode: Callable[[list[int]], str], *, prompt: int = 0, k: int = 5) -> pd.DataFrame:
        """The most probable next tokens of one prompt, by column: `token`, `prob_frac`."""
        import pandas as pd

        probs, ids = self.logits[:, prompt].float().softmax(-1).topk(k)
        names = np.repeat(self.columns, k)
        tokens = [decode([token]) for token in ids.flatten().tolist()]
        return pd.DataFrame({"column": names, "token": tokens, "prob_frac": probs.flatten().tolist()})
