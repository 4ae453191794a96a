"""How long the audit of many pairs takes, and how much memory: writes results/audit_scale.json.

    python -m benchmarks.audit_scale FILE [PAIRS]

FILE is the public harmless-base test set (gzip, JSONL). Its rows are repeated with words of their own in prompt and
answers, so that no text occurs twice. The audit runs in a process of its own, as a user would run it.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks import machine

RESULT = Path(__file__).parent / "results" / "audit_scale.json"


def write_many(source: Path, target: Path, pairs: int) -> None:
    """Write so many pairs: the rows over and over, each copy marked with its number."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with target.open("w", encoding="utf-8") as file:
        for number, row in enumerate(islice(cycle(rows), pairs)):
            mark = f" copy {number // len(rows)} of row {number % len(rows)}"
            marked = {name: row[name].replace("\n\nAssistant:", f"{mark}\n\nAssistant:", 1) for name in row}
            file.write(json.dumps({name: text + mark * bool(text) for name, text in marked.items()}) + "\n")


def main() -> None:
    """Write the pairs, audit them, keep the figures."""
    source, pairs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_many(source, path, pairs)
        started = time.perf_counter()
        command = [sys.executable, "-m", "weightgate", "audit", str(path), "--json", "--html", f"{folder}/page.html"]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = json.loads(done.stdout)
        result = {
            "pairs": pairs,
            "file_bytes": path.stat().st_size,
            "wall_seconds": round(seconds, 1),
            "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_gib": round(usage.ru_maxrss / 2**20, 2),
            "usable": told["usable"],
            "machine": machine.describe() | {"load_average": machine.load_average()},
        }
    if pairs >= 1_000_000:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
