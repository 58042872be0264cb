"""A per-latent parameter, copied to the entries of a batch."""
