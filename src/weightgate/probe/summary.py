"""What a snapshot holds, and what one would cost, in a few lines for a terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from weightgate.probe.endpoint_config import CostEstimate
from weightgate.probe.inquiry import Forecast
from weightgate.probe.recording import Decoding, Snapshot
from weightgate.report.finding import Severity
from weightgate.report.page import Figure, Headline, KeyValues, Page

_SHOWN_ERRORS = 3


def summary_json(snapshot: Snapshot, path: Path) -> dict[str, Any]:
    """Return plain data about a snapshot, without its completions."""
    return {
        "file": str(path),
        "complete": snapshot.complete,
        "target": dict(vars(snapshot.target)),
        "suite": {"name": snapshot.header.suite_name, "digest": snapshot.header.suite_digest},
        "decoding": dict(vars(snapshot.decoding)),
        "prompts": len(snapshot.probes),
        "answered": _answered(snapshot),
        "wanted": _wanted(snapshot),
        "errors": dict(_errors(snapshot).most_common()),
        "empty": _empty(snapshot),
        "cut": _cut(snapshot),
        "served_models": list(snapshot.served_models),
        "fingerprints": list(snapshot.fingerprints),
        "prompt_tokens": _total(snapshot, "prompt_tokens"),
        "completion_tokens": _total(snapshot, "completion_tokens"),
    }


def summary_page(snapshot: Snapshot, path: Path) -> Page:
    """Return what a snapshot holds; errors and names come from the endpoint and are shown as text only."""
    missing = _wanted(snapshot) - _answered(snapshot)
    says_nothing = 0 < _answered(snapshot) == _empty(snapshot)
    severity: Severity = "pass" if snapshot.complete and not says_nothing else "warn"
    text = f"{_answered(snapshot):,} completions of {len(snapshot.probes):,} prompts are in {path}"
    detail = f"{missing:,} are missing; the same command asks for them again" if missing else ""
    if says_nothing:
        detail = "every completion is empty; a model that thinks before it answers needs a larger --max-tokens"
    stated = {
        "target": f"{snapshot.target.model} at {snapshot.target.place}",
        "suite": f"{snapshot.header.suite_name}, {snapshot.header.suite_digest}",
        "decoding": decoding_words(snapshot.decoding),
        "served model": ", ".join(snapshot.served_models),
        "fingerprint": ", ".join(snapshot.fingerprints),
        "empty": _share(_empty(snapshot), snapshot),
        "cut at the bound": _share(_cut(snapshot), snapshot),
        **{f"{count} times": error for error, count in _errors(snapshot).most_common(_SHOWN_ERRORS)},
    }
    tokens = (("prompt tokens", "prompt_tokens"), ("completion tokens", "completion_tokens"))
    figures = tuple(
        Figure(label=label, value=f"{total:,}") for label, name in tokens if (total := _total(snapshot, name))
    )
    return Page(
        title="Snapshot",
        blocks=(
            Headline(severity=severity, text=text, detail=detail, figures=figures),
            KeyValues(pairs=tuple((name, value) for name, value in stated.items() if value)),
        ),
    )


def forecast_page(forecasts: dict[str, Forecast]) -> Page:
    """Return what would be asked of each target, by name, and what it costs at most."""
    questions = sum(one.open_questions for one in forecasts.values())
    return Page(
        title="Dry run",
        subtitle="nothing was asked",
        blocks=(
            Headline(severity="note", text=f"{questions:,} questions would be asked"),
            KeyValues(pairs=tuple((name, _forecast_words(one)) for name, one in forecasts.items())),
        ),
    )


def decoding_words(decoding: Decoding) -> str:
    """How completions were drawn, in words."""
    named = [(name.replace("_", " "), value) for name, value in vars(decoding).items() if value is not None]
    return ", ".join(f"{name} {value:g}" for name, value in named)


def _forecast_words(one: Forecast) -> str:
    words = f"{one.prompts:,} prompts, {one.samples} each; {one.open_questions:,} questions open"
    return f"{words}; {_cost_words(one.cost)}" if one.cost else words


def _cost_words(cost: CostEstimate) -> str:
    tokens = f"at most {cost.prompt_tokens:,} + {cost.completion_tokens:,} tokens, retries aside"
    return tokens if cost.money is None else f"{tokens}; {cost.money:,.2f} in the currency of the price"


def _answered(snapshot: Snapshot) -> int:
    return sum(answer.reply.error is None for answer in snapshot.answers)


def _wanted(snapshot: Snapshot) -> int:
    return len(snapshot.probes) * snapshot.decoding.samples


def _empty(snapshot: Snapshot) -> int:
    return sum(answer.reply.error is None and not answer.completion.strip() for answer in snapshot.answers)


def _cut(snapshot: Snapshot) -> int:
    """Completions that ended because they had as many tokens as they may have."""
    return sum(answer.reply.finish_reason == "length" for answer in snapshot.answers)


def _share(count: int, snapshot: Snapshot) -> str:
    return f"{count:,} of {_answered(snapshot):,}" if count else ""


def _errors(snapshot: Snapshot) -> Counter[str]:
    return Counter(answer.reply.error for answer in snapshot.answers if answer.reply.error is not None)


def _total(snapshot: Snapshot, name: str) -> int:
    return sum(getattr(answer.reply, name) or 0 for answer in snapshot.answers)
