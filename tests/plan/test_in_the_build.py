"""Plans and builds held against each other, through the command line, on a pre-training of seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="this builds a model")
from click.testing import CliRunner, Result  # noqa: E402

import tiny_world  # noqa: E402
from weightgate.cli import main  # noqa: E402
from weightgate.plan.fit.builds import runs_of_stores  # noqa: E402
from weightgate.store import Store  # noqa: E402

GATE = {"measure": "plan.excess_compute", "max": 50.0}


@pytest.fixture(autouse=True)
def _still() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def invoke(verb: str, recipe: Path, *more: str) -> Result:
    result = CliRunner().invoke(main, [*verb.split(), "--recipe", str(recipe), *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def pretraining(folder: Path, *, hidden: int = 32, **settings: Any) -> Path:
    """The tiny world's pre-training alone."""
    tiny_world.write_world(folder)
    recipe = tiny_world.changed("pretrain", **settings)
    recipe["architecture"]["config"] |= {"hidden_size": hidden}
    recipe["stages"] = recipe["stages"][:1]
    recipe["probes"] = None
    return tiny_world.write_recipe(folder, recipe)


def test_a_build_remembers_what_its_plan_forecast(tmp_path: Path) -> None:
    recipe = pretraining(tmp_path, gates=[GATE])
    for verb in ("plan", "lock", "build"):
        result = invoke(verb, recipe)
        assert result.exit_code == 0, result.output
    store = Store.open(tmp_path / ".weightgate")
    manifest = store.lineage()[0]
    trained = store.results(str(manifest.inputs["key"]))[-1]
    ahead = trained.environment["forecast"]
    assert ahead["seconds"]["low"] < ahead["seconds"]["value"] < ahead["seconds"]["high"]
    assert "no measured pre-training" in ahead["holdout.bits_per_byte"]["unmeasured"]
    measured = store.results(f"measured:{manifest.id}")[-1]
    assert measured.measurements["plan.excess_compute"]["unit"] == "times"
    assert [verdict["status"] for verdict in measured.verdicts] == ["passed"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Forecast and outcome" in page
    assert "inside the interval" in page


def test_a_plan_prices_what_would_be_built_and_nothing_else(tmp_path: Path) -> None:
    recipe = pretraining(tmp_path)

    def figures() -> dict[str, str]:
        result = invoke("plan", recipe, "--dollars-per-hour", "3600", "--json")
        headline = json.loads(result.stdout)["blocks"][0]
        return {each["label"]: each["value"] for each in headline["figures"]}

    before = figures()
    assert list(before) == ["time", "price", "compute", "peak memory", "disk"]
    assert re.fullmatch(r"\$\d+\.\d\d \[\$\d+\.\d\d, \$\d+\.\d\d\]", before["price"])
    for verb in ("lock", "build"):
        assert invoke(verb, recipe).exit_code == 0
    assert figures() == {}, "no minutes, dollars or bytes of nothing"


def test_a_forecast_of_another_plan_is_not_taken(tmp_path: Path) -> None:
    assert invoke("plan", pretraining(tmp_path, steps=24), "--no-probe").exit_code == 0
    recipe = pretraining(tmp_path, steps=6)
    for verb in ("lock", "build"):
        assert invoke(verb, recipe).exit_code == 0
    store = Store.open(tmp_path / ".weightgate")
    assert store.results(str(store.lineage()[0].inputs["key"]))[-1].environment["forecast"] == {}
    assert "Forecast and outcome" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_budget_far_from_the_optimum_is_not_locked(tmp_path: Path) -> None:
    recipe = pretraining(tmp_path, hidden=96, gates=[GATE | {"max": 1.01}])
    result = invoke("lock", recipe)
    assert result.exit_code == 1
    assert "would not pass its gate" in result.output
    assert "plan.excess_compute at most 1.01" in result.output
    assert not (tmp_path / "weightgate.lock").exists()


def test_locking_warns_where_the_next_dollar_is_better_spent_on_data(tmp_path: Path) -> None:
    once, often = pretraining(tmp_path / "once", steps=1), pretraining(tmp_path / "often", steps=4000)
    assert "warning" not in invoke("lock", once).output
    warned = invoke("lock", often, "--json")
    assert "the next dollar is better spent on data" in warned.stderr
    assert json.loads(warned.stdout)["stages"][0]["steps"] == 4000


def test_what_the_next_doubling_buys_is_read_from_the_lock(tmp_path: Path) -> None:
    recipe = pretraining(tmp_path, steps=40)
    assert invoke("lock", recipe).exit_code == 0
    found = json.loads(invoke("plan next", recipe, "--json").stdout)["numbers"]["run"]
    assert found["tokens"] == 40 * 4 * 64
    assert found["unique"] < found["tokens"]


def test_a_law_is_fitted_to_the_stores_own_builds(tmp_path: Path) -> None:
    """Six builds of three sizes and two lengths; what so short runs come to is no matter, only that all are read."""
    for hidden in (16, 32, 48):
        for steps in (4, 16):
            recipe = pretraining(tmp_path, hidden=hidden, steps=steps)
            for verb in ("lock", "build"):
                assert invoke(verb, recipe).exit_code == 0
    runs = runs_of_stores([tmp_path / ".weightgate"])
    assert len(runs) == 6
    assert runs.unit == "bits/byte"
    assert len(set(runs.tokens)) == 2
    assert 0.8 * 16 * 4 * 64 < max(runs.tokens) <= 16 * 4 * 64
    assert len(set(runs.parameters)) == 3
    assert (runs.seconds > 0).all()
    result = invoke("plan fit", recipe, "--draws", "20", "--least-ratio", "0.001", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["numbers"]
    folders = (str(tmp_path), str(tmp_path / ".weightgate"))
    named = invoke("plan fit", recipe, *folders, "--draws", "20", "--least-ratio", "0.001", "--json")
    assert json.loads(named.stdout)["numbers"] == found, "a project is its store, and counts once"
    assert found["unit"] == "bits/byte"
    assert found["forecast"]["seconds"]["unit"] == "seconds"
