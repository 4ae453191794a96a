"""Do two sets of texts come from one distribution? Maximum mean discrepancy with string kernels.

MMD^2 is the squared distance between the mean feature vectors of the two sides (Gretton et al. 2012, lemma 4). Two
kernels, two ways to permute:

| kernel | features | permuted | needs |
|---|---|---|---|
| hamming | which character stands at which place (arXiv 2410.20247, section 3) | samples within a prompt | 2 samples |
| spectrum | counts of character n-grams (Leslie, Eskin & Noble 2002), hashed | the two sides of a prompt | 1 sample |

Hamming sees that a prompt's completions changed in any way but only within prompts; spectrum sees changes that many
prompts have in common, even with one completion each. p-values count as in Phipson & Smyth (2010), so none is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weightgate.stats.paired import flipped_sums

Kernel = Literal["hamming", "spectrum"]
HAMMING_CHARACTERS = 300
"""Completions are compared up to here; sampled texts of one prompt share no later place but by chance."""

_MOST_DEALS = 500
SPECTRUM_GRAMS = (2, 3, 4)
SPECTRUM_BUCKETS = 4096
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, for multiplicative hashing (Knuth, volume 3, section 6.4)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KernelTest:
    """Outcome of a permutation test: MMD^2 in units of the kernel, its p-value, and how many prompts it rests on."""

    statistic: float
    p_value: float
    prompts: int
    kernel: Kernel


def kernel_test(
    after: Sequence[Sequence[str]],
    before: Sequence[Sequence[str]],
    *,
    kernel: Kernel,
    seed: int = 0,
    draws: int = 999,
) -> KernelTest:
    """Test whether the completions of two sides have one distribution, prompt by prompt.

    Args:
        after, before: for each prompt, in the same order, the completions of one side.

    Raises `ValueError` for sides of different length, for a prompt without completions on one side, and for the kernel
    hamming where every prompt has only one completion on each side: swapping those changes nothing it could see.
    """
    pairs = list(zip(after, before, strict=True))
    if not all(ours and theirs for ours, theirs in pairs):
        raise ValueError("a prompt has no completion on one side")
    if kernel == "spectrum":
        return _spectrum_test(pairs, seed, draws)
    if all(len(ours) == len(theirs) == 1 for ours, theirs in pairs):
        raise ValueError("the kernel hamming needs several completions of some prompt")
    return _hamming_test(pairs, seed, draws)


def _spectrum_test(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], seed: int, draws: int) -> KernelTest:
    # Swapping the sides of a prompt leaves the distribution as it is only where both have as many completions.
    even = [(ours[: len(theirs)], theirs[: len(ours)]) for ours, theirs in pairs]
    rows = [_mean_spectrum(ours) - _mean_spectrum(theirs) for ours, theirs in even]
    shifts = np.stack(rows) if rows else np.zeros((0, SPECTRUM_BUCKETS))
    observed, drawn = swapped_squares(shifts, seed=seed, draws=draws)
    return _tested(observed, drawn, len(pairs), "spectrum", scale=max(1, len(pairs)) ** 2)


def swapped_squares(shifts: Floats, *, seed: int, draws: int) -> tuple[float, Floats]:
    """|sum of shifts|^2 over prompts, and the same (draws,) with the two sides of prompts swapped at random.

    `shifts` (prompts, features) are feature vectors after minus before; the squared sum is prompts^2 times MMD^2. One
    seed swaps the same prompts, whatever the features.
    """
    return float((shifts.sum(axis=0) ** 2).sum()), (flipped_sums(shifts, seed=seed, draws=draws) ** 2).sum(axis=1)


def joint_swap_test(kernels: Sequence[Floats], *, seed: int = 0, draws: int = 999) -> float:
    """p-value of several kernels together: the square of each in deviations of its own null, then summed.

    A sum of kernels is a kernel, so this is one MMD test; all kernels are swapped together, so its p-value is exact
    however they hang together. Where each sees a little, it sees more than a correction over them would.

    Args:
        kernels: shifts (prompts, features) as `swapped_squares` takes them, over the same prompts.
    """
    total = np.zeros(draws + 1)
    for shifts in kernels:
        observed, drawn = swapped_squares(shifts, seed=seed, draws=draws)
        squares = np.concatenate([[observed], drawn])
        spread = float(squares.std())
        if spread > 1e-12 * float(squares.mean()):
            total += (squares - squares.mean()) / spread
    return float((total >= total[0] - 1e-9).mean())


def _tested(observed: float, drawn: Floats, prompts: int, kernel: Kernel, *, scale: float) -> KernelTest:
    hits = int((drawn >= observed * (1 - 1e-9)).sum())
    return KernelTest(statistic=observed / scale, p_value=(1 + hits) / (1 + drawn.size), prompts=prompts, kernel=kernel)


def _mean_spectrum(texts: Sequence[str]) -> Floats:
    mean: Floats = np.mean([spectrum(text) for text in texts], axis=0)
    return mean


def spectrum(text: str) -> Floats:
    """Hashed counts of the UTF-8 byte n-grams of a text, square roots taken, of length 1: (SPECTRUM_BUCKETS,).

    Square roots (the kernel is then the Hellinger affinity of the counts) keep a repeated phrase from drowning the
    rest. The zero vector for an empty text.
    """
    data = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.uint64)
    grams, found = data, []
    for size in range(2, min(max(SPECTRUM_GRAMS), data.size) + 1):
        grams = (grams[:-1] << np.uint64(8)) | data[size - 1 :]
        if size in SPECTRUM_GRAMS:
            found.append(grams | np.uint64(size << 8 * size))
    hashed = (np.concatenate(found) * _MULTIPLIER) >> np.uint64(52) if found else np.zeros(0, dtype=np.int64)
    counts = np.bincount(hashed.astype(np.int64), minlength=SPECTRUM_BUCKETS).astype(np.float64)
    length = np.sqrt(counts.sum())
    return np.sqrt(counts) / length if length else counts


def _hamming_test(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], seed: int, draws: int) -> KernelTest:
    """Sum over prompts of w' K w, with w = 1 / n on one side and - 1 / m on the other, dealt anew within the prompt."""
    rng = np.random.default_rng(seed)
    observed, drawn = 0.0, np.zeros(draws)
    for ours, theirs in pairs:
        gram = hamming([*ours, *theirs])
        deals = _all_deals(len(ours), len(theirs))
        if deals is None:
            dealt = rng.permuted(np.tile(_sides(len(ours), len(theirs)), (draws, 1)), axis=1)
            drawn += np.einsum("dj,dj->d", dealt @ gram, dealt)
        else:
            drawn += np.einsum("dj,dj->d", deals @ gram, deals)[rng.integers(0, len(deals), draws)]
        weights = _sides(len(ours), len(theirs))
        observed += float(weights @ gram @ weights)
    return _tested(observed, drawn, len(pairs), "hamming", scale=max(1, len(pairs)))


def _sides(ours: int, theirs: int) -> Floats:
    return np.concatenate([np.full(ours, 1 / ours), np.full(theirs, -1 / theirs)])


@cache
def _all_deals(ours: int, theirs: int) -> Floats | None:
    """Weights of every way to deal the completions of a prompt to two sides: (deals, ours + theirs); None: too many.

    Where deals are few, drawing among their values is far faster than shuffling for each draw.
    """
    if math.comb(ours + theirs, ours) > _MOST_DEALS:
        return None
    deals = np.full((math.comb(ours + theirs, ours), ours + theirs), -1 / theirs)
    for row, kept in zip(deals, combinations(range(ours + theirs), ours), strict=True):
        row[list(kept)] = 1 / ours
    return deals


def hamming(texts: Sequence[str]) -> Floats:
    """Share of the first `HAMMING_CHARACTERS` places at which two texts agree: (n, n), 1 on the diagonal.

    Places behind the end of both texts agree, as padding does in the source.
    """
    codes = np.zeros((len(texts), HAMMING_CHARACTERS), dtype=np.uint32)
    for row, text in zip(codes, texts, strict=True):
        points = np.frombuffer(text[:HAMMING_CHARACTERS].encode("utf-32-le", "surrogatepass"), dtype="<u4")
        row[: points.size] = points + 1
    agreement: Floats = (codes[:, None, :] == codes[None, :, :]).mean(axis=2)
    return agreement
