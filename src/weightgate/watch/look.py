"""One look: ask what is not answered yet, keep every answer as it comes, and read the axes from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weightgate.errors import EndpointError, UserError
from weightgate.probe.endpoint import Question
from weightgate.probe.endpoint_config import BudgetReached, Spending
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Answered, Decoding, Reply
from weightgate.probe.snapshot import Asker
from weightgate.probe.unjudged import unjudged
from weightgate.report.text import one_line
from weightgate.stats.exchangeable import Counts
from weightgate.watch.axes import Asked, axis_names, levels_of
from weightgate.watch.evidence import WatchState
from weightgate.watch.history import BaselineRow, History, LookRow, LookState

LEAST_ANSWERED = 0.8
"""A look with a smaller share of answers is an outage: which prompts fail may itself depend on the prompt."""

_NOTE_CHARACTERS = 300

Answers = Mapping[tuple[str, int], Reply]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of asking. `state` "done" means that there is enough to judge by; `note` says why not.

    `problems` are to be told and end nothing: completions that a pattern could not judge in time.
    """

    answers: Answers
    state: LookState
    failed: int
    note: str = ""
    problems: tuple[UserError, ...] = ()

    @property
    def served(self) -> str:
        """Model names and fingerprints that the answers state."""
        replies = self.answers.values()
        stated = {name for reply in replies for name in (reply.served_model, reply.fingerprint) if name}
        return one_line(", ".join(sorted(stated)))[:_NOTE_CHARACTERS]


def take_look(
    history: History, look: LookRow, probes: tuple[Probe, ...], decoding: Decoding, asker: Asker, spending: Spending
) -> Taken:
    """Ask the questions of a look that have no answer yet.

    An endpoint that cannot be asked ends the look as an outage; whatever was answered is kept.
    """
    known = history.answers(look.look)
    every = [(probe, sample) for sample in range(decoding.samples) for probe in probes]
    questions: list[Question] = [(probe, sample) for probe, sample in every if (probe.id, sample) not in known]
    state, note = _ask(history, look.look, questions, decoding, asker)
    history.spend(
        look.look,
        calls=spending.calls,
        tokens=spending.prompt_tokens + spending.completion_tokens,
        money=spending.money or 0.0,
    )
    answers = history.answers(look.look)
    failed = len(every) - len(answers)
    if state == "done" and len(answers) < LEAST_ANSWERED * len(every):
        state, note = "outage", f"{failed} of {len(every)} questions failed" + (f": {note}" if note else "")
    problems = _unjudged(probes, answers) if state == "done" else ()
    note = one_line("; ".join(filter(None, (*(one.what for one in problems), note))))[:_NOTE_CHARACTERS]
    return Taken(answers=answers, state=state, failed=failed, note=note, problems=problems)


def _unjudged(probes: tuple[Probe, ...], answers: Answers) -> tuple[UserError, ...]:
    replies = _by_probe(answers)
    return unjudged(
        (probe, [reply.completion for reply in replies.get(probe.id, ()) if reply.error is None]) for probe in probes
    )


def _ask(
    history: History, look: int, questions: list[Question], decoding: Decoding, asker: Asker
) -> tuple[LookState, str]:
    """Ask, and say what the look came to and, where something failed, why."""
    errors: list[str] = []

    def keep(answers: Sequence[Answered]) -> None:
        history.add_answers(look, answers)
        errors.extend(one.reply.error for one in answers if one.reply.error is not None)

    if not questions:
        return "done", ""
    try:
        asker.answer(questions, decoding, keep)
    except BudgetReached as error:
        return "budget", f"{error.what}: {error.where}"
    except EndpointError as error:
        return "outage", "; ".join(filter(None, (error.what, error.found, error.mend)))
    return "done", errors[0] if errors else ""


def look_levels(probes: tuple[Probe, ...], answers: Answers, reference: Answers) -> dict[str, Counts]:
    """Levels of every axis at one look; `reference` are the answers of the baseline's first snapshot, if not these."""
    ours, theirs = _by_probe(answers), _by_probe(reference)
    asked = [
        Asked(
            probe=probe,
            replies=ours.get(probe.id, ()),
            reference=tuple(reply.completion for reply in theirs.get(probe.id, ())),
        )
        for probe in probes
    ]
    return levels_of(asked, axis_names(probes))


def _by_probe(answers: Answers) -> dict[str, tuple[Reply, ...]]:
    """Replies of each probe in the order of samples."""
    found: dict[str, list[Reply]] = {}
    for probe, sample in sorted(answers):
        found.setdefault(probe, []).append(answers[probe, sample])
    return {probe: tuple(replies) for probe, replies in found.items()}


def replay(history: History, baseline: BaselineRow) -> WatchState:
    """Make the state of a baseline anew from every answer in the history."""
    state, probes = WatchState(salt=baseline.salt), history.probes(baseline.suite_digest)
    reference: Answers = {}
    for look in sorted(history.looks(baseline=baseline.number, state="done", limit=10**9), key=lambda row: row.look):
        answers = history.answers(look.look)
        levels = look_levels(probes, answers, reference)
        if look.kind == "baseline":
            state.add_snapshot(levels)
            reference = reference or answers
        else:
            state.add_look(levels)
    return state
