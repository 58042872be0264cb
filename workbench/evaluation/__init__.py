"""How good a dictionary is, always beside a random one of the same sizes."""

from workbench.evaluation.measure import Passages, Quality, measure_quality, measure_rows
from workbench.evaluation.stage import evaluate

__all__ = ["Passages", "Quality", "evaluate", "measure_quality", "measure_rows"]
