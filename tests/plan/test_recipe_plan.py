"""Plans of whole recipes, without a network and without torch."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgate import recipe
from weightgate.errors import RecipeError
from weightgate.plan import flops, resources
from weightgate.plan.recipe_plan import Machine, StageData, StagePlan, plan_recipe, recipe_shape
from weightgate.plan.resources import Speed, duration, price, together
from weightgate.stats import Estimate, Unmeasured
from weightgate.store.resume import KEPT_POINTS

TEXT = """
version: 1
name: small
tokenizer: {vocab_size: 1024}
architecture:
  type: llama
  config: {hidden_size: 128, intermediate_size: 384, num_hidden_layers: 4, num_attention_heads: 4}
stages:
  - {name: base, kind: pretrain, data: [{path: a}], tokens: 1000000, batch: 32, context: 128}
  - {name: tune, kind: finetune, data: [{path: b}], epochs: 2, batch: 16, context: 128, adapter: {rank: 4}}
  - {name: judge, kind: reward, data: [{path: c}], epochs: 1, batch: 8}
  - {name: align, kind: align, data: [{path: d}], updates: 10, batch: 64, ppo: {completion_tokens: 32, epochs: 4}}
"""
DATA = {
    "base": StageData(tokens=500_000, samples=1_000),
    "tune": StageData(tokens=100_000, samples=2_000),
    "judge": StageData(tokens=80_000, samples=800),
    "align": StageData(tokens=24_000, samples=1_000),
}


def speed_of(value: float, unit: str) -> Estimate:
    return Estimate(value=value, low=0.9 * value, high=1.1 * value, n=10, unit=unit, method="t")


MACHINE = Machine(speed=Speed(training=speed_of(1e11, "FLOP/s"), sampling=speed_of(2e4, "tokens/s")), precision="bf16")


def planned(text: str = TEXT, machine: Machine = MACHINE, **more: Any) -> dict[str, StagePlan]:
    return {row.name: row for row in plan_recipe(recipe.parse(text), DATA, machine, **more)}


def test_steps_tokens_and_passes() -> None:
    rows = planned()
    assert [row.kind for row in rows.values()] == ["pretrain", "finetune", "reward", "align"]
    assert rows["base"].steps == math.ceil(1_000_000 / 4096)
    assert rows["base"].tokens == rows["base"].steps * 4096
    assert rows["base"].passes == rows["base"].tokens / 500_000
    assert rows["tune"].steps == math.ceil(2 * 100_000 / 2048)
    assert (rows["judge"].steps, rows["judge"].tokens) == (100, 80_000)
    assert (rows["align"].steps, rows["align"].tokens) == (40, 640 * (24 + 32))


def test_an_unpacked_stage_counts_rows() -> None:
    rows = planned(TEXT.replace("adapter: {rank: 4}", "packing: false"))
    assert rows["tune"].steps == math.ceil(2 * 2_000 / 16)


def test_parameters_flops_and_time_fit_together() -> None:
    rows = planned()
    shape = recipe_shape(recipe.parse(TEXT))
    assert rows["base"].trained_parameters == rows["base"].parameters == flops.parameters(shape).total
    assert rows["tune"].trained_parameters < 0.1 * rows["tune"].parameters
    assert rows["base"].flops == rows["base"].tokens * flops.token_flops(shape, 128).training
    seconds = rows["base"].seconds
    assert isinstance(seconds, Estimate)
    assert seconds.value == pytest.approx(rows["base"].flops / 1e11)
    assert seconds.low < seconds.value < seconds.high


def test_ppo_time_has_rollouts_at_the_speed_of_sampling() -> None:
    slow = Machine(speed=Speed(training=MACHINE.speed.training, sampling=speed_of(2e3, "tokens/s")), precision="bf16")
    fast_time, slow_time = planned()["align"].seconds, planned(machine=slow)["align"].seconds
    assert isinstance(fast_time, Estimate)
    assert isinstance(slow_time, Estimate)
    assert slow_time.value - fast_time.value == pytest.approx(640 * 32 * (1 / 2e3 - 1 / 2e4))


def test_two_processes_halve_time_and_rows() -> None:
    two = Machine(speed=MACHINE.speed, precision="bf16", processes=2)
    one_row, two_row = planned()["base"], planned(machine=two)["base"]
    assert two_row.flops == one_row.flops
    assert isinstance(one_row.seconds, Estimate)
    assert isinstance(two_row.seconds, Estimate)
    assert two_row.seconds.value == one_row.seconds.value / 2
    assert two_row.memory.activations == one_row.memory.activations / 2


def test_checkpointing_costs_time_and_saves_memory() -> None:
    sparing = TEXT.replace("kind: pretrain,", "kind: pretrain, activation_checkpointing: true,")
    plain, spared = planned()["base"], planned(sparing)["base"]
    assert isinstance(plain.seconds, Estimate)
    assert isinstance(spared.seconds, Estimate)
    assert spared.seconds.value == pytest.approx(plain.seconds.value * 4 / 3)
    assert spared.memory.activations < plain.memory.activations
    assert spared.flops == plain.flops


def test_what_was_not_measured_stays_unmeasured() -> None:
    unknown = Unmeasured(reason="no probe ran")
    machine = Machine(speed=Speed(training=speed_of(1e11, "FLOP/s"), sampling=unknown), precision="fp32")
    rows = planned(machine=machine)
    assert rows["align"].seconds == unknown
    assert isinstance(rows["base"].seconds, Estimate)
    assert price(unknown, dollars_per_hour=3) == unknown
    assert isinstance(duration(5, Estimate(value=1, low=-1, high=3, n=3, unit="FLOP/s", method="t")), Unmeasured)


def test_prices_and_sums() -> None:
    seconds = duration(3.6e15, speed_of(1e12, "FLOP/s"))
    dollars = price(seconds, dollars_per_hour=2.5, devices=4)
    assert isinstance(dollars, Estimate)
    assert dollars.value == pytest.approx(10.0)
    doubled = together(seconds, seconds)
    assert isinstance(doubled, Estimate)
    assert isinstance(seconds, Estimate)
    assert (doubled.low, doubled.value, doubled.high) == (2 * seconds.low, 2 * seconds.value, 2 * seconds.high)
    assert together(seconds, duration(0, speed_of(1.0, "FLOP/s"))) == seconds


def test_disk_counts_checkpoint_resume_points_and_cache() -> None:
    disk = planned()["base"].disk
    count = flops.parameters(recipe_shape(recipe.parse(TEXT))).total
    assert (disk.checkpoint, disk.resume, disk.cache) == (2 * count, 12 * (KEPT_POINTS + 1) * count, 3 * 500_000)
    wide = resources.stage_disk(saved_parameters=1, trained_parameters=1, weight_bytes=4, tokens=10, vocab_size=100_000)
    assert wide.cache == 50


def test_a_base_model_is_planned_from_its_configuration() -> None:
    lines = TEXT.replace("tokenizer: {vocab_size: 1024}\n", "").split("architecture:")
    text = lines[0] + "base: {model: folder}\nstages:" + lines[1].split("stages:")[1]
    with pytest.raises(RecipeError, match="configuration is needed"):
        planned(text)
    rows = planned(text, base_config={"model_type": "gpt2"})
    assert rows["base"].parameters == 124_439_808


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 64), st.integers(8, 256), st.integers(1, 8))
def test_more_of_anything_never_costs_less(batch: int, context: int, processes: int) -> None:
    machine = Machine(speed=MACHINE.speed, precision="bf16", processes=processes)
    text = TEXT.replace("tokens: 1000000, batch: 32, context: 128", f"steps: 3, batch: {batch}, context: {context}")
    more = text.replace(f"batch: {batch},", f"batch: {batch + 1},", 1)
    one, other = planned(text, machine)["base"], planned(more, machine)["base"]
    assert one.flops < other.flops
    assert one.memory.total <= other.memory.total


def test_planning_needs_no_torch() -> None:
    code = "import sys, weightgate.plan.recipe_plan; print({'torch', 'transformers'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stdout.strip() == b"set()"
