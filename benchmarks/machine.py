"""What a measurement was taken on: enough to repeat it, nothing that names the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_VECTOR_PREFIXES = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16")


def describe() -> dict[str, object]:
    """CPU model, cores, vector instructions, memory in GiB, kernel."""
    fields = _cpu_fields()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "family_model_stepping": "/".join(fields.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": sorted(flag for flag in flags if flag.startswith(_VECTOR_PREFIXES)),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def circumstances(root: Path) -> dict[str, object]:
    """When a measurement begins, of which commit, on what machine, and how busy that is."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": revision(root),
        "machine": describe(),
        "load_average_before": load_average(),
    }


def load_average() -> float:
    """Runnable processes, averaged over the last minute. Much above 0 before a measurement means it is disturbed."""
    return os.getloadavg()[0]


def revision(root: Path) -> str:
    """The commit that was measured, marked where the package's files differ from it."""
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "src", "benchmarks/*.py")
    return commit + ("+changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    reply = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return reply.stdout.strip() or ("unknown" if words[0] == "rev-parse" else "")


def _cpu_fields() -> dict[str, str]:
    """Fields of the first processor; empty where the system does not have them in this form."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
