"""Stages of short steps are forecast from steps of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="steps are timed on a real network")
from click.testing import CliRunner  # noqa: E402

from weightgate.build import pace  # noqa: E402
from weightgate.cli import main  # noqa: E402
from weightgate.stats import Estimate, Unmeasured  # noqa: E402


@pytest.fixture(autouse=True)
def _still() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    shutil.copytree(Path(__file__).parents[2] / "docs" / "tiny", folder)
    return folder


def forecasts(folder: Path, *more: str) -> dict[str, dict[str, float | str]]:
    result = CliRunner().invoke(main, ["plan", "--recipe", str(folder / "weightgate.yaml"), *more])
    assert result.exit_code == 0, result.output
    kept = next((folder / ".weightgate").rglob("forecasts.json")).read_text(encoding="utf-8")
    return {name: stage["forecast"]["seconds"] for name, stage in json.loads(kept).items()}


def test_every_short_stage_is_timed_by_its_own_steps_and_torch_left_as_it_was(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LONGEST_STEP_SECONDS", 1e9)  # however busy the machine is
    strict = torch.are_deterministic_algorithms_enabled()
    found = forecasts(tiny)
    assert set(found) == {"pretrain", "finetune", "reward", "align"}
    assert all("timed steps" in str(each["method"]) for each in found.values())
    assert all(0 < float(each["low"]) <= float(each["value"]) <= float(each["high"]) for each in found.values())
    assert torch.are_deterministic_algorithms_enabled() == strict


def test_stages_of_long_steps_are_forecast_from_flops(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_STEP_SECONDS", 0.0)
    monkeypatch.setattr(pace, "PROBE_SECONDS", 0.1)
    assert not any("timed steps" in str(each["method"]) for each in forecasts(tiny).values())
    assert all("unmeasured" in each for each in forecasts(tiny, "--no-probe").values())


def test_the_first_step_counts_once() -> None:
    found = pace.Pace(first=3.0, later=(0.9, 1.1, 1.0, 1.0)).seconds(11)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(13.0)
    assert 12.0 < found.low < 13.0 < found.high < 14.0
    assert isinstance(pace.Pace(first=3.0, later=()).seconds(11), Unmeasured)
