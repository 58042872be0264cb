"""One Adam step of a parameter in a single pass: clipping, projection off unit rows, update, renormalisation."""
