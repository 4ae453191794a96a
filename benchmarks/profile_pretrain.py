"""Where the time of our pre-training step goes: `python -m benchmarks.profile_pretrain [--compile] [--large]`."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import BENCHMARKS
from benchmarks.inputs import read_inputs, write_inputs
from benchmarks.ours import run_stage
from weightgate.train.loop import Progress

WARMUP, PROFILED = 3, 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Profile our pre-training step through the loop.")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--large", action="store_true", help="the larger size of the benchmark")
    parser.add_argument("--rows", type=int, default=25, help="operations to show")
    arguments = parser.parse_args()
    case = replace(BENCHMARKS["pretrain"][arguments.large], warmup=WARMUP)
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), case)
        inputs = read_inputs(Path(name), case, compiled=arguments.compile)
        profiler = profile(activities=[ProfilerActivity.CPU], acc_events=True)

        def observe(progress: Progress) -> None:
            if progress.step == WARMUP:
                profiler.start()
            if progress.step == WARMUP + PROFILED:
                profiler.stop()

        run_stage(inputs, WARMUP + PROFILED, observe)
    print(f"{case.name}, compile {arguments.compile}: {PROFILED} steps")
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=arguments.rows))


if __name__ == "__main__":
    main()
