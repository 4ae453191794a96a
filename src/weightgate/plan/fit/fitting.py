"""Fitting one form to runs, and again to resampled runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.forms import NAMES, Floats, Form, log_loss
from weightgate.plan.fit.polish import Polished, polish
from weightgate.plan.fit.runs import Runs
from weightgate.plan.fit.start import starts
from weightgate.plan.laws.loss import Constants

DRAWS = 1000
_BLOCK = 100
"""Bootstrap refits that are minimised side by side; more would leave the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where one start ended: its objective, and which constants never moved."""

    ended: float
    unmoved: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A form at its optimum on some runs.

    Fields:
        objective: weighted sum of Huber's loss of the log residuals.
        residuals: ln predicted - ln measured, (runs,).
        starts: what became of every start.
    """

    form: Form
    constants: Constants
    objective: float
    residuals: Floats
    settled: bool
    starts: tuple[Start, ...]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Runs in the coordinates of `forms`: ln N and ln D less their means `n0` and `d0`."""

    n: Floats
    d: Floats
    loss: Floats
    n0: float
    d0: float

    def constants(self, fitted: Floats) -> Constants:
        """Constants of the law from those in these coordinates, (fits, 6) -> arrays of (fits,)."""
        a, b, e, alpha, beta, log_power = fitted.T
        with np.errstate(over="ignore"):  # of a refit that ran away, which `forecast.refits` leaves out
            return Constants(
                A=np.exp(a + alpha * self.n0),
                B=np.exp(b + beta * self.d0),
                E=np.exp(e),
                alpha=alpha,
                beta=beta,
                k=np.exp(log_power),
            )


def frame_of(runs: Runs) -> Frame:
    """Centre the runs."""
    n, d = np.log(runs.parameters), np.log(runs.tokens)
    return Frame(n=n - n.mean(), d=d - d.mean(), loss=runs.loss, n0=float(n.mean()), d0=float(d.mean()))


def fit(runs: Runs, form: Form, *, weights: Floats | None = None) -> Fit:
    """Fit a form: variable projection for a start, Newton's method on Huber's loss from there.

    Args:
        weights: of each run; scaling all of them scales the objective and changes nothing else.
    """
    frame = frame_of(runs)
    given = np.ones((1, len(runs.loss))) if weights is None else np.asarray(weights, dtype=np.float64)[None]
    tried = [
        (begun, _polished(form, begun, frame, given)) for begun in starts(form, frame.n, frame.d, frame.loss, given)
    ]
    best = min((done for _, done in tried), key=lambda done: float(done.objective[0]))
    first = frame.constants(best.constants)
    return Fit(
        form=form,
        constants=Constants(**{name: float(value[0]) for name, value in vars(first).items()}),
        objective=float(best.objective[0]),
        residuals=log_loss(best.constants, frame.n, frame.d)[0] - np.log(frame.loss),
        settled=bool(best.settled[0]),
        starts=tuple(_start(form, begun[0], done) for begun, done in tried),
    )


def _polished(form: Form, begun: Floats, frame: Frame, weights: Floats) -> Polished:
    return polish(form, begun, frame.n, frame.d, frame.loss, weights)


def _start(form: Form, begun: Floats, done: Polished) -> Start:
    moved = np.abs(done.constants[0] - begun) > 1e-12 * np.maximum(1.0, np.abs(begun))
    unmoved = tuple(name for name in form.free if not moved[NAMES.index(name)])
    return Start(ended=float(done.objective[0]), unmoved=unmoved)


def bootstrap(runs: Runs, form: Form, *, by_cluster: bool = False, draws: int = DRAWS, seed: int = 0) -> Constants:
    """Refit to runs (or whole clusters of them) drawn with replacement; each refit starts anew from the grid.

    A refit that starts at the estimate and stays there would make the interval far too narrow: that is what happened
    to the published one of approach 3. Returns constants as arrays of `draws` entries.
    """
    frame, best = frame_of(runs), []
    for weights in _resampled(runs, by_cluster=by_cluster, draws=draws, seed=seed):
        begun = starts(form, frame.n, frame.d, frame.loss, weights)[0]
        best.append(_polished(form, begun, frame, weights).constants)
    return frame.constants(np.concatenate(best))


def _resampled(runs: Runs, *, by_cluster: bool, draws: int, seed: int) -> Iterator[Floats]:
    """How often each run is drawn, (fits, runs), in blocks."""
    members = np.unique(np.array(runs.clusters), return_inverse=True)[1] if by_cluster else np.arange(len(runs.loss))
    groups = int(members.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    for start in range(0, draws, _BLOCK):
        yield counts[start : start + _BLOCK][:, members].astype(np.float64)
