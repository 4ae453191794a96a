"""The same specification measured on a trained reward model, and where it departs from the votes it learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from weightgate.preferences.audit import Audit
from weightgate.preferences.logistic import Ints
from weightgate.preferences.specification import Line, scopes_of, specification_of
from weightgate.preferences.votes import Vote
from weightgate.report.page import Cell, Column, Section, Table, measurement_cell
from weightgate.stats import Estimate, Measurement, proportion

MOST_VOTES = 5_000
"""Votes that the model is asked about; of more, the first so many."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """Lines of the votes and of the model on the same pairs, in the same order.

    `agreement` is the share of decided votes that the model sides with; `departs` says for each line whether the two
    intervals do not meet.
    """

    ref: str
    votes: tuple[Line, ...]
    model: tuple[Line, ...]
    departs: tuple[bool, ...]
    agreement: Measurement

    def to_json(self, lines: Sequence[int]) -> dict[str, Any]:
        """Return plain data with lines of the file in the place of rows."""
        both = zip(self.votes, self.model, self.departs, strict=True)
        told = [{"votes": a.to_json(lines), "model": b.to_json(lines), "departs": departs} for a, b, departs in both]
        return {"ref": self.ref, "agreement": self.agreement.to_json(), "lines": told}


def model_view(audit: Audit, ref: str, signs_of: Callable[[Sequence[Vote]], Ints]) -> ModelView:
    """Ask the model which answer it prefers, and make both specifications of the same votes.

    Args:
        signs_of: for votes, 1 where the model prefers the first answer, -1 the second, 0 neither.
    """
    kept = min(len(audit.table), MOST_VOTES)
    table = audit.table.first(kept)
    signs = signs_of(table.votes)
    scopes = scopes_of(table, audit.coverage.topic[:kept], audit.coverage.names)
    votes, model = specification_of(table, scopes), specification_of(table, scopes, signs)
    decided = table.sign != 0
    return ModelView(
        ref=ref,
        votes=votes,
        model=model,
        departs=tuple(_apart(one.share, other.share) for one, other in zip(votes, model, strict=True)),
        agreement=proportion(int((signs == table.sign)[decided].sum()), int(decided.sum())),
    )


def _apart(one: Measurement, other: Measurement) -> bool:
    if not isinstance(one, Estimate) or not isinstance(other, Estimate):
        return False
    return one.low > other.high or other.low > one.high


def model_section(view: ModelView) -> Section:
    """The lines about which somebody has something to say, those that depart first."""
    both = sorted(zip(view.departs, view.votes, view.model, strict=True), key=lambda one: (not one[0], -one[1].pairs))
    rows = tuple(
        (
            Cell(text=f"{votes.driver} on {votes.scope}", severity="warn" if departs else None),
            measurement_cell(votes.share),
            measurement_cell(model.share),
            Cell(text="departs" if departs else "", detail=model.words if departs else ""),
        )
        for departs, votes, model in both
        if votes.verdict != "no evidence" or model.verdict != "no evidence"
    )
    columns = (Column(name="line"), Column(name="votes"), Column(name=view.ref), Column(name=""))
    caption = f"On the same pairs. The model sides with the votes in {view.agreement}."
    return Section(title="What the reward model prefers", blocks=(Table(columns=columns, rows=rows, caption=caption),))
