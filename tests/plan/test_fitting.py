"""Fits to public runs against published optima, to runs of a known law, and to input that no law can be fitted to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate.errors import DataError
from weightgate.plan.fit import diagnosis, profile, report
from weightgate.plan.fit.fitting import bootstrap, fit
from weightgate.plan.fit.forecast import forecast, refits
from weightgate.plan.fit.forms import CHINCHILLA, COUPLED, FORMS, KAPLAN, TIED, Form, curvature, log_loss, predict
from weightgate.plan.fit.holdout import compare, split
from weightgate.plan.fit.report import fit_answer, fit_runs
from weightgate.plan.fit.runs import LEAST_RUNS, Runs, usable
from weightgate.plan.fit.table import read_runs
from weightgate.plan.fit.timing import fit_timing, forecast_seconds
from weightgate.plan.laws.loss import BESIROGLU, CHINCHILLA_REFIT, HOFFMANN_FULL, HOFFMANN_PRINTED, Constants
from weightgate.plan.laws.saved import find_law
from weightgate.plan.spread import interval
from weightgate.stats import Estimate, Unmeasured

TRUTH = Constants(A=400.0, B=2000.0, E=1.8, alpha=0.35, beta=0.37)


def made_runs(
    law: Constants = TRUTH, *, noise: float = 0.0, seed: int = 0, ratios: tuple[float, ...] = (5.0, 20.0, 80.0)
) -> Runs:
    """Runs of a known law: eight sizes, each with several numbers of tokens a parameter."""
    sizes = np.geomspace(1e7, 3e9, 8)
    parameters, ratio = (each.ravel() for each in np.meshgrid(sizes, ratios, indexing="ij"))
    tokens = ratio * parameters
    rng = np.random.default_rng(seed)
    loss = np.asarray(law.loss(parameters, tokens)) * np.exp(noise * rng.standard_normal(len(parameters)))
    return Runs(
        parameters=parameters,
        tokens=tokens,
        loss=loss,
        clusters=tuple(f"{size:.3g}" for size in parameters),
        seconds=tokens * (1e-6 + 6 * parameters / 1e14),
    )


@pytest.fixture(scope="module")
def epoch(scaling_data: Path) -> Runs:
    return usable(read_runs(scaling_data / "epoch_chinchilla_svg_extracted_data.csv"))


def test_epochs_points_give_the_optimum_of_the_published_objective(epoch: Runs) -> None:
    assert len(epoch) == 240
    assert epoch.notes == ("5 runs with fewer than 0.41 tokens a parameter were left out",)
    found = fit(epoch, CHINCHILLA)
    constants = found.constants
    found_values = [constants.A, constants.B, constants.E, constants.alpha, constants.beta]
    assert found_values == pytest.approx([477.83, 2143.4, 1.81722, 0.34731, 0.36717], rel=1e-3)
    assert found.objective == pytest.approx(1.0182740178e-3, rel=1e-8)
    assert all(start.ended == pytest.approx(found.objective, rel=1e-9) for start in found.starts)
    shipped = CHINCHILLA_REFIT.constants
    shipped_values = [shipped.A, shipped.B, shipped.E, shipped.alpha, shipped.beta]
    assert found_values == pytest.approx(shipped_values, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_estimate_is_free_of_the_objectives_scale(epoch: Runs, form: Form, scale: float) -> None:
    once = fit(epoch, form)
    scaled = fit(epoch, form, weights=np.full(len(epoch), scale))
    assert list(vars(scaled.constants).values()) == pytest.approx(list(vars(once.constants).values()), rel=1e-6)
    assert scaled.objective == pytest.approx(scale * once.objective, rel=1e-9)


def test_the_bootstrap_gives_the_published_intervals(epoch: Runs) -> None:
    """Against those of the reference bootstrap; 200 draws move an end of an interval by about a tenth of its width."""
    drawn = bootstrap(epoch, CHINCHILLA, draws=200)
    for name, low, high in (("alpha", 0.317, 0.3706), ("beta", 0.3319, 0.4153), ("E", 1.7685, 1.8716)):
        found = interval(getattr(drawn, name))
        assert found == pytest.approx((low, high), abs=0.15 * (high - low))
    parameters, tokens = drawn.optimum(5.88e23)
    low, high = interval(tokens / parameters)
    assert (low, high) == pytest.approx((7.6, 36.6), rel=0.2)
    published = find_law("chinchilla-refit").draws
    assert published is not None
    assert interval(published.optimum(5.88e23)[1] / published.optimum(5.88e23)[0]) == pytest.approx(
        (7.6, 36.6), rel=0.2
    )


def test_stated_constants_are_held_against_the_optimum(epoch: Runs) -> None:
    best = fit(epoch, CHINCHILLA)
    for law, severity in ((HOFFMANN_FULL, "warn"), (HOFFMANN_PRINTED, "warn"), (CHINCHILLA_REFIT, "pass")):
        assert diagnosis.claim_finding(epoch, best, law).severity == severity
    assert "20.9%" in diagnosis.claim_finding(epoch, best, HOFFMANN_FULL).detail
    assert diagnosis.claim_finding(epoch, best, BESIROGLU).severity == "warn"


def test_outliers_that_move_the_answer_are_named(scaling_data: Path) -> None:
    everything = usable(read_runs(scaling_data / "epoch_chinchilla_svg_extracted_data.csv"), least_ratio=1e-9)
    found = fit(everything, CHINCHILLA)
    assert len(everything) == 245
    assert found.constants.beta == pytest.approx(0.4530, abs=1e-3)
    finding = diagnosis.outliers_finding(everything, found)
    assert finding.severity == "warn"
    assert len(finding.evidence) >= 5


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_derivatives(form: Form) -> None:
    """First and second derivatives of ln L against differences of it."""
    rng = np.random.default_rng(1)
    n, d = rng.normal(size=5), rng.normal(size=5)
    at = np.array([[0.2, -0.1, 0.3, 0.4, 0.5, -0.3]])
    weights = rng.normal(size=(1, 5))
    predicted, h = predict(at, n, d), 1e-4

    def total(constants: np.ndarray) -> float:
        return float((weights * log_loss(constants, n, d)).sum())

    def moved(*steps: tuple[int, float]) -> np.ndarray:
        there = at.copy()
        for index, step in steps:
            there[0, index] += step
        return there

    for i in range(6):
        numeric = (total(moved((i, h))) - total(moved((i, -h)))) / (2 * h)
        assert (weights * predicted.gradient[:, i]).sum() == pytest.approx(numeric, abs=1e-7)
        for j in range(6):
            cross = (
                total(moved((i, h), (j, h)))
                - total(moved((i, h), (j, -h)))
                - total(moved((i, -h), (j, h)))
                + total(moved((i, -h), (j, -h)))
            ) / (4 * h * h)
            assert curvature(predicted, weights)[0, i, j] == pytest.approx(cross, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    alpha=st.floats(0.2, 0.6),
    beta=st.floats(0.2, 0.6),
    floor=st.floats(0.5, 2.5),
    reducible=st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0)),
)
def test_a_law_without_noise_is_found_again(
    alpha: float, beta: float, floor: float, reducible: tuple[float, float]
) -> None:
    law = Constants(A=reducible[0] * 1e8**alpha, B=reducible[1] * 2e9**beta, E=floor, alpha=alpha, beta=beta)
    found = fit(made_runs(law), CHINCHILLA).constants
    assert (found.alpha, found.beta, found.E) == pytest.approx((alpha, beta, floor), rel=1e-3)


def test_every_form_is_found_again_on_its_own_runs() -> None:
    laws = {
        TIED: Constants(A=400.0, B=1500.0, E=1.8, alpha=0.35, beta=0.35),
        COUPLED: Constants(A=3000.0, B=20000.0, E=1.7, alpha=0.45, beta=0.47, k=0.7),
        KAPLAN: Constants(A=3e8, B=2e12, E=0.0, alpha=0.7, beta=1.0, k=0.1),
    }
    for form, law in laws.items():
        runs = made_runs(law)
        found = fit(runs, form)
        assert np.asarray(found.constants.loss(runs.parameters, runs.tokens)) == pytest.approx(runs.loss, rel=1e-5)


def test_the_form_is_chosen_where_it_matters() -> None:
    """On runs of a law with unlike exponents the tied form forecasts worse than that law's own form."""
    runs = made_runs(Constants(A=60.0, B=20000.0, E=1.8, alpha=0.22, beta=0.5), noise=1e-4)
    order = [each.form.name for each in compare(runs)]
    assert order.index("chinchilla") < order.index("tied")


def test_forecasts_cover_the_truth_on_runs_of_a_known_law() -> None:
    """3 noisy samples, 90 % intervals: fewer than 2 hits have odds of 1 in 36 if the coverage is 90 %.

    The seeds are fixed, so the outcome is as well.
    """
    hits = 0
    for seed in range(3):
        runs = made_runs(noise=0.01, seed=seed)
        fitted, held = split(runs, 0.1)
        compared = compare(fitted)
        ahead = forecast(fitted, compared, refits(fitted, compared, draws=40), held.parameters, held.tokens)
        hits += int(ahead.low[-1] <= held.loss[-1] <= ahead.high[-1])
    assert hits >= 2


def test_refits_that_run_away_leave_no_hole_in_an_interval() -> None:
    """Of nine builds a draw holds six: too few for a form of six constants, whose exponents then have no bound."""
    rows = (
        (101_320, 400_998, 0.4439),
        (249_280, 600_632, 0.38),
        (101_320, 1_601_564, 0.2894),
        (590_688, 799_971, 0.3574),
        (249_280, 2_402_810, 0.2405),
        (1_000_576, 1_201_070, 0.3302),
        (590_688, 2_402_810, 0.2361),
        (1_000_576, 3_000_850, 0.2358),
        (1_834_720, 2_001_405, 0.2434),
    )
    parameters, tokens, loss = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    nine = replace(made_runs().where(np.arange(9)), parameters=parameters, tokens=tokens, loss=loss)
    compared = compare(nine)
    target = np.array([2_970_032.0]), np.array([2_803_207.0])
    ahead = forecast(nine, compared, refits(nine, compared, draws=400), *target)
    assert np.isfinite([ahead.low, ahead.high]).all()


def test_timing_separates_tokens_from_arithmetic() -> None:
    runs = made_runs()
    small = runs.where(runs.parameters < 1e9)
    timing = fit_timing(small.parameters, small.tokens, small.seconds)
    assert timing.seconds_per_token == pytest.approx(1e-6, rel=1e-6)
    assert timing.seconds_per_flop == pytest.approx(1e-14, rel=1e-6)
    ahead = forecast_seconds(small, 3e9, 6e10)
    assert isinstance(ahead, Estimate)
    assert ahead.value == pytest.approx(6e10 * (1e-6 + 6 * 3e9 / 1e14), rel=1e-6)
    assert isinstance(forecast_seconds(small.where(np.arange(2)), 3e9, 6e10), Unmeasured)
    growing = fit_timing(np.array([1e6, 2e6]), np.array([1e9, 1e9]), np.array([10.0, 25.0]))
    assert growing.seconds_per_token == 0.0


def test_timing_knows_what_grows_with_the_activations() -> None:
    parameters, tokens = np.array([1e5, 2.4e5, 5.8e5, 1e6, 1.8e6]), np.full(5, 1e6)
    truth = tokens * (8e-7 + 5e-9 * parameters ** (2 / 3) + 6 * parameters * 1e-12)
    timing = fit_timing(parameters, tokens, truth)
    assert timing.seconds_per_activation == pytest.approx(5e-9, rel=1e-4)
    assert timing.seconds(3e6, 2e6) == pytest.approx(2e6 * (8e-7 + 5e-9 * 3e6 ** (2 / 3) + 6 * 3e6 * 1e-12), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda runs: runs.where(np.arange(LEAST_RUNS - 1)), "too few runs"),
        (lambda _: made_runs(ratios=(20.0,)), "20 tokens a parameter"),
        (lambda runs: replace(runs, loss=1 / runs.loss), "rises with compute"),
        (lambda runs: runs.where(np.isclose(runs.parameters, runs.parameters[0])), "too few runs"),
        (lambda runs: made_runs(Constants(A=1e-30, B=1e-30, E=2.0, alpha=0.3, beta=0.3)), "same loss"),
    ],
)
def test_runs_that_no_law_can_be_fitted_to_are_refused(change: Callable[[Runs], Runs], says: str) -> None:
    runs = change(made_runs())
    with pytest.raises(DataError) as refusal:
        usable(runs)
    assert says in str(refusal.value)


def test_fixed_tokens_are_refused(scaling_data: Path) -> None:
    runs = read_runs(scaling_data / "pythia_published.csv", named={"loss": "pile_test_xent_nats_per_gpt2_token"})
    with pytest.raises(DataError, match="parameters from that of tokens") as refusal:
        usable(runs)
    assert "same number of tokens" in str(refusal.value)


def test_warnings_about_a_poor_design() -> None:
    narrow = made_runs(noise=0.01)
    middle = narrow.where(
        (narrow.flops > np.quantile(narrow.flops, 0.3)) & (narrow.flops < np.quantile(narrow.flops, 0.6))
    )
    assert diagnosis.decades_finding(middle).severity in ("warn", "pass")
    assert diagnosis.decades_finding(narrow).severity == "pass"
    assert diagnosis.correlation_finding(made_runs(ratios=(15.0, 20.0, 30.0))).severity == "warn"
    flat = made_runs(Constants(A=30.0, B=60.0, E=0.001, alpha=0.12, beta=0.15), noise=0.01)
    fitted = fit(flat, CHINCHILLA)
    finding = diagnosis.floor_finding(
        flat, fitted, bootstrap(flat, CHINCHILLA, draws=50), profile.profile(flat, fitted, "E")
    )
    assert finding.severity == "warn"


def test_forms_by_which_the_loss_rises_with_parameters_are_no_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss falls with compute, but by its tokens alone: the more parameters, the worse."""
    odd = made_runs()
    odd = replace(odd, loss=2.0 + 900 * odd.tokens**-0.35 + 0.02 * np.log(odd.parameters / 1e7))
    assert fit(odd, CHINCHILLA).constants.alpha < 0
    fitted = fit_runs(odd, draws=20)
    assert {each.form.name for each in fitted.compared} == {"tied", "kaplan"}
    monkeypatch.setattr(report, "_falls", lambda constants: False)
    with pytest.raises(DataError, match="no law fits these runs") as refusal:
        fit_runs(odd, draws=20)
    assert "chinchilla alpha -0.0251" in str(refusal.value)


def test_fits_that_mean_nothing_are_called_so() -> None:
    runs = made_runs(noise=0.005)
    good = fit(runs, CHINCHILLA)
    assert diagnosis.starts_finding(good).severity == "pass"
    assert diagnosis.scale_finding(runs, good).severity == "pass"
    stuck = replace(good, starts=(replace(good.starts[0], unmoved=("alpha",)),))
    assert diagnosis.starts_finding(stuck).severity == "fail"
    assert "alpha never moved" in diagnosis.starts_finding(stuck).headline
    astray = replace(good, starts=(*good.starts, replace(good.starts[0], ended=2 * good.objective)))
    assert diagnosis.starts_finding(astray).severity == "warn"
    early = replace(good, constants=replace(good.constants, beta=1.1 * good.constants.beta))
    assert diagnosis.scale_finding(runs, early).severity == "fail"


def test_an_answer_has_intervals_for_everything_and_saves_its_law(tmp_path: Path) -> None:
    fitted = fit_runs(made_runs(noise=0.005), draws=60)
    answer = fit_answer(fitted, point=(1e10, 2e11))
    ahead = answer.numbers["forecast"]
    assert ahead["interval_90"][0] < ahead["loss"] < ahead["interval_90"][1]
    assert float(TRUTH.loss(1e10, 2e11)) == pytest.approx(ahead["loss"], rel=0.02)
    assert ahead["seconds"]["value"] == pytest.approx(2e11 * (1e-6 + 6e10 / 1e14), rel=1e-4)
    assert set(answer.numbers["forms"]) == {form.name for form in FORMS}
    assert {"value", "95 %, by run", "95 %, by cluster", "95 %, by likelihood"} <= {
        column["name"] for block in answer.page.to_json()["blocks"] for column in block.get("columns", ())
    }
