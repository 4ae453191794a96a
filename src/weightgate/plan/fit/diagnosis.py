"""What is wrong with a fit, or with runs, before anybody believes the constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from weightgate.plan.fit.fitting import Fit, fit, frame_of
from weightgate.plan.fit.forms import Floats
from weightgate.plan.fit.polish import huber
from weightgate.plan.fit.profile import Profile
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import Constants, LossLaw
from weightgate.plan.spread import interval
from weightgate.report.finding import Finding

SCALES = (1e-6, 1e6)
_SAME = 1e-3
"""Relative change of a constant that counts as none."""

_FEW_DECADES = 1.5
_CLOSE_CORRELATION = 0.9
_OUTLYING = 6.0
"""Robust standard deviations (1.4826 times the median absolute residual)."""

_MOST_OUTLIERS = 0.1
_MOVES = 0.15
"""Relative change of tokens a parameter, at the largest compute, that a finding is worth."""

_WORSE = 1.002
_FLAT_E = 0.02
"""Share of the smallest loss below which an irreducible loss counts as none."""


def diagnose(runs: Runs, fitted: Fit, draws: Constants, profiled: Mapping[str, Profile]) -> list[Finding]:
    """Everything that a look at the fit can find, the worst first."""
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: scale_finding(runs, fitted),
        lambda: starts_finding(fitted),
        lambda: floor_finding(runs, fitted, draws, profiled.get("E")),
        lambda: decades_finding(runs),
        lambda: correlation_finding(runs),
        lambda: outliers_finding(runs, fitted),
    )
    found = [check() for check in checks]
    return sorted(found, key=lambda finding: finding.severity == "pass")


def scale_finding(runs: Runs, fitted: Fit) -> Finding:
    """Refit with the objective multiplied by 1e-6 and 1e6: constants that change belong to the optimiser."""
    ones = np.ones(len(runs))
    moved = max(_change(fitted.constants, fit(runs, fitted.form, weights=scale * ones).constants) for scale in SCALES)
    if moved <= _SAME:
        return Finding(
            severity="pass", headline="the estimate is the same when the objective is multiplied by 1e-6 or 1e6"
        )
    return Finding(
        severity="fail",
        headline=f"multiplying the objective moves a constant by {moved:.1%}",
        detail="The optimiser stops where its tolerance says, not where the optimum is: the constants mean nothing.",
    )


def _change(one: Constants, other: Constants) -> float:
    return max(abs(float(getattr(other, name)) / float(value) - 1) for name, value in vars(one).items() if value > 1e-9)


def starts_finding(fitted: Fit) -> Finding:
    """Starts that end at different optima, and constants that stayed where a start put them."""
    best = min(start.ended for start in fitted.starts)
    astray = sum(start.ended > _WORSE * best for start in fitted.starts)
    stuck = sorted({name for start in fitted.starts if start.ended <= _WORSE * best for name in start.unmoved})
    if stuck or not fitted.settled:
        what = f"{', '.join(stuck)} never moved from the start" if stuck else "the optimiser did not come to rest"
        return Finding(
            severity="fail", headline=what, detail="A fit that stays where it began says nothing about the data."
        )
    if astray:
        return Finding(
            severity="warn",
            headline=f"{astray} of {len(fitted.starts)} starts ended elsewhere, at a worse optimum",
            detail="The best one is reported; with so few or so scattered runs there may be better ones still.",
        )
    return Finding(severity="pass", headline=f"all {len(fitted.starts)} starts moved, and ended at one optimum")


def floor_finding(runs: Runs, fitted: Fit, draws: Constants, profiled: Profile | None) -> Finding:
    """An irreducible loss that the runs do not determine, by either of its intervals."""
    if profiled is None:
        return Finding(severity="note", headline=f"the form {fitted.form.name} has no irreducible loss")
    low, high = interval(draws.E)
    words = (
        f"E is {float(fitted.constants.E):.3g} {runs.unit}, 95 % interval {low:.3g} to {high:.3g} by bootstrap, "
        f"{profiled.low:.3g} to {profiled.high:.3g} by likelihood"
    )
    nothing = _FLAT_E * runs.loss.min()
    if profiled.open_low and profiled.open_high:
        what = "the likelihood is flat in E: the runs fit any irreducible loss"
    elif profiled.open_low or profiled.low < nothing:
        what = "the likelihood allows an irreducible loss of 0"
    elif low < nothing:
        what = "the irreducible loss is not determined"
    else:
        return Finding(severity="pass", headline=words)
    return Finding(
        severity="warn",
        headline=f"{what}; {words}",
        detail="Forecasts far beyond the data hang on it. Runs of more compute would tell.",
    )


def decades_finding(runs: Runs) -> Finding:
    """Too little compute between the smallest and the largest run."""
    decades = float(np.log10(runs.flops.max() / runs.flops.min()))
    words = f"the runs span {decades:.1f} decades of compute"
    if decades < _FEW_DECADES:
        return Finding(
            severity="warn",
            headline=words,
            detail="Exponents from less than one and a half are hardly more than a guess.",
        )
    return Finding(severity="pass", headline=words)


def correlation_finding(runs: Runs) -> Finding:
    """Tokens that nearly follow from parameters."""
    r = float(np.corrcoef(np.log(runs.parameters), np.log(runs.tokens))[0, 1])
    words = f"parameters and tokens correlate at {r:.2f} (logarithms)"
    if abs(r) > _CLOSE_CORRELATION:
        return Finding(
            severity="warn",
            headline=words,
            detail="The two exponents can hardly be told apart. Add runs with fewer and with more tokens a parameter.",
        )
    return Finding(severity="pass", headline=words)


def outliers_finding(runs: Runs, fitted: Fit) -> Finding:
    """Runs far off the fit whose absence moves the answer."""
    sizes = np.abs(fitted.residuals)
    far = sizes > _OUTLYING * 1.4826 * float(np.median(sizes))
    if not far.any():
        return Finding(severity="pass", headline="no run lies far off the fit")
    if far.sum() > _MOST_OUTLIERS * len(runs) or len(runs) - far.sum() <= fitted.form.num_free:
        return Finding(severity="warn", headline=f"{int(far.sum())} of {len(runs)} runs lie far off the fit")
    without = fit(runs.where(~far), fitted.form)
    largest = float(runs.flops.max())
    before, after = _tokens_a_parameter(fitted.constants, largest), _tokens_a_parameter(without.constants, largest)
    words = (
        f"{int(far.sum())} runs lie far off the fit; without them tokens a parameter are {after:.3g}, not {before:.3g}"
    )
    return Finding(
        severity="warn" if abs(after / before - 1) > _MOVES else "pass",
        headline=words,
        detail="Points read off a figure, unfinished schedules and very few tokens a parameter do this.",
        evidence=tuple(_evidence(runs, fitted.residuals, far)),
    )


def _tokens_a_parameter(constants: Constants, flops: float) -> float:
    parameters, tokens = constants.optimum(flops)
    return float(tokens / parameters)


def _evidence(runs: Runs, residuals: Floats, chosen: np.ndarray) -> Iterator[tuple[str, ...]]:
    for index in np.flatnonzero(chosen):
        yield (
            f"{runs.parameters[index]:.3g} parameters",
            f"{runs.tokens[index]:.3g} tokens",
            f"loss {runs.loss[index]:.4g}",
            f"{np.expm1(-residuals[index]):+.1%} off",
        )


def claim_finding(runs: Runs, fitted: Fit, claimed: LossLaw) -> Finding:
    """Whether stated constants are where the same objective has its optimum on these runs."""
    frame = frame_of(runs)
    residuals = np.log(claimed.constants.loss(runs.parameters, runs.tokens)) - np.log(frame.loss)
    theirs, ours = float(huber(residuals).sum()), fitted.objective
    words = (
        f"{claimed.name} leaves an objective of {theirs:.4g} on these runs, {fitted.form.name} at its best {ours:.4g}"
    )
    if theirs > _WORSE * ours:
        return Finding(
            severity="warn",
            headline=words,
            detail=f"It is {theirs / ours - 1:.1%} above: rounded, fitted to other runs, or stopped early.",
        )
    return Finding(severity="pass", headline=words)
