"""`weightgate plan finetune` and `plan align` as a user runs them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_verb import invoke, numbers

from weightgate.plan.columns import read_sheet
from weightgate.plan.laws.overoptimisation import Curve
from weightgate.store import Manifest, Result, Store

ALIGN = ("align", "--reward-model-parameters", "300M")
FINETUNE = ("finetune", "--base-parameters", "1B")


def said(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_fine_tuning_has_a_loss_with_its_range_for_every_method() -> None:
    found = numbers(*FINETUNE, "--samples", "1M")
    for method, value in (("full", 1.0657), ("lora", 1.0147), ("prompt", 1.1042)):
        loss = found["loss"][method]
        assert loss["value"] == pytest.approx(value, abs=2e-4)
        assert loss["low"] < loss["value"] < loss["high"]
    crossing = found["full_overtakes_lora_at_examples"]
    assert crossing["low"] < crossing["value"] < crossing["high"]
    assert found["method"] == "full"
    assert numbers(*FINETUNE, "--samples", "2k")["method"] == "lora"
    assert found["decades_beyond"] == 0


def test_a_quality_is_worked_back_into_examples() -> None:
    loss = numbers(*FINETUNE, "--samples", "300k", "--method", "lora")["loss"]["lora"]["value"]
    found = numbers(*FINETUNE, "--quality", f"{loss:.12f}", "--method", "lora")
    assert found["examples"] == pytest.approx(3e5, rel=1e-5)
    assert found["examples_for_quality"]["lora"]["value"] == pytest.approx(3e5, rel=1e-5)


def test_adapters_take_two_thirds_of_the_compute_and_tokens_are_samples() -> None:
    machine = ("--gpu", "h100", "--price", "2", "--utilisation", "0.5")
    found = numbers(*FINETUNE, "--tokens", "512M", "--tokens-per-sample", "512", "--epochs", "3", *machine)
    assert found["examples"] == pytest.approx(1e6)
    assert found["flops"]["full"] == pytest.approx(6 * 1e9 * 512e6 * 3)
    assert found["flops"]["lora"] == pytest.approx(4 * 1e9 * 512e6 * 3)
    dollars = found["cost"]["full"]["dollars"]["value"]
    assert dollars == pytest.approx(found["flops"]["full"] / (9.89e14 * 0.5) / 3600 * 2)
    assert "dollars" in said(*FINETUNE, "--samples", "1M", "--tokens-per-sample", "512", *machine)


def test_what_lies_outside_the_laws_runs_is_said() -> None:
    assert "decades outside" not in said(*FINETUNE, "--samples", "1M")
    assert "3.0 decades outside" in said("finetune", "--base-parameters", "1M", "--samples", "1M")
    assert "1.0 decades outside" in said(*FINETUNE, "--samples", "200M")


def test_both_pages_have_their_plots_and_no_script(tmp_path: Path) -> None:
    for arguments in ((*FINETUNE, "--samples", "1M"), (*ALIGN, "--kl", "20")):
        page = tmp_path / "page.html"
        numbers(*arguments, "--html", page)
        text = page.read_text(encoding="utf-8")
        assert text.count("<svg") >= 2
        assert "<script" not in text


def test_the_peak_and_the_kl_to_allow() -> None:
    found = numbers(*ALIGN, "--kl", "20", "--comparisons", "90k")
    peak, nine = found["peak_kl"], found["kl_of_nine_tenths"]
    assert peak["value"] == pytest.approx(62.1, abs=0.1)
    assert peak["low"] < 0.8 * peak["value"] < 1.25 * peak["value"] < peak["high"]
    assert nine["value"] / peak["value"] == pytest.approx(0.346, abs=0.002)
    assert found["gold_at_kl"]["value"] < found["gold_at_peak"]["value"] == pytest.approx(0.98, abs=0.005)


@pytest.mark.parametrize(
    ("kl", "says"),
    [("200", "beyond the peak"), ("55", "may come as early as"), ("15", "before any peak"), ("0.5", "more to have")],
)
def test_a_kl_is_held_against_the_curve(kl: str, says: str) -> None:
    assert says in said(*ALIGN, "--kl", kl)


def test_sizes_and_amounts_outside_the_papers_are_said() -> None:
    assert "stands in" in said("align", "--reward-model-parameters", "100k")
    assert "stands in" in said("align", "--reward-model-parameters", "70B")
    assert "hardly better than chance" in said(*ALIGN, "--comparisons", "500")
    assert "peak earlier and lower" in said(*ALIGN, "--comparisons", "20k")


def test_ones_own_curve_goes_before_the_published_one(tmp_path: Path) -> None:
    true = Curve(a=1.0, b=0.5, search="ppo")
    table = tmp_path / "curve.csv"
    rows = [f"{kl:g};{float(true.gold(kl)):.6f}" for kl in np.linspace(0.0, 12.0, 13)]
    table.write_text("\ufeffKL;Gold_Reward\n" + "\n".join(rows), encoding="utf-8")
    found = numbers(*ALIGN, "--runs", table)
    assert found["curve"]["own"]
    assert found["peak_kl"]["value"] == pytest.approx(float(true.peak_kl), rel=1e-3)
    short = tmp_path / "short.csv"
    short.write_text("kl,gold\n" + "\n".join(row.replace(";", ",") for row in rows[:6]), encoding="utf-8")
    assert "before the peak" in said(*ALIGN, "--runs", short)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("finetune",), "no recipe here"),
        (("finetune", "--base-parameters", "1B"), "no recipe here"),
        ((*FINETUNE, "--samples", "-3"), "--samples"),
        ((*FINETUNE, "--samples", "nan"), "no quantity"),
        ((*FINETUNE, "--samples", "1e400"), "no quantity"),
        ((*FINETUNE, "--samples", ""), "nothing"),
        ((*FINETUNE, "--samples", "3", "--tokens", "9"), "in one way"),
        ((*FINETUNE, "--tokens", "9M"), "add --tokens-per-sample"),
        ((*FINETUNE, "--quality", "0.7", "--method", "full"), "no number of examples"),
        ((*FINETUNE, "--quality", "0.62", "--method", "lora"), "no number of examples"),
        ((*FINETUNE, "--samples", "3M", "--gpu", "h100"), "needs the length of a sample"),
        ((*FINETUNE, "--samples", "3M", "--method", "bitfit"), "bitfit"),
        (("align",), "no recipe here"),
        ((*ALIGN, "--kl", "-1"), "--kl"),
        ((*ALIGN, "--kl", "inf"), "no quantity"),
        ((*ALIGN, "--comparisons", "many"), "--comparisons"),
        ((*ALIGN, "--search", "best-of-n"), "no coefficients are published"),
        ((*ALIGN, "--runs", "nowhere.csv"), "no such table of runs"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], says: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty file"),
        ("kl\n1\n", "no column holds the gold"),
        ("kl,gold\n", "too few points"),
        ("kl,gold\n1,2\n2,3\n", "too few points"),
        ("kl,gold\n1,2\n2,nan\n3,4\n4,5\n", "gold is no number"),
        ("kl,gold\n1,2\n2,1e400\n3,4\n4,5\n", "gold is no number"),
        ("kl,gold\n1,2\n-2,3\n3,4\n4,5\n", "not negative"),
        ("kl,gold\n1,2\n2,2\n3,2\n4,2\n", "same everywhere"),
        ('kl,gold\n1,"2\n', "cannot be read as CSV"),
    ],
)
def test_tables_that_are_no_curve_are_refused(text: str, says: str, tmp_path: Path) -> None:
    table = tmp_path / "curve.csv"
    table.write_text(text, encoding="utf-8")
    result = invoke(*ALIGN, "--runs", table)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("finetune", "--base-parameters", "1e40", "--samples", "1e40", "--tokens-per-sample", "1e40", "--gpu", "h100"),
        ("finetune", "--base-parameters", "1", "--samples", "1", "--quality", "1e40"),
        ("align", "--reward-model-parameters", "1e40", "--kl", "1e40", "--comparisons", "1e40"),
        ("align", "--reward-model-parameters", "1", "--kl", "1e-40", "--comparisons", "1"),
    ],
)
def test_extremes_are_answered(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert numbers(*arguments, "--html", tmp_path / "page.html")
    assert not re.search(r"\bnan\b|\binf\b", said(*arguments))


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e30, 1e30).filter(lambda value: value == 0 or abs(value) > 1e-30), min_size=1))
def test_columns_are_read_as_they_were_written(values: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("columns") / "table.csv"
    path.write_text("other\tValue\n" + "".join(f"x\t{value!r}\n" for value in values), encoding="utf-8")
    sheet = read_sheet(path)
    assert sheet.find({"value": ("value",)}) == {"value": "Value"}
    assert sheet.numbers("Value", signed=True).tolist() == values


def _aligned(store: Store, kl: float, gold: float) -> None:
    identity = store.publish(
        Manifest(stage="align", stage_kind="align", parent=None, tensors={}, files={}, inputs={"kl": f"{kl}"})
    )
    measured = {name: {"value": value} for name, value in (("align.kl", kl), ("align.gold_gain", gold))}
    store.add_result(
        f"measured:{identity}", Result(key=f"measured:{identity}", checkpoint=identity, measurements=measured)
    )


def test_a_recipe_is_judged_by_its_gate_and_by_the_alignments_in_its_store(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "docs" / "tiny", tmp_path, dirs_exist_ok=True)
    assert "weightgate.lock" in said_by_a_mistake("align")
    published = numbers(*ALIGN)
    assert (published["kl"], published["kl_from"], published["curve"]["own"]) == (5.0, "the recipe's gate", False)
    store, true = Store.create(tmp_path / ".weightgate"), Curve(a=1.0, b=0.6, search="ppo")
    for kl in (0.5, 1.0, 2.0, 4.0):
        assert not numbers(*ALIGN)["curve"]["own"]
        _aligned(store, kl, float(true.gold(kl)))
    found = numbers(*ALIGN)
    assert found["curve"]["own"]
    assert found["peak_kl"]["value"] == pytest.approx(float(true.peak_kl), rel=1e-6)
    assert "beyond the peak" in said(*ALIGN)


def said_by_a_mistake(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    return result.output
