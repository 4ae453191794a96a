"""Learn in which directions the style of models differs, and how style features vary together: the detector's metric.

    PYTHONPATH=. python scripts/train_detector.py [--metric FILE]

Reads the chat pairs of the data folder (see `benchmarks/triage_pairs.py`). Families count alike, however many pairs
they have. The zephyr family is left out, so that the dose ladder, which is made of it, can judge the result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.triage_pairs import StylePair, data_folder, style_pairs

from weightgate.diff.features import STYLE_FEATURES
from weightgate.diff.joint import METRIC_FILE, StyleMetric, signed_ranks

LEFT_OUT = "zephyr"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", type=Path, default=Path("src/weightgate/diff/data") / METRIC_FILE)
    arguments = parser.parse_args()
    pairs = [pair for pair in style_pairs(data_folder()) if not any(LEFT_OUT in name.lower() for name in pair.named)]
    arguments.metric.write_text(json.dumps(trained(pairs).to_json()) + "\n", encoding="utf-8")


def trained(pairs: Sequence[StylePair]) -> StyleMetric:
    """Mean over families of the mean over their pairs: direction of the shift, and correlation around it."""
    effects: dict[str, list[np.ndarray]] = {}
    noises: list[np.ndarray] = []
    for pair in pairs:
        ranked = signed_ranks(pair.differences)
        size = np.sqrt((ranked**2).mean(axis=0))
        scaled = ranked / np.where(size > 0, size, 1.0)
        shift = scaled.mean(axis=0)
        effects.setdefault(pair.family, []).append(np.outer(shift, shift) / (shift @ shift))
        noises.append(scaled.T @ scaled / len(scaled) - np.outer(shift, shift))
    noise = np.mean(noises, axis=0)
    np.fill_diagonal(noise, 1.0)
    return StyleMetric(
        names=STYLE_FEATURES,
        effects=np.mean([np.mean(own, axis=0) for own in effects.values()], axis=0),
        noise=noise,
        trained_on={"pairs": len(pairs), "families": len(effects), "left out": LEFT_OUT},
    )


if __name__ == "__main__":
    main()
