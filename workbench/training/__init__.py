"""Training a dictionary from a run's activations, resumable bit for bit."""

from workbench.training.stage import train

__all__ = ["train"]
