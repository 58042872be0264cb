"""Sparse latents times the decoder."""
