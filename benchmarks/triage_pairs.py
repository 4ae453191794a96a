"""Evidence of every public pair: the rows that the triage learns from and is judged on.

The pairs lie in `behaviour/` of the data folder (`WEIGHTGATE_TEST_DATA`, or `../shared/data` beside the repository);
reading them takes minutes, so the rows are kept in a file of the caller's choice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from weightgate.diff.agreement import agreement, said, thinned
from weightgate.diff.evidence import evidence
from weightgate.diff.features import style_matrix
from weightgate.diff.triage import CAUSES

_CAUSE_OF_LABEL = {
    "pretraining": "pretraining",
    "finetuning": "finetuning",
    "preference": "preference",
    "serving_or_prompt": "no weight change",
    "none": "no weight change",
}
_CHAT_FILES = ("alpacaeval_outputs.parquet", "llm_extrapolation_outputs.parquet")


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One pair: what changed, where it comes from, who is related to whom, and its evidence by name."""

    pair: str
    source: str
    cause: str
    family: str
    models: tuple[str, str]
    core: bool
    relation: str
    provenance: str
    evidence: dict[str, float]


def data_folder() -> Path:
    """Return the folder with the public pairs. Raises `SystemExit` with a sentence where it is absent."""
    root = Path(os.environ.get("WEIGHTGATE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "behaviour"
    if not root.is_dir():
        raise SystemExit("the public pairs are not here; set WEIGHTGATE_TEST_DATA to the folder that holds behaviour/")
    return root


def load_rows(cache: Path) -> list[PairRow]:
    """Return the rows of the cache file, made first where there is none."""
    if not cache.exists():
        print(f"reading the evidence of every pair into {cache}, which takes minutes", flush=True)
        rows = [asdict(row) for row in _chat_rows(data_folder())]
        cache.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_rows(cache))


def read_rows(path: Path) -> Iterator[PairRow]:
    """Yield the rows of a file. Raises `ValueError` for a cause that the triage does not know."""
    for line in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        if data["cause"] not in CAUSES:
            raise ValueError(f"{data['cause']!r} is none of {', '.join(CAUSES)}")
        yield PairRow(**data | {"models": tuple(data["models"])})


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


Side = dict[int, tuple[str, np.ndarray]]
"""Prompt id -> completion, and its style features."""


@dataclass(frozen=True, kw_only=True)
class StylePair:
    """Style differences, b minus a, of a chat pair: (prompts, features); `named` are its family and its models."""

    family: str
    named: tuple[str, ...]
    differences: np.ndarray


def style_pairs(root: Path) -> Iterator[StylePair]:
    """Yield every labelled chat pair."""
    for pair, a, b in _chat_pairs(root):
        shared = sorted(a.keys() & b.keys())
        yield StylePair(
            family=pair["family"],
            named=(pair["family"], pair["model_a"], pair["model_b"]),
            differences=np.array([b[at][1] - a[at][1] for at in shared]),
        )


def _chat_rows(root: Path) -> Iterator[PairRow]:
    prompts = {row["prompt_id"]: row["instruction"] for row in jsonl(root / "alpacaeval_prompts.jsonl")}
    for pair, a, b in _chat_pairs(root):
        yield _row(pair, _CAUSE_OF_LABEL[pair["changed"]], pair_evidence(prompts, a, b))


def _chat_pairs(root: Path) -> Iterator[tuple[dict[str, Any], Side, Side]]:
    """Pairs of the two collections that answer the 805 prompts, one completion each."""
    pairs = [pair for pair in jsonl(root / "pairs.jsonl") if {pair["file_a"], pair["file_b"]} <= set(_CHAT_FILES)]
    pairs = [pair for pair in pairs if pair["changed"] in _CAUSE_OF_LABEL]
    sides: dict[tuple[str, str], Side] = {}
    for file in _CHAT_FILES:
        wanted = {pair[f"model_{x}"] for pair in pairs for x in "ab" if pair[f"file_{x}"] == file}
        for (model,), side in read_sides(root / file, wanted, ("model",)).items():
            sides[file, model] = side
    for pair in pairs:
        yield pair, sides[pair["file_a"], pair["model_a"]], sides[pair["file_b"], pair["model_b"]]


def _row(pair: dict[str, Any], cause: str, found: dict[str, float]) -> PairRow:
    return PairRow(
        pair=str(pair["pair_id"]),
        source=pair["source"],
        cause=cause,
        family=pair["family"],
        models=(pair["model_a"], pair["model_b"]),
        core=pair["core"],
        relation=pair["relation"],
        provenance=pair["provenance"],
        evidence=found,
    )


def pair_evidence(prompts: dict[int, str], a: Side, b: Side) -> dict[str, float]:
    """Evidence of two sides on the prompts that both answered."""
    shared = sorted(a.keys() & b.keys())
    kept = [shared[at] for at in thinned(len(shared))]
    agreed = agreement([said(a[at][0], prompts[at]) for at in kept], [said(b[at][0], prompts[at]) for at in kept])
    return evidence(np.array([a[at][1] for at in shared]), np.array([b[at][1] for at in shared]), agreed)


def read_sides(path: Path, models: Iterable[str] | None, keys: tuple[str, ...]) -> dict[tuple[Any, ...], Side]:
    """Read completions, grouped by the columns `keys`, with their style; `models` None: all of them."""
    table = parquet.read_table(path).to_pydict()
    rows = [at for at, model in enumerate(table["model"]) if models is None or model in models]
    texts = [table["output"][at] or "" for at in rows]
    sides: dict[tuple[Any, ...], Side] = {}
    for at, text, features in zip(rows, texts, style_matrix(texts), strict=True):
        sides.setdefault(tuple(table[key][at] for key in keys), {})[table["prompt_id"][at]] = (text, features)
    return sides
