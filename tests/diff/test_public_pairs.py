"""Recordings of real models; skipped where the data folder is absent."""

from __future__ import annotations

import json

import pyarrow.parquet as parquet
from tests.diff.planted import probes

from public_data import public_data
from weightgate.diff.compare import compare
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Answered, Decoding, Header, Reply, Snapshot, TargetDescription

PROMPTS = 120


def recorded(model: str) -> Snapshot:
    """The first `PROMPTS` answers of one model."""
    folder = public_data("behaviour")
    wanted = [("model", "=", model), ("prompt_id", "<", PROMPTS)]
    table = parquet.read_table(folder / "llm_extrapolation_outputs.parquet", filters=wanted).to_pydict()
    texts = (folder / "alpacaeval_prompts.jsonl").read_text(encoding="utf-8").splitlines()[:PROMPTS]
    check = probes(1)[-1].checks
    asked = {
        int(row["prompt_id"]): Probe(
            id=str(row["prompt_id"]),
            axis="open",
            topic="all",
            form="chat",
            checks=check,
            messages=(("user", row["instruction"]),),
        )
        for row in map(json.loads, texts)
    }
    answers = tuple(
        Answered(probe=asked[prompt], sample=0, reply=Reply(completion=output))
        for prompt, output in zip(table["prompt_id"], table["output"], strict=True)
    )
    header = Header(
        target=TargetDescription(kind="recording", place="public", model=model),
        suite_name="public",
        suite_digest="",
        decoding=Decoding(samples=1, temperature=None, max_tokens=None),
        created_at=None,
    )
    return Snapshot(header=header, probes=tuple(asked.values()), answers=answers, complete=True)


def test_preference_tuning_is_seen_and_preference_is_not_ruled_out() -> None:
    found = compare(recorded("zephyr-7b-sft-full"), recorded("zephyr-7b-dpo-full"))
    assert found.changed
    assert found.verdict is not None
    assert "preference" in found.verdict.fitting
    assert "pretraining" not in found.verdict.fitting
    assert len(found.deciding) == 8


def test_a_model_and_itself_are_alike() -> None:
    one = recorded("zephyr-7b-sft-full")
    assert not compare(one, one).changed
