"""Rows summed per latent: the transposed product that every weight gradient is made of."""
