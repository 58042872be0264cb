"""Training dictionaries from a run's activations, resumable bit for bit: one, or a sweep on one stream."""

from workbench.training.stage import train
from workbench.training.sweep import grid, sweep

__all__ = ["grid", "sweep", "train"]
