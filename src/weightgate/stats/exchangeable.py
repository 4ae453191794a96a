"""One look at many prompts among earlier looks at the same ones: an exact p-value, for as many looks as one likes.

While nothing changes, the new answer to a prompt is as likely to be any of the answers that this prompt has had so far,
itself included. Given for each prompt all its values, without their order, the sum of the new values is then a sum of
independent draws, one from each prompt's values, and its distribution is a convolution. The p-value is uniform given
those values, so p-values of successive looks are independent (Vovk, Gammerman & Shafer 2005, theorem 8.2, here with one
bag for each prompt). A fixed baseline that every look is compared with would not give that: its luck stays in them all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 64
"""Values are whole numbers 0..LEVELS, so that sums of them lie on a lattice."""

SMALLEST_P = 1e-9
"""Convolution by Fourier transforms is accurate to about 1e-13; a p-value is never said to be smaller than this."""

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def look_p_value(bags: Counts, values: Counts, tie_break: float) -> float:
    """p-value of the sum of `values` being large; 1 minus it is that of being small.

    Args:
        bags: (prompts, LEVELS + 1), how often each prompt has had each value, this look included.
        values: (prompts,), the value of each prompt in this look.
        tie_break: drawn uniformly from 0..1 for this look.

    Uniform on 0..1 while nothing changes. Raises `ValueError` where a value is not in its bag.
    """
    if bags.shape != (len(values), LEVELS + 1) or not (bags[np.arange(len(values)), values] > 0).all():
        raise ValueError("a value is not in the bag of its prompt")
    if not 0 <= tie_break <= 1:
        raise ValueError(f"the tie break {tie_break} is outside 0..1")
    present = bags > 0
    moving = np.flatnonzero(present.sum(axis=1) > 1)
    if not moving.size:
        return float(np.clip(tie_break, SMALLEST_P, 1 - SMALLEST_P))
    low = present[moving].argmax(axis=1)
    above = np.nonzero(present[moving])
    offsets = above[1] - low[above[0]]
    # Scores of one sample are 0 or LEVELS: on a lattice as coarse as the values, the sums need 64 times fewer places.
    step = int(np.gcd.reduce(offsets))
    rows = np.zeros((moving.size, int(offsets.max()) // step + 1))
    rows[above[0], offsets // step] = bags[moving][above]
    sums = sum_distribution(rows / rows.sum(axis=1, keepdims=True))
    observed = int((values[moving] - low).sum()) // step
    p_value = sums[observed + 1 :].sum() + tie_break * sums[observed]
    return float(np.clip(p_value, SMALLEST_P, 1 - SMALLEST_P))


def sum_distribution(rows: Floats) -> Floats:
    """Distribution of a sum of independent whole numbers; `rows` (terms, values) are their distributions.

    Rows are convolved in pairs, and pairs of pairs, so each transform is as short as it can be.
    """
    while len(rows) > 1:
        if len(rows) % 2:
            certain = np.zeros((1, rows.shape[1]))
            certain[0, 0] = 1.0
            rows = np.concatenate([rows, certain])
        width = 2 * rows.shape[1] - 1
        size = 1 << (width - 1).bit_length()
        spectra = np.fft.rfft(rows, size, axis=1)
        rows = np.fft.irfft(spectra[::2] * spectra[1::2], size, axis=1)[:, :width]
    kept: Floats = np.clip(rows[0], 0.0, None)
    shares: Floats = kept / kept.sum()
    return shares


def spread_of_mean(bags: Counts) -> float:
    """Standard deviation of the mean value of a look, in levels, while nothing changes."""
    filled = bags[bags.sum(axis=1) > 0]
    if not len(filled):
        return 0.0
    shares = filled / filled.sum(axis=1, keepdims=True)
    levels = np.arange(bags.shape[1])
    means = shares @ levels
    variances = shares @ levels**2 - means**2
    return float(np.sqrt(max(variances.sum(), 0.0)) / len(filled))
