"""Sparse decode fused with the squared error of the reconstruction, for one or several prefixes of latents."""
