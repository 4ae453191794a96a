"""`weightgate plan` and its commands as a user runs them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_verb import invoke, numbers

from weightgate.errors import UserError
from weightgate.plan.advice import data_advice, excess_measurement
from weightgate.plan.hardware.devices import load_hardware
from weightgate.plan.hardware.utilisation import PYTHIA, utilisation_by_size
from weightgate.plan.laws.loss import CHINCHILLA_REFIT, LOSS_LAWS
from weightgate.plan.laws.saved import find_law
from weightgate.plan.next_doubling import Run
from weightgate.plan.quantities import read_quantity, spell_quantity
from weightgate.recipe_template import write_template
from weightgate.stats import Estimate, Unmeasured


def refused(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_the_best_use_of_flops() -> None:
    found = numbers("optimal", "--compute", "5.76e23")
    assert found["parameters"]["value"] == pytest.approx(7.319e10, rel=5e-4)
    assert found["tokens"]["value"] == pytest.approx(1.312e12, rel=5e-4)
    low, high = found["parameters"]["bootstrap_95"]
    assert low < found["parameters"]["value"] < high
    assert found["parameters"]["over_laws"][0] <= 67.5e9 <= found["parameters"]["over_laws"][1]
    assert {row["law"] for row in found["laws"]} >= {law.name for law in LOSS_LAWS}
    assert [row["law"] for row in found["laws"] if not row["counted"]] == [
        "hoffmann-full",
        "hoffmann-printed",
        "kaplan",
    ]


def test_dollars_and_hours_give_the_same_budget() -> None:
    machine = ("--gpu", "h100", "--utilisation", "0.4", "--price", "2")
    hours = numbers("optimal", "--hours", "100", "--gpus", "8", *machine)
    dollars = numbers("optimal", "--dollars", "1600", *machine)
    assert hours["flops"]["value"] == pytest.approx(8 * 100 * 3600 * 9.89e14 * 0.4)
    assert dollars["flops"]["value"] == pytest.approx(hours["flops"]["value"])
    assert hours["cost"]["hours"]["value"] == pytest.approx(100)
    assert dollars["cost"]["dollars"]["value"] == pytest.approx(1600)


def test_without_a_measured_utilisation_and_price_both_are_ranges() -> None:
    found = numbers("optimal", "--compute", "1e20", "--gpu", "h100")
    for name in ("hours", "dollars"):
        assert found["cost"][name]["low"] < found["cost"][name]["value"] < found["cost"][name]["high"]
    assert found["cost"]["dollars"]["high"] > 6 * found["cost"]["dollars"]["low"]


def test_a_plan_of_ones_own_is_held_against_the_optimum(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = numbers("optimal", "--compute", "1e21", "--params", "50B", "--tokens", "3.3B", "--html", page)
    assert found["excess_compute"]["value"] > 3
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") > 4
    assert "this plan" in text
    assert "<script" not in text


def test_inference_makes_the_published_example() -> None:
    found = numbers("inference", "--like", "30B", "--demand", "1e13", "--law", "hoffmann-printed")
    assert found["parameters"]["value"] == pytest.approx(15.9e9, rel=0.005)
    assert found["saving"]["value"] == pytest.approx(0.182, abs=0.001)
    cheap = numbers(
        *("inference", "--like", "30B", "--demand", "1e13", "--law", "hoffmann-printed"),
        *("--utilisation", "0.4", "--inference-utilisation", "0.1"),
    )
    assert cheap["inference_price"] == pytest.approx(4)
    assert cheap["parameters"]["value"] < found["parameters"]["value"]


def test_tasks_and_waiting_are_told() -> None:
    """The 6.9B model on 20 tokens a parameter that the error law was held against."""
    found = numbers("optimal", "--compute", "5.7e21", "--params", "6.9B", "--tokens", "138B")["task_error"]
    assert 0.59 < found["low"] < found["value"] < found["high"] < 0.63
    better = numbers("optimal", "--compute", "5.7e23")["task_error"]
    assert better["value"] < found["value"]
    assert "What tasks would say" in " ".join(invoke("optimal", "--compute", "1e21").output.split())
    later = " ".join(invoke("inference", "--like", "30B", "--demand", "1e13").output.split())
    assert re.search(r"a year 8\d\dM", later)
    assert "14.4 times fewer" in later


def test_a_quality_may_be_a_loss() -> None:
    by_size = numbers("inference", "--like", "10B", "--demand", "1e12")
    by_loss = numbers("inference", "--quality", str(by_size["loss"]), "--demand", "1e12")
    assert by_loss["parameters"]["value"] == pytest.approx(by_size["parameters"]["value"], rel=1e-6)


def test_repeats_growth_and_fresh_data_are_weighed() -> None:
    found = numbers("data", "--tokens", "242B", "--unique", "25B", "--params", "6.34B", "--law", "muennighoff")
    assert found["passes"] == pytest.approx(9.68)
    gains = {choice["name"]: choice["gain"]["value"] for choice in found["choices"]}
    assert gains["repeat, as planned"] == 0
    assert gains["collect the rest"] > 0 > gains["stop after one pass"]
    flops = {choice["name"]: choice["flops"] for choice in found["choices"]}
    assert flops.pop("stop after one pass") == pytest.approx(6 * 6.34e9 * 25e9)
    assert list(flops.values()) == pytest.approx([6 * 6.34e9 * 242e9] * 4)


def test_more_unique_tokens_than_are_read_change_nothing() -> None:
    found = numbers("data", "--tokens", "1B", "--unique", "9B")
    assert found["effective_tokens"] == pytest.approx(1e9)
    assert [choice["gain"]["value"] for choice in found["choices"]][-1] == pytest.approx(0)


def test_the_next_doubling_has_its_price_and_a_break_even() -> None:
    plain = ("next", "--params", "1B", "--tokens", "20B", "--unique", "3B", "--gpu", "h100")
    found = numbers(*plain)
    even = found["break_even_dollars_per_token"]
    doubled = found["doublings"]["compute, split as is best"]
    assert even == pytest.approx(
        doubled["more_dollars"]["value"]
        * found["doublings"]["unique data, at the same compute"]["gain"]["value"]
        / doubled["gain"]["value"]
        / 3e9
    )
    cheap, dear = (invoke(*plain, "--data-price", str(even * 1e9 * factor)).output for factor in (0.5, 2.0))
    assert "better spent on data" in " ".join(cheap.split())
    assert "better spent on compute" in " ".join(dear.split())
    without = invoke(*plain[:5]).output
    assert "more data alone buys nothing" in " ".join(without.split())


def test_a_saved_fit_is_a_law_like_any_other(tmp_path: Path) -> None:
    rows = ["params,tokens,loss"]
    for size in np.geomspace(1e7, 1e9, 6):
        for ratio in (5, 20, 80):
            loss = float(CHINCHILLA_REFIT.constants.loss(size, ratio * size))
            rows.append(f"{size:.6g},{ratio * size:.6g},{loss:.6g}")
    table, law = tmp_path / "runs.csv", tmp_path / "law.json"
    table.write_text("\n".join(rows), encoding="utf-8")
    fitted = numbers("fit", table, "--draws", "20", "--save", law, "--params", "1e10", "--tokens", "2e11")
    assert fitted["forecast"]["loss"] == pytest.approx(float(CHINCHILLA_REFIT.constants.loss(1e10, 2e11)), rel=0.01)
    found = numbers("optimal", "--compute", "1e21", "--law", law)
    assert found["parameters"]["value"] == pytest.approx(2.79e9, rel=0.2)
    assert found["parameters"]["bootstrap_95"] is not None
    law.write_text(law.read_text(encoding="utf-8").replace('"alpha"', '"aleph"'), encoding="utf-8")
    unread = refused("optimal", "--compute", "1e21", "--law", law)
    assert "the law cannot be read" in unread
    assert "constants.alpha: Field required" in unread


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("optimal",), "say the budget in one way"),
        (("optimal", "--compute", "1e21", "--hours", "3"), "say the budget in one way"),
        (("optimal", "--compute", "-1e21"), "--compute"),
        (("optimal", "--compute", "nan"), "no quantity"),
        (("optimal", "--compute", "1e400"), "no quantity"),
        (("optimal", "--compute", "0"), "no quantity"),
        (("optimal", "--compute", ""), "nothing"),
        (("optimal", "--compute", "1,5e21"), "1,5e21"),
        (("optimal", "--compute", "1e21 FLOPs"), "1e21 FLOPs"),
        (("optimal", "--compute", "1e21", "--params", "7 billion", "--tokens", "1T"), "7 billion"),
        (("optimal", "--compute", "1e41"), "up to 1e+40"),
        (("data", "--tokens", "1e300", "--unique", "1"), "up to 1e+40"),
        (("optimal", "--compute", "1"), "at least 1B"),
        (("optimal", "--dollars", "5"), "needs a kind of accelerator"),
        (("optimal", "--compute", "1e21", "--price", "3"), "without a kind of accelerator"),
        (("optimal", "--compute", "1e21", "--gpus", "8"), "without a kind of accelerator"),
        (("optimal", "--compute", "1e21", "--gpu", "h100", "--utilisation", "40%"), "such as 0.4"),
        (("next", "--recipe", "nowhere.yaml"), "give --params and --tokens"),
        (("fit", "--recipe", "nowhere.yaml"), "name a table"),
        (("optimal", "--dollars", "5", "--gpu", "h1000"), "write h100"),
        (("optimal", "--dollars", "5", "--gpu", "b200"), "no price is known"),
        (("optimal", "--hours", "5", "--gpu", "h100", "--format", "int1"), "is not known"),
        (("optimal", "--hours", "5", "--gpu", "h100", "--utilisation", "1.5"), "between 0 and 1"),
        (("optimal", "--compute", "1e21", "--params", "1B"), "both its parameters and its tokens"),
        (("optimal", "--compute", "1e21", "--law", "newton"), "no law is called"),
        (("optimal", "--compute", "1e21", "--law", "chinchila"), "mend: --law chinchilla-refit"),
        (("optimal", "--compute", "1e21", "--gpu", "h100", "--hardware", "nowhere.yaml"), "nowhere.yaml"),
        (("inference", "--demand", "1e12"), "say the quality in one way"),
        (("inference", "--quality", "1.0", "--demand", "1e12"), "no model reaches"),
        (("inference", "--quality", "2.2", "--demand", "inf"), "no quantity"),
        (("data", "--tokens", "ten", "--unique", "1B"), "--tokens"),
        (("next", "--params", "1B"), "both its parameters and its tokens"),
        (("next", "--recipe", "nowhere.yaml"), "nowhere.yaml"),
        (("optimal", "--compute", "1e21", "--html", "nowhere/page.html"), "the page cannot be written"),
        (("fit", "nowhere.csv"), "no such table of runs"),
        (("fit", "nowhere.csv", "--column", "loss"), "no pair"),
        (("fit", "nowhere.csv", "--column", "perplexity=x"), "no column is read as"),
        (("fit", "one.csv", "two.csv"), "one table of runs"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], says: str) -> None:
    told = refused(*arguments)
    assert says in told
    assert "  expected: " in told or "  mend: " in told, "what would be right is said as well"


def test_a_project_folder_stands_for_the_store_that_its_recipe_names(tmp_path: Path) -> None:
    write_template(tmp_path, base=None, force=False)
    assert f"where: {tmp_path / '.weightgate'}" in refused("fit", tmp_path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "weightgate.yaml").write_text("version: 1\n")
    stated = ("--reward-model-parameters", "1M", "--comparisons", "1000")
    assert f"mend: name {tmp_path / 'weightgate.yaml'}" in refused("next", "--recipe", tmp_path)
    assert "mend: write the table as CSV" in refused("align", *stated, "--runs", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimal", "--compute", "1e40", "--gpu", "h100"),
        ("optimal", "--compute", "1e9"),
        ("optimal", "--compute", "1e21", "--params", "1e40", "--tokens", "1"),
        ("inference", "--like", "1e40", "--demand", "1e40"),
        ("inference", "--like", "1", "--demand", "1"),
        ("data", "--tokens", "1e40", "--unique", "1"),
        ("data", "--tokens", "1", "--unique", "1e40"),
        ("next", "--params", "1e40", "--tokens", "1e40", "--unique", "1", "--gpu", "h100"),
    ],
)
def test_extremes_are_answered(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert numbers(*arguments, "--html", tmp_path / "page.html")


def test_a_table_of_hardware_overrides_ours(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    entry = "{peak: {bf16: 1.0e+15}, memory_gib: 80, bandwidth: 1.0e+12, dollars_per_hour: 1.5}"
    own.write_text(
        f"version: 1\nprice_date: 2026-01-31\ndevices:\n  H100: {entry}\n  mine: {entry}\n", encoding="utf-8"
    )
    hardware = load_hardware(own)
    assert hardware.device("h100").price == (1.5, 1.5, 1.5)
    assert hardware.device("mine").peak == {"bf16": 1e15}
    assert hardware.device("a100-80").price == (1.50, 2.93, 5.12)
    assert str(hardware.price_date) == "2026-01-31"
    own.write_text(own.read_text(encoding="utf-8").replace("1.5}", "[3, 2, 1]}"), encoding="utf-8")
    with pytest.raises(UserError, match="three: lowest, median, highest"):
        load_hardware(own)


def test_utilisation_follows_the_anchors() -> None:
    for size, share in PYTHIA:
        assert utilisation_by_size(size).low == pytest.approx(share)
    assert utilisation_by_size(124e6).high == pytest.approx(0.6)
    assert utilisation_by_size(1e15).low == pytest.approx(0.251)


@given(value=st.floats(1e-3, 1e30))
def test_quantities_are_read_as_they_are_spelt(value: float) -> None:
    assert read_quantity(spell_quantity(value), name="x") == pytest.approx(value, rel=6e-3)


def test_commas_stand_between_thousands() -> None:
    assert read_quantity("1,234,567", name="x") == 1234567
    assert read_quantity("1,234.5M", name="x") == pytest.approx(1234.5e6)
    for text in ("1,5", "12,34", "1,2345", ",5", "1,"):
        with pytest.raises(UserError):
            read_quantity(text, name="x")


@given(text=st.text(max_size=12))
def test_any_text_is_a_positive_quantity_or_refused(text: str) -> None:
    with suppress(UserError):
        assert 0 < read_quantity(text, name="x") < float("inf")


def test_advice_for_a_recipe() -> None:
    fresh = Run(parameters=1e9, tokens=2e10, unique=2e10)
    repeated = Run(parameters=1e9, tokens=1e11, unique=1e9)
    law = find_law("chinchilla-refit")
    assert data_advice(fresh, law) is None
    assert "better spent on data" in (data_advice(repeated, law) or "")
    measured = excess_measurement(fresh)
    assert isinstance(measured, Estimate)
    assert 1 <= measured.low <= measured.value <= measured.high
    assert isinstance(excess_measurement(None), Unmeasured)
