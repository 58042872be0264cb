"""Encode and select: the chosen latents of each row, never the (row, d_sae) matrix."""
