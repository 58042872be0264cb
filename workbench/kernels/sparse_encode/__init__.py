"""Inference: many tokens to compressed sparse rows within a memory budget."""
