"""What is measured once beside the learners, in the embedded model: pictures of single methods, not rankings.

    law      loss of TopK dictionaries over a grid of (n, k), for the fit of the joint scaling law
    ranks    effective rank of attention outputs, MLP outputs and residuals, beside the model with random weights
    norms    length of the code against length of the activation, beside random directions
    leftover the error of the grid's dictionaries over sizes: its linear part, and whether the same tokens stay hard
    variational   where a variational TopK wins and loses against TopK, on planted rows, over KL coefficients

Each is a table (of `leftover` three) in `<run>/instruments/`; what is there is not measured again. The law's
dictionaries are trained as the learners are, on the same rows of the residual stream, one seed; they lie beside the
others in the site's run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.analyses.comparison.data import SiteData
from workbench.analyses.comparison.leftover import Leftover, leftover_tables, measure_leftover, read_leftover
from workbench.analyses.comparison.sites import RESID
from workbench.analyses.comparison.sizes import Size
from workbench.analyses.variational import Arm, variational_table
from workbench.artifacts import atomic_file
from workbench.dictionaries import Dictionary
from workbench.evaluation.effective_rank import LayerRank, layer_ranks
from workbench.evaluation.measure import measure_rows
from workbench.evaluation.quasi_orthogonality import QuasiOrthogonality, measure_quasi_orthogonality
from workbench.evaluation.scaling import ScalingFit, fit_scaling
from workbench.training import sweep

FOLDER, SITE = "instruments", RESID
LEFT = ("splits", "norm_scaling", "pairs")
GRID = ("law", "norms", *LEFT)
NAMES = ("ranks", "variational", *GRID)
VARIATIONAL_STEPS = 800
ROWS_PER_GROUP = 256
SEED = 0


@dataclass(frozen=True)
class Instruments:
    """What was measured; None or empty where it was not.

    Attributes:
        law: The fitted law with its points.
        ranks: Of every layer, of the model and of its random-weight control.
        norms: By "trained" and "random".
        leftover: Of TopK dictionaries of growing size.
        variational: A row per dictionary (`variational.variational_table`).
    """

    law: ScalingFit | None
    ranks: tuple[LayerRank, ...]
    norms: Mapping[str, QuasiOrthogonality]
    leftover: Leftover | None = None
    variational: pd.DataFrame | None = None


def lacks_instruments(run: Path) -> bool:
    """Whether one of them has not been measured."""
    return not all(_path(run, name).exists() for name in NAMES)


def measure_instruments(run: Path, data: SiteData, size: Size) -> None:
    """Measure what is missing.

    Args:
        run: Run folder of the comparison.
        data: Of the site `SITE`.
        size: Its grid and number of blocks.

    Raises:
        UserError: as `sweep` and `layer_ranks`.
        KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    if not _path(run, "ranks").exists():
        found = layer_ranks(data.run, n_blocks=size.rank_blocks, seed=SEED)
        _write(run, "ranks", pd.DataFrame([vars(one) for one in found]))
    if not _path(run, "variational").exists():
        arm = Arm(n_steps=min(VARIATIONAL_STEPS, size.planted_steps))
        _write(run, "variational", variational_table(seeds=size.seeds, arm=arm))
    if not all(_path(run, name).exists() for name in GRID):
        _measure_grid(run, data, size)


def _measure_grid(run: Path, data: SiteData, size: Size) -> None:
    made, k = _grid(data, size), sorted(size.law_k)[len(size.law_k) // 2]
    _write(run, "law", _losses(made, data))
    over_sizes = {n: made[_name(n, k)] for n in size.law_n}
    _write(
        run,
        "norms",
        _norm_table(measure_quasi_orthogonality(over_sizes[max(size.law_n)], data.rows, seed=SEED)),
    )
    for name, table in leftover_tables(measure_leftover(over_sizes, data.rows, seed=SEED)).items():
        _write(run, name, table)


def read_instruments(run: Path) -> Instruments:
    """What a comparison has measured so far. Status: the law's interval covers the scatter of its points only."""
    law, ranks, norms, variational = (_read(run, name) for name in ("law", "ranks", "norms", "variational"))
    left = {name: table for name in LEFT if (table := _read(run, name)) is not None}
    return Instruments(
        None if law is None else fit_scaling(law, seed=SEED),
        () if ranks is None else tuple(LayerRank(**row) for row in ranks.to_dict("records")),  # pyright: ignore
        {}
        if norms is None
        else {str(name): _norms(group) for name, group in norms.groupby("set", sort=False)},
        read_leftover(left) if len(left) == len(LEFT) else None,
        variational,
    )


def _name(n: int, k: int) -> str:
    return f"law-n{n}-k{k}"


def _grid(data: SiteData, size: Size) -> dict[str, Dictionary]:
    """The dictionaries of the law, trained on one stream."""
    members = {
        _name(n, k): {"architecture": "topk", "d_sae": n, "k": k} for n in size.law_n for k in size.law_k
    }
    stream: dict[str, Any] = {
        "batch_size": size.model_batch,
        "n_tokens": size.model_batch * size.model_steps,
        "seed": SEED,
    }
    return sweep(data.run, members, hook=data.site.hook, **stream)


def _losses(made: Mapping[str, Dictionary], data: SiteData) -> pd.DataFrame:
    """Share of the held-out variance that each leaves."""
    group = torch.arange(len(data.rows)) // ROWS_PER_GROUP
    quality = measure_rows(made, data.rows, group, seed=SEED)
    rows = [{"n": one.d_sae, "k": one.settings["k"], "loss": quality[name].fvu} for name, one in made.items()]
    return pd.DataFrame(rows)


def _norm_table(found: Mapping[str, QuasiOrthogonality]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"set": name, **asdict(one)}) for name, one in found.items()])


def _norms(group: Any) -> QuasiOrthogonality:
    """What `_norm_table` wrote of one set."""
    arrays = ("activation_norms", "code_norms", "l0", "epsilon", "epsilon_reconstruction", "bound")
    first = group.iloc[0]
    return QuasiOrthogonality(
        **{name: group[name].to_numpy() for name in arrays},
        coherence=float(first["coherence"]), n_features=int(first["n_features"]), bias=str(first["bias"]),
        seed=int(first["seed"]),
    )  # fmt: skip


def _path(run: Path, name: str) -> Path:
    return run / FOLDER / f"{name}.parquet"


def _read(run: Path, name: str) -> pd.DataFrame | None:
    path = _path(run, name)
    return pd.read_parquet(path) if path.exists() else None


def _write(run: Path, name: str, table: pd.DataFrame) -> None:
    path = _path(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        table.to_parquet(temporary, index=False)
