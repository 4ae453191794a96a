"""How much of a large intermediate result exists at once. Torch-free, so that a plan can count with it."""

LOGITS_AT_ONCE = 2**20
"""Logits held at once, 4 MiB in fp32: on a CPU they stay in the cache between the passes over them."""

LOGIT_ROWS = 256
"""But at least so many rows, or the matrix products of a large vocabulary become too thin."""
