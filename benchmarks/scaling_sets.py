"""The public training runs that scaling laws are tried on, as sets within which losses compare.

They lie in `scaling/` of the data folder (`WEIGHTGATE_TEST_DATA`, or `../shared/data` beside the repository) and are
never shipped.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from weightgate.errors import DataError
from weightgate.plan.fit.runs import Runs, usable
from weightgate.plan.fit.table import read_runs

_PORIAN_KEYS = ("experiment_file", "dataset", "hparams", "warmup", "lr_decay", "param_flop_convention", "loss_split")


def folder() -> Path:
    """The folder of the runs. Ends the program where it is not there."""
    root = Path(os.environ.get("WEIGHTGATE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "scaling"
    if not root.is_dir():
        raise SystemExit("the public runs are not here; set WEIGHTGATE_TEST_DATA to the folder that holds scaling/")
    return root


def epoch() -> Runs:
    """The 240 points of Hoffmann et al. that the published refit is about."""
    return usable(read_runs(folder() / "epoch_chinchilla_svg_extracted_data.csv"))


def every_set() -> Iterator[tuple[str, Runs]]:
    """Name and runs of every set; those that no law can be fitted to (one length for all) are left out."""
    yield "epoch", epoch()
    for corpus in ("c4_original", "rpj", "rw_original"):
        loss = {"loss": "c4_val_loss_nats_per_token"}
        runs = read_runs(folder() / "gadre_overtraining_runs.csv", named=loss, where={"dataset": corpus})
        yield f"gadre-{corpus}", usable(runs)
    fresh = read_runs(folder() / "datablations_runs.csv", named={"loss": "val_loss_nats_per_token"})
    yield "datablations-one-pass", usable(fresh.where(np.array(_one_pass(folder() / "datablations_runs.csv"))))
    for group in _porian_groups(folder() / "porian_isoflop_points.csv"):
        where = dict(zip(_PORIAN_KEYS, group, strict=True))
        runs = read_runs(folder() / "porian_isoflop_points.csv", named={"loss": "loss_nats_per_token"}, where=where)
        try:
            yield "porian-" + "-".join(group), usable(runs)
        except DataError:
            continue


def _one_pass(path: Path) -> list[int]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [index for index, row in enumerate(rows) if float(row["epochs"]) <= 1]


def _porian_groups(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        return sorted({tuple(row[key] for key in _PORIAN_KEYS) for row in csv.DictReader(file)})
