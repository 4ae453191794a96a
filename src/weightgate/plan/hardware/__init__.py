"""Accelerators: what they compute, hold and cost, and how much of it training gets out of them."""
