"""Encode and select: the k largest pre-activations of each row, never the (row, d_sae) matrix."""
