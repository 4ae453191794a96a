"""The peers' own virtual environment: TRL 1.12.0 and what it needs, apart from ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".peers"
CONSTRAINTS = Path(__file__).parent / "peers-constraints.txt"
VARIABLE = "WEIGHTGATE_PEERS"
"""Environment variable that names the interpreter of an environment that is there already."""

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "trl")


def interpreter() -> Path:
    """The interpreter to run peers with; makes `.peers/` where `WEIGHTGATE_PEERS` names none."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    wanted = CONSTRAINTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print("installing the peers into .peers/", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, "trl"], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path) -> dict[str, str]:
    """Versions of Python and of `LIBRARIES`, as far as they are installed, in the environment of an interpreter."""
    script = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({'python': platform.python_version()} | {n: found[n] for n in sys.argv[1:] if n in found}))\n"
    )
    reply = subprocess.run([str(python), "-c", script, *LIBRARIES], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(reply.stdout)
    return found
