"""Forecasts from a handful of runs: where a bootstrap has nothing left to say, and what a profile says there."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from weightgate.plan.fit.fitting import fit
from weightgate.plan.fit.forecast import forecast, refits
from weightgate.plan.fit.forms import CHINCHILLA, TIED
from weightgate.plan.fit.holdout import compare
from weightgate.plan.fit.prediction import forecast_profile, share_without_spare, too_few_to_resample
from weightgate.plan.fit.runs import Runs
from weightgate.plan.laws.loss import Constants

LAW = Constants(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
TIED_LAW = Constants(A=400.0, B=900.0, E=1.69, alpha=0.32, beta=0.32)
LADDER = [(n, d) for n, d in product((1e6, 4e6, 16e6), (2e7, 1e8, 5e8))]
AHEAD = (6.4e7, 2e9)


def ladder(noise: float, seed: int, times: int = 1, law: Constants = LAW) -> Runs:
    """Nine runs of a law, or each several times, with errors of `noise` in ln loss."""
    n, d = (np.array(column * times) for column in map(list, zip(*LADDER, strict=True)))
    errors = np.random.default_rng(seed).normal(0.0, noise, len(n))
    loss = np.asarray(law.loss(n, d)) * np.exp(errors)
    return Runs(parameters=n, tokens=d, loss=loss, seconds=np.full(len(n), np.nan), clusters=tuple(map(str, n)))


def test_the_share_of_samples_without_a_run_to_spare_is_counted_exactly() -> None:
    samples = list(product(range(4), repeat=4))
    for most in range(5):
        counted = sum(len(set(sample)) <= most for sample in samples) / len(samples)
        assert share_without_spare(4, most) == pytest.approx(counted)
    assert too_few_to_resample(ladder(0.01, 0), CHINCHILLA)
    assert not too_few_to_resample(ladder(0.01, 0, times=4), CHINCHILLA)


def test_the_profile_of_many_runs_is_the_interval_of_least_squares() -> None:
    """81 runs, errors so small that Huber's loss is a square: tau reaches 1 where the delta method says."""
    runs = ladder(1e-4, 3, times=9, law=TIED_LAW)
    fitted = fit(runs, TIED)
    found = forecast_profile(runs, fitted, *AHEAD)
    one = float(np.interp(1.0, found.tau, found.log_losses) - np.interp(0.0, found.tau, found.log_losses))
    assert one == pytest.approx(delta_method(runs), rel=0.15)


def delta_method(runs: Runs) -> float:
    """Standard error of ln loss ahead, derivatives by differences: sqrt(g' (J'J)^-1 g s^2)."""
    fitted = fit(runs, TIED)
    logs = np.array([math.log(getattr(fitted.constants, name)) for name in ("A", "B", "E", "alpha")])

    def log_loss(values: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        a, b, e, exponent = np.exp(values)
        return np.log(e + a * n**-exponent + b * d**-exponent)

    def slopes(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        step = 1e-5 * np.eye(4)
        return np.stack([(log_loss(logs + s, n, d) - log_loss(logs - s, n, d)) / 2e-5 for s in step], axis=1)

    jacobian = slopes(runs.parameters, runs.tokens)
    ahead = slopes(*(np.array([value]) for value in AHEAD))[0]
    variance = float((fitted.residuals**2).sum()) / (len(runs) - 4)
    return math.sqrt(variance * float(ahead @ np.linalg.solve(jacobian.T @ jacobian, ahead)))


def test_nine_runs_are_forecast_with_an_interval_of_use() -> None:
    """The 90 % interval holds what is to come; its ends are no factor of two apart, as those of a bootstrap are."""
    runs = ladder(0.003, 5)
    compared = compare(runs)
    drawn = refits(runs, compared, draws=60)
    ahead = forecast(runs, compared, drawn, *(np.array([value]) for value in AHEAD))
    assert ahead.low[0] < float(LAW.loss(*AHEAD)) < ahead.high[0]
    assert ahead.low[0] < ahead.value[0] < ahead.high[0] < 2 * ahead.low[0]
