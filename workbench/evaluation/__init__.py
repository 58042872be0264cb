"""How good a dictionary is, always beside a random one of the same sizes."""

from workbench.evaluation.measure import Quality, measure_quality
from workbench.evaluation.stage import evaluate

__all__ = ["Quality", "evaluate", "measure_quality"]
