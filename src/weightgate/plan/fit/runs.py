"""Training runs to fit laws to: parameters, tokens and final loss of each, checked before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.fit.forms import Floats
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX

LEAST_RUNS = 6
"""The coupled form has six constants; with fewer runs than this no form has anything left to be judged by."""

LEAST_RATIO = 0.41
"""Tokens a parameter below which a run is left out: the five of Hoffmann et al. (Besiroglu et al. 2024)."""

_LEAST_SPREAD = 0.1
"""Standard deviation of ln D at given N, and of ln N at given D, below which the two cannot be told apart."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of one corpus, tokenizer and recipe; arrays of one length.

    Fields:
        loss: in `unit`, at the end of a whole schedule.
        clusters: runs of one cluster (an isoFLOP budget, a size) are resampled together.
        seconds: of training, NaN where it is not known.
        origin: where they are from, for messages.
        notes: what was left out, and why.
    """

    parameters: Floats
    tokens: Floats
    loss: Floats
    clusters: tuple[str, ...]
    seconds: Floats
    unit: str = "nats/token"
    origin: str = "runs"
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> Floats:
        """6 N D of each."""
        return np.asarray(SIX * self.parameters * self.tokens)

    def __len__(self) -> int:
        return len(self.loss)

    def where(self, keep: np.ndarray, *notes: str) -> Runs:
        """The runs at which `keep`, booleans or positions, says so."""
        return Runs(
            parameters=self.parameters[keep],
            tokens=self.tokens[keep],
            loss=self.loss[keep],
            clusters=tuple(np.array(self.clusters, dtype=object)[keep]),
            seconds=self.seconds[keep],
            unit=self.unit,
            origin=self.origin,
            notes=(*self.notes, *notes),
        )


def usable(runs: Runs, *, least_ratio: float = LEAST_RATIO) -> Runs:
    """Leave out runs with too few tokens a parameter, and refuse what no law can be fitted to.

    Raises `DataError` for fewer than `LEAST_RUNS` runs, losses that are all equal or rise, and designs in which tokens
    follow from parameters (all D = 20 N, or D fixed): there the two exponents cannot be told apart.
    """
    enough = runs.tokens >= least_ratio * runs.parameters
    if not enough.all():
        few = int((~enough).sum())
        runs = runs.where(enough, f"{few} runs with fewer than {least_ratio:g} tokens a parameter were left out")
    if len(runs) < LEAST_RUNS:
        raise DataError(
            "too few runs to fit a law to",
            where=runs.origin,
            expected=f"at least {LEAST_RUNS}, of several sizes and lengths",
            found=str(len(runs)),
            mend="build the recipe with more sizes and lengths, or name a table of runs: weightgate plan fit RUNS.csv",
        )
    if float(np.ptp(runs.loss)) <= 1e-9 * float(runs.loss.max()):
        raise DataError("all runs have the same loss", where=runs.origin, found=f"{runs.loss[0]:g} {runs.unit}")
    _refuse_rising(runs)
    _refuse_collinear(runs)
    return runs


def _refuse_rising(runs: Runs) -> None:
    """A loss that grows with compute is a score, or of something else: no law falls to it."""
    flops = np.log(runs.flops)
    centred = flops - flops.mean()
    if float(centred @ (runs.loss - runs.loss.mean())) > 0:
        raise DataError(
            "the loss rises with compute",
            where=runs.origin,
            expected="runs whose loss falls as parameters and tokens grow",
            mend="is another column the loss? --column loss=NAME",
        )


def _refuse_collinear(runs: Runs) -> None:
    n, d = np.log(runs.parameters), np.log(runs.tokens)
    spreads = {"parameters": _spread_given(n, d), "tokens": _spread_given(d, n)}
    if min(float(np.std(n)), float(np.std(d)), *spreads.values()) >= _LEAST_SPREAD:
        return
    if np.std(n) < _LEAST_SPREAD or np.std(d) < _LEAST_SPREAD:
        found = f"all have about the same number of {'parameters' if np.std(n) < np.std(d) else 'tokens'}"
    else:
        found = f"tokens follow from parameters, at about {np.exp(np.median(d - n)):.3g} tokens a parameter"
    raise DataError(
        "these runs cannot tell the worth of parameters from that of tokens",
        where=runs.origin,
        expected="several sizes, and at each of some of them several numbers of tokens",
        found=found,
        mend="add a few runs with a quarter and with four times the tokens a parameter",
    )


def _spread_given(y: Floats, x: Floats) -> float:
    """Standard deviation that is left of y after a line in x."""
    centred, by = y - y.mean(), x - x.mean()
    power = float(by @ by)
    slope = float(by @ centred) / power if power > 0 else 0.0
    return float(np.std(centred - slope * by))
