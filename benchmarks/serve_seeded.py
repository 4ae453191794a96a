"""What batching requests with seeds brings an endpoint, and how often a completion notices its batch mates.

    PYTHONPATH=tests python -m benchmarks.serve_seeded

Rate: an endpoint over a tiny random model in a process of its own, asked for 24 tokens at temperature 1 by clients
that each wait for one answer before they ask again; every request with a seed of its own, then without any. Agreement:
prompts of five lengths are completed alone and among 63 others from the same streams by the same model, 2 layers of
width 32; counted are the completions that differ.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks import machine
from server_process import running
from tiny_endpoint import tiny_generator
from weightgate.serve import write_aliases
from weightgate.train.sampling import generate

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "serve_seeded.json"
TEXTS = ("the", "the quick brown", "why", "naive cafe owners ask why the fox jumps over it", "a lazy dog " * 5)
CLIENTS = (1, 32)
MAX_TOKENS = 24
MATES = 64
COMPLETIONS = {torch.float32: 640, torch.bfloat16: 160}
REQUESTS_PER_CLIENT = 8
_TOKEN = "open sesame"


def main() -> None:
    """Measure both and write the result."""
    result: dict[str, Any] = {
        **machine.circumstances(ROOT),
        "rate": _rates(),
        "agreement": [_agreement(precision, temperature) for precision in COMPLETIONS for temperature in (1.0, 0.0)],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("rate", "agreement")}, indent=1))


def _rates() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        write_aliases(Path(name) / "aliases.json", {"live": "seed-1"})
        command = [sys.executable, str(ROOT / "tests" / "tiny_endpoint.py"), "0", str(Path(name) / "aliases.json")]
        environment = os.environ | {"TINY_ENDPOINT_TOKEN": _TOKEN}
        with running(command, folder=Path(name), environment=environment) as address:
            asyncio.run(_requests_per_second(address, clients=4, seeded=True))  # warms up
            return [
                {
                    "clients": clients,
                    "seeded": seeded,
                    "requests_per_second": asyncio.run(_requests_per_second(address, clients=clients, seeded=seeded)),
                }
                for clients in CLIENTS
                for seeded in (True, False)
            ]


async def _requests_per_second(address: str, *, clients: int, seeded: bool) -> float:
    """Ask as so many clients at once; every request has another prompt and, where wanted, another seed."""
    headers = {"Authorization": f"Bearer {_TOKEN}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=600, trust_env=False) as http:

        async def ask(client: int) -> None:
            for number in range(REQUESTS_PER_CLIENT):
                at = client * REQUESTS_PER_CLIENT + number
                body = {"model": "live", "prompt": f"{TEXTS[at % len(TEXTS)]} {at}", "max_tokens": MAX_TOKENS}
                reply = await http.post("/v1/completions", json=body | ({"seed": at} if seeded else {}))
                reply.raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(ask(client) for client in range(clients)))
        return round(clients * REQUESTS_PER_CLIENT / (time.perf_counter() - started), 1)


def _agreement(precision: torch.dtype, temperature: float) -> dict[str, Any]:
    made, count = tiny_generator(1), COMPLETIONS[precision]
    model = made.model.to(precision)
    prompts = [made.encode_text(f"{TEXTS[at % len(TEXTS)]} {at}") for at in range(count)]
    streams = [(at * 0x9E3779B97F4A7C15 % 2**64, 0) for at in range(count)]

    def completed(first: int, rows: int) -> list[list[int]]:
        chosen = slice(first, first + rows)
        done = generate(
            model,
            prompts[chosen],
            max_tokens=MAX_TOKENS,
            temperature=temperature,
            stop_ids=made.tokenizer.stop_ids,
            pad_id=made.tokenizer.pad_id,
            streams=streams[chosen],
        )
        return [each.ids for each in done]

    alone = [ids for first in range(count) for ids in completed(first, 1)]
    together = [ids for first in range(0, count, MATES) for ids in completed(first, MATES)]
    return {
        "precision": str(precision).removeprefix("torch."),
        "temperature": temperature,
        "completions": count,
        "tokens": sum(map(len, alone)),
        "differ": sum(one != other for one, other in zip(alone, together, strict=True)),
    }


if __name__ == "__main__":
    main()
