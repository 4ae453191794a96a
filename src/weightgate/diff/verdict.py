"""The one sentence of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from weightgate.diff.null import Null
from weightgate.diff.pairing import Declared
from weightgate.diff.rows import Row
from weightgate.diff.triage import STAGE_WORDS, Verdict

_AXES = ("knowledge", "task", "boundary", "open")


def headline(
    *,
    changed: bool,
    verdict: Verdict | None,
    rows: Sequence[Row],
    declared: Sequence[Declared],
    more_prompts: int | None,
    nulls: Sequence[Null] = (),
) -> str:
    """Say what happened, how sure, and what did not change; or what would have to be asked to know."""
    if not changed and any(null.changed for null in nulls):
        return "cannot tell; the endpoint differs as much from itself (A/A)"
    if not changed:
        return _unchanged(more_prompts)
    if verdict is None or verdict.cause is None:
        return _undetermined(verdict, rows)
    if verdict.cause == "no weight change":
        return _same_weights(verdict, declared) + _moved(rows)
    return f"{STAGE_WORDS[verdict.cause]} moved, {verdict.scores[verdict.cause]:.2f}" + _moved(rows)


def _unchanged(more_prompts: int | None) -> str:
    if more_prompts is None:
        return "nothing changed"
    prompts = "prompt" if more_prompts == 1 else "prompts"
    return f"cannot tell; about {more_prompts:,} more {prompts} like these would decide"


def _undetermined(verdict: Verdict | None, rows: Sequence[Row]) -> str:
    fitting = [STAGE_WORDS[cause].partition(",")[0] for cause in verdict.fitting] if verdict else []
    doubt = f" ({', or '.join(fitting)})" if 1 < len(fitting) < len(STAGE_WORDS) else ""
    return f"something changed, but which stage cannot be told{doubt}" + _moved(rows)


def _same_weights(verdict: Verdict, declared: Sequence[Declared]) -> str:
    if not verdict.declared:
        return f"the prompt or the serving changed, not the weights, {verdict.scores['no weight change']:.2f}"
    stated = [str(one) for one in declared if one.kind != "serving"]
    if not stated:
        return "the prompt or the serving changed, not the weights"
    return f"the prompt or the serving changed ({', '.join(stated)}); take both alike to judge the weights"


def _moved(rows: Sequence[Row]) -> str:
    """Which axes moved, which only changed their wrapping or length, which did not change; and where diversity went."""
    by_axis: dict[str, set[str]] = {}
    for row in rows:
        axis = row.name.split(".")[0]
        if row.kind == "axis" and axis in _AXES:
            state = (
                "unchanged"
                if not row.changed
                else (f"changed in {row.explained_by} only" if row.explained_by else "moved")
            )
            by_axis.setdefault(axis, set()).add(state)
    said = []
    for state in ("moved", "changed in format only", "changed in length only", "unchanged"):
        axes = [axis for axis in _AXES if axis in by_axis and _overall(by_axis[axis]) == state]
        if axes:
            said.append(f"{_listed(axes)} {state}")
    ways = {"rose" if row.effect.value > 0 else "fell" for row in rows if row.kind == "diversity" and row.changed}
    if ways:
        said.append(f"diversity {ways.pop() if len(ways) == 1 else 'moved'}")
    return "; " + "; ".join(said) if said else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _overall(states: set[str]) -> str:
    """The strongest of an axis' states."""
    order = ("moved", "changed in format only", "changed in length only", "unchanged")
    return next(state for state in order if state in states)
