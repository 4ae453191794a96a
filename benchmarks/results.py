"""Result files and the table made from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

_HEAD = """\
# Benchmark results

Made by `benchmarks/run` from the JSON files beside it, which hold every sample. All contenders of a case run side by
side in one run: same random weights, data, batch, precision, threads, warm-up and number of updates, taking turns
window by window. Given are medians of the windows. That the work is the same is checked by the number of parameters and
by the value that the compared metric starts from; the last value is given too. Trainer's attention crosses documents
in packed rows as it comes; where it is told to keep them apart, its whole loss curve must be ours. SFTTrainer's packing
that cuts samples lets attention cross them too; its other packing lays a whole batch out as one row, which needs a
fused attention that CPUs lack.
"""


def write(folder: Path, name: str, result: dict[str, Any], shown: Sequence[str]) -> None:
    """Write one benchmark's result, and the table of those of `shown` that have one in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    paths = {other: folder / f"{other}.json" for other in shown}
    found = {other: json.loads(path.read_text(encoding="utf-8")) for other, path in paths.items() if path.exists()}
    (folder / "README.md").write_text(table(found), encoding="utf-8")


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown of all results, by benchmark name."""
    lines = [_HEAD]
    for name, result in results.items():
        lines += [f"## {name}", "", *_circumstances(result), ""]
        for case in result.get("cases", []):
            lines += [*_case_lines(case), ""]
        if "overhead" in result:
            lines += [*_overhead_lines(result["overhead"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _circumstances(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    bf16 = ", ".join(flag for flag in machine["isa"] if "bf16" in flag) or "no bf16 instructions"
    yield (
        f"{result['date']}, commit {result['commit']}. {machine['cpu']} (family/model/stepping "
        f"{machine['family_model_stepping']}), {machine['cores']} cores, {bf16}, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}; load average before the run {result['load_average_before']:.2f}."
    )
    for side, versions in result["versions"].items():
        yield f"{side.capitalize()}: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _case_lines(case: dict[str, Any]) -> Iterator[str]:
    size = case["contenders"][0]["parameters"] / 1e6
    yield f"### {case['name']}"
    yield ""
    yield (
        f"{size:.2f} M parameters, batch {case['batch']}, context {case['context']}, {case['warmup_updates']} updates "
        f"of warm-up, {len(case['contenders'][0]['values'])} windows of {case['updates_per_window']} updates, "
        f"{case['threads']} threads."
    )
    yield ""
    metric = case["compared_metric"].replace("_", " ")
    yield f"| contender | {case['unit']} | lowest to highest | cores used | first {metric} | last {metric} |"
    yield "|---|---:|---:|---:|---:|---:|"
    for contender in case["contenders"]:
        values = contender["values"]
        busy = sum(s["cpu_seconds"] for s in contender["samples"]) / sum(s["seconds"] for s in contender["samples"])
        yield (
            f"| {contender['name']} | {_number(contender['median'])} | {_number(min(values))} to "
            f"{_number(max(values))} | {busy:.2f} | {contender['first']:.4f} | {contender['last']:.4f} |"
        )
    yield ""
    yield "| ours | against | faster by | window by window | bar | reached |"
    yield "|---|---|---:|---:|---:|---|"
    for ratio in case["ratios"]:
        windows = ratio["window_ratios"]
        bar = "" if ratio["bar"] is None else f"{ratio['bar']:g}x"
        reached = {None: "", True: "yes", False: "**no**"}[ratio["reached"]]
        yield (
            f"| {ratio['ours']} | {ratio['theirs']} | {ratio['ratio']:.2f}x | {min(windows):.2f} to "
            f"{max(windows):.2f} | {bar} | {reached} |"
        )


def _overhead_lines(overhead: dict[str, Any]) -> Iterator[str]:
    measured, longer = overhead["measured"], overhead["thirty_minutes"]
    outcome = "every gate passed" if measured["passed"] else "a gate did not pass"
    yield (
        f"`weightgate build` on the built-in world took {measured['build_seconds']:.1f} s ({outcome}), of which "
        f"{measured['training_seconds']:.1f} s training."
    )
    yield ""
    yield "| part | seconds, as measured | share of the build | seconds in a 30-minute build | how it grows |"
    yield "|---|---:|---:|---:|---|"
    for part in longer["parts"]:
        seconds = measured["parts"].get(part["name"], 0.0)
        yield (
            f"| {part['name']} | {seconds:.2f} | {seconds / measured['build_seconds']:.2%} | {part['seconds']:.2f} | "
            f"{part['grows']} |"
        )
    total = sum(measured["parts"].values())
    reached = "yes" if longer["reached"] else "**no**"
    yield (
        f"| all | {total:.2f} | {total / measured['build_seconds']:.2%} | {longer['seconds']:.2f} = "
        f"{longer['share']:.2%} | bar: below {longer['bar']:.0%}; reached: {reached} |"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
