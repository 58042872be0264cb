"""How good a dictionary is, always beside a random one of the same sizes."""

from workbench.evaluation.assess import Extent
from workbench.evaluation.measure import measure_quality, measure_rows
from workbench.evaluation.passages import Passages
from workbench.evaluation.quality import Quality
from workbench.evaluation.stage import evaluate, evaluate_folder
from workbench.evaluation.sweep import evaluate_sweep

__all__ = [
    "Extent",
    "Passages",
    "Quality",
    "evaluate",
    "evaluate_folder",
    "evaluate_sweep",
    "measure_quality",
    "measure_rows",
]
