"""Profile likelihoods against brute force: a grid over all other constants, and the likelihood integrated anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from weightgate.plan.fit import diagnosis
from weightgate.plan.fit.fitting import bootstrap, fit
from weightgate.plan.fit.forms import CHINCHILLA, FORMS, KAPLAN, TIED
from weightgate.plan.fit.polish import HUBER_DELTA, huber
from weightgate.plan.fit.profile import CHI_SQUARED_95, COORDINATES, deviances, profile, profiles
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import Constants

ZOOMS, CELLS, SHRINK = 26, 13, 0.55


def runs_of(law: Constants, *, noise: float, seed: int = 3, sizes: int = 8) -> Runs:
    parameters = np.repeat(np.geomspace(1e7, 3e9, sizes), 3)
    tokens = parameters * np.tile([5.0, 20.0, 80.0], sizes)
    rng = np.random.default_rng(seed)
    loss = np.asarray(law.loss(parameters, tokens)) * np.exp(noise * rng.standard_normal(len(parameters)))
    return Runs(
        parameters=parameters,
        tokens=tokens,
        loss=loss,
        clusters=tuple(f"{size:.3g}" for size in parameters),
        seconds=np.full(len(loss), np.nan),
    )


TRUTH = Constants(A=300.0, B=900.0, E=1.8, alpha=0.34, beta=0.34)


def least_by_grid(runs: Runs, floor: float) -> float:
    """Smallest objective of the tied form with E held: a grid over ln A, ln B and alpha that closes in."""
    n, d = np.log(runs.parameters), np.log(runs.tokens)
    centre, width = np.array([math.log(300), math.log(900), 0.34]), np.array([6.0, 6.0, 0.3])
    best = math.inf
    for _ in range(ZOOMS):
        axes = [middle + reach * np.linspace(-1, 1, CELLS) for middle, reach in zip(centre, width, strict=True)]
        a, b, alpha = (each.ravel()[:, None] for each in np.meshgrid(*axes, indexing="ij"))
        reducible = np.exp(a - alpha * n) + np.exp(b - alpha * d)
        sums = huber(np.log(floor + reducible) - np.log(runs.loss)).sum(axis=1)
        lowest = int(np.argmin(sums))
        best = min(best, float(sums[lowest]))
        centre, width = np.array([a[lowest, 0], b[lowest, 0], alpha[lowest, 0]]), width * SHRINK
    return best


def likelihood_by_integral(objective: float, n: int) -> float:
    """Largest log-likelihood over the scale, its normaliser integrated numerically."""

    def negative(log_scale: float) -> float:
        scale = math.exp(log_scale)

        def density(residual: float) -> float:
            return math.exp(-float(huber(np.array(residual))) / scale)

        far = 60 * (scale / HUBER_DELTA + math.sqrt(scale))
        points = [math.sqrt(scale), HUBER_DELTA, scale / HUBER_DELTA]
        normaliser = 2 * quad(density, 0, far, points=[p for p in points if p < far], limit=400)[0]
        return objective / scale + n * math.log(normaliser)

    found = minimize_scalar(negative, bounds=(math.log(1e-9), math.log(1e-3)), method="bounded")
    return -float(found.fun)


def test_the_profile_of_e_is_that_of_a_grid() -> None:
    runs = runs_of(TRUTH, noise=0.01)
    fitted = fit(runs, TIED)
    found = profile(runs, fitted, "E")
    assert found.low < fitted.constants.E < found.high
    assert not found.open_low
    assert not found.open_high
    values = np.array([found.low, 0.97 * fitted.constants.E, 1.02 * fitted.constants.E, found.high])
    free = (len(runs) - TIED.num_free) / len(runs)
    highest = likelihood_by_integral(fitted.objective, len(runs))
    expected = [2 * free * (highest - likelihood_by_integral(least_by_grid(runs, e), len(runs))) for e in values]
    assert deviances(runs, fitted, "E", values) == pytest.approx(expected, abs=0.02)
    assert [expected[0], expected[-1]] == pytest.approx([CHI_SQUARED_95] * 2, abs=0.15)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_constant_that_is_free_has_a_profile_with_its_estimate_at_the_foot(form: object) -> None:
    chosen = next(each for each in FORMS if each is form)
    runs = runs_of(TRUTH, noise=0.005)
    fitted = fit(runs, chosen)
    found = profiles(runs, fitted)
    assert set(found) == {name for name, coordinate in COORDINATES.items() if coordinate in chosen.free}
    for name, each in found.items():
        estimate = float(getattr(fitted.constants, name))
        assert each.low <= estimate <= each.high
        at = np.array(each.points)
        assert (np.diff(at[:, 0]) > 0).all()
        assert at[np.argmin(np.abs(at[:, 0] - estimate)), 1] == pytest.approx(0, abs=1e-3)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """16 made sets at 95 %: fewer than 12 would come with odds of 1 in 1,000."""
    held = 0
    for seed in range(16):
        runs = runs_of(TRUTH, noise=0.01, seed=seed, sizes=6)
        found = profile(runs, fit(runs, TIED), "E")
        held += found.low <= TRUTH.E <= found.high
    assert held >= 12


def test_a_flat_profile_and_one_that_touches_zero_are_warned_about() -> None:
    nothing = runs_of(Constants(A=30.0, B=60.0, E=0.001, alpha=0.12, beta=0.15), noise=0.01)
    fitted = fit(nothing, CHINCHILLA)
    found = profile(nothing, fitted, "E")
    assert found.open_low
    finding = diagnosis.floor_finding(nothing, fitted, bootstrap(nothing, CHINCHILLA, draws=40), found)
    assert (finding.severity, "irreducible loss of 0" in finding.headline) == ("warn", True)
    noisy = runs_of(TRUTH, noise=0.5, sizes=3)
    wide = profile(noisy, fit(noisy, TIED), "E")
    assert (wide.open_low, wide.open_high) == (True, True)
    finding = diagnosis.floor_finding(noisy, fit(noisy, TIED), bootstrap(noisy, TIED, draws=40), wide)
    assert "flat in E" in finding.headline
    sure = runs_of(TRUTH, noise=0.001)
    sharp = profile(sure, fit(sure, CHINCHILLA), "E")
    assert sharp.high - sharp.low < 0.1 * (wide.high - wide.low)
    found_sure = diagnosis.floor_finding(sure, fit(sure, CHINCHILLA), bootstrap(sure, CHINCHILLA, draws=40), sharp)
    assert found_sure.severity == "pass"
    assert diagnosis.floor_finding(sure, fit(sure, KAPLAN), bootstrap(sure, KAPLAN, draws=40), None).severity == "note"
