"""Which votes are worth reading, and why: every row that a finding or a line of the specification speaks of, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from weightgate.preferences.audit import Audit
from weightgate.preferences.specification import CLEAR
from weightgate.preferences.votes import FAULT_KINDS, Vote
from weightgate.report.page import Collection, Entry, LabelledText, Labels, SideBySide

MOST_ROWS = 600
ROWS_FOR_A_REASON = 25
_SHOWN_CHARACTERS = 1_500
_MOST_ANNOTATORS = 60
"""With more annotators than this, a list to choose from is too long; their names can still be searched for."""


def rows_to_read(audit: Audit) -> Collection | None:
    """The rows, filed under why they are shown, category and annotator; None where there is nothing to read.

    At most `ROWS_FOR_A_REASON` for each reason and `MOST_ROWS` in all. Lines that hold no two answers cannot be read.
    """
    reasons: dict[Vote, list[str]] = {}
    for reason, votes in _reasons(audit):
        for vote in list(dict.fromkeys(votes))[:ROWS_FOR_A_REASON]:
            if vote in reasons or len(reasons) < MOST_ROWS:
                reasons.setdefault(vote, []).append(reason)
    few = len(audit.every.annotators) <= _MOST_ANNOTATORS
    entries = (entry(vote, [("shown because", reason) for reason in why], few) for vote, why in reasons.items())
    return Collection(entries=tuple(entries)) if reasons else None


def entry(vote: Vote, labels: Sequence[tuple[str, str]], few_annotators: bool = True) -> Entry:
    """One vote to read, filed under the labels, its category and its annotator."""
    names = ("chosen", "rejected") if vote.sign else ("one", "other, a tie")
    body = SideBySide(
        prompt=_cut(vote.prompt, from_end=True),
        texts=tuple(
            LabelledText(label=name, text=_cut(text), note=f"{len(text):,} characters")
            for name, text in zip(names, (vote.chosen, vote.rejected), strict=True)
        ),
        title=f"line {vote.line:,}" + (f", {vote.annotator}" if vote.annotator else ""),
    )
    own: Labels = (
        *([("category", vote.category)] if vote.category else []),
        *([("annotator", vote.annotator)] if vote.annotator and few_annotators else []),
    )
    return Entry(body=body, labels=(*labels, *own))


def _reasons(audit: Audit) -> Iterator[tuple[str, Iterable[Vote]]]:
    """(why, votes), in the order in which a reader should look."""
    every, read, found = audit.every.votes, audit.table.votes, audit.contradictions
    yield "likely mislabelled", (read[one.row] for one in audit.noise.suspects)
    yield from _faults(audit)
    leaks = {kind: [read[leak.row] for leak in audit.coverage.leaks if leak.kind == kind] for kind in ("exact", "near")}
    yield "its prompt stands in a test", leaks["exact"]
    yield "its prompt nearly stands in a test", leaks["near"]
    opposed = [one for one in found.opposed if one.same_annotator or not audit.every.annotators]
    yield "judged both ways", (every[row] for one in opposed for row in (*one.fewer, *one.more))
    yield "part of a circle", (every[row] for circle in found.circles for row in circle.rows)
    twins = ((one.refusing, one.answering) for one in found.twins)
    yield "near twins judged oppositely", (every[row] for pair in twins for row in pair)
    yield "repeats another vote", (every[row] for rows in found.duplicates for row in rows)
    for line in audit.specification:
        if line.verdict in CLEAR and line.kind != "category":
            yield line.headline, (read[row] for row in line.rows)


def _faults(audit: Audit) -> Iterator[tuple[str, Iterable[Vote]]]:
    by_line = {vote.line: vote for vote in audit.preferences.votes}
    for kind, known in FAULT_KINDS.items():
        lines = (fault.line for fault in audit.preferences.faults if fault.kind == kind)
        yield known.words, [by_line[line] for line in lines if line in by_line]


def _cut(text: str, *, from_end: bool = False) -> str:
    """The beginning of a long text, or the end of a long conversation."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"... {text[-_SHOWN_CHARACTERS:]}" if from_end else f"{text[:_SHOWN_CHARACTERS]} ..."
