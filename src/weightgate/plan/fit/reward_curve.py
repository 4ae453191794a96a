"""One's own curve of gold reward over KL, fitted in both forms of Gao et al. 2022; AIC says which.

Both forms are linear in a and b, so each is one least-squares solve. The two are often confused: on the runs of a PPO
policy the logarithm fits better, on best-of-n the square, and a table of either tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.fit.forms import Floats
from weightgate.plan.laws.overoptimisation import SEARCHES, Curve, Search

LEAST_POINTS = 4
"""Two constants and a variance are fitted; with fewer points nothing is left to judge them by."""

DRAWS = 1000
_NEGLIGIBLE = 1e-24


@dataclass(frozen=True, kw_only=True)
class FittedCurve:
    """A curve at its least squares: `draws` refits to points drawn again, `aic` the smaller the better."""

    curve: Curve
    draws: Curve
    aic: float
    residual: float


def fit_reward_curves(kl: Floats, gold: Floats, *, origin: str, seed: int = 0) -> tuple[FittedCurve, ...]:
    """Fit both forms to (points,) KL in nats and gold reward, which is 0 at a KL of 0; the better one first.

    Raises `DataError` for fewer than `LEAST_POINTS` distinct KLs, for negative ones, and for gold that never differs.
    """
    if (kl < 0).any():
        raise DataError("a KL is not negative", where=origin, found=f"{float(kl.min()):g}")
    moved = kl > 0
    kl, gold = kl[moved], gold[moved]
    distinct = len(set(kl.tolist()))
    if distinct < LEAST_POINTS:
        raise DataError(
            "too few points for a curve of gold reward",
            where=origin,
            expected=f"at least {LEAST_POINTS} different KLs above 0",
            found=str(distinct),
        )
    if float(np.ptp(gold)) <= 1e-12 * float(np.abs(gold).max(initial=0.0)):
        raise DataError("the gold reward is the same everywhere", where=origin, found=f"{float(gold[0]):g}")
    fitted = (_fitted(kl, gold, search, seed) for search in SEARCHES)
    return tuple(sorted(fitted, key=lambda each: each.aic))


def _fitted(kl: Floats, gold: Floats, search: Search, seed: int) -> FittedCurve:
    columns = _columns(kl, search)
    solved, *_ = np.linalg.lstsq(columns, gold, rcond=None)
    squares = float(np.sum((columns @ solved - gold) ** 2))
    points = len(gold)
    noise = max(squares / points, _NEGLIGIBLE)
    picked = np.random.default_rng(seed).integers(0, points, size=(DRAWS, points))
    telling = [rows for rows in picked if len(set(kl[rows])) > 1]
    drawn = np.array([np.linalg.lstsq(columns[rows], gold[rows], rcond=None)[0] for rows in telling])
    return FittedCurve(
        curve=Curve(a=float(solved[0]), b=float(solved[1]), search=search),
        draws=Curve(a=drawn[:, 0], b=drawn[:, 1], search=search),
        aic=points * float(np.log(noise)) + 2 * 3,
        residual=float(np.sqrt(squares / max(points - 2, 1))),
    )


def _columns(kl: Floats, search: Search) -> Floats:
    """What a and b are multiplied by, (points, 2)."""
    distance = np.sqrt(kl)
    return np.stack([distance, -(kl if search == "best-of-n" else distance * np.log(distance))], axis=1)
