"""Measure, and write results. See `benchmarks/run --help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, overhead, results
from benchmarks.cases import BENCHMARKS
from benchmarks.duel import run_case
from benchmarks.peers import ROOT, interpreter, versions

NAMES = (*BENCHMARKS, "overhead")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Measure side by side with the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--only",
        action="append",
        metavar="TEXT",
        help="measure only cases with this in their name, as fp32; may be given several times",
    )
    parser.add_argument("--quick", action="store_true", help="try that everything runs; the results are thrown away")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is called {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = Path(thrown_away) if arguments.quick else results.FOLDER
        for name in arguments.names or NAMES:
            results.write(folder, name, measured(name, arguments.only or [""], quick=arguments.quick), NAMES)
        print((folder / "README.md").read_text(encoding="utf-8"))


def measured(name: str, only: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """One benchmark with its circumstances, as plain data."""
    result: dict[str, Any] = {
        "benchmark": name,
        **machine.circumstances(ROOT),
        "versions": {"weightgate": versions(Path(sys.executable))},
    }
    if name == "overhead":
        return result | {"overhead": overhead.measure(quick=quick)}
    peers = interpreter()
    result["versions"]["peers"] = versions(peers)
    cases = [case for case in BENCHMARKS[name] if any(text in case.name for text in only)]
    return result | {"cases": [run_case(name, case, peers, quick=quick) for case in cases]}


if __name__ == "__main__":
    main()
