"""What of the training data is really supervised: counted on the rows that go into the loop, before step 0.

A loss curve cannot show a lost mask, so these counts are part of the contract.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Kind = Literal["documents", "conversations", "preferences", "prompts"]

MAX_SHARE_WITHOUT_SUPERVISION = 0.05
"""Rows whose answer lies behind the context are dropped; more than this share means that the context is too short."""

MAX_SHARE_TRUNCATED = 0.2
"""More rows cut short than this teach the model not to stop."""

MAX_SHARE_TOO_LONG = 0.5
"""Pairs and prompts that do not fit are dropped; more than this and what is left is another data set."""


@dataclass(frozen=True, kw_only=True)
class Census:
    """Counts over the training side of one prepared data set; integers only, so that it can be hashed.

    Args:
        kind: what the records are.
        records: records of the training side, after duplicates were removed.
        rows: samples that can be trained on (of documents: pieces no longer than the context; of preferences: pairs).
        tokens: tokens in these rows.
        supervised_tokens: tokens that are a target of the loss (of preferences: those of the completions).
        answers: assistant turns, before anything was cut or dropped.
        rows_without_supervision: records with no target left inside the context; they are dropped.
        rows_truncated: rows cut at the context.
        tokens_truncated: tokens lost by that.
        answers_cut: rows among them whose last answer lost its terminator.
        rows_with_terminator_supervised: rows whose last target is a stop token.
        rows_not_one_bos: records that do not have exactly the one BOS that the template should write.
        rows_not_one_eos: records with more or fewer supervised terminators than answers (of documents: not one EOS).
        rows_too_long: pairs and prompts dropped because a cut would change what they say.
        pairs_identical: pairs dropped because both completions are the same.
        unusable: records left out by the reader, such as those with an empty answer.
        duplicates_removed: exact duplicates left out, on both sides of the split.
        holdout_rows: rows kept out for measurement.
    """

    kind: Kind
    records: int = 0
    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    answers: int = 0
    rows_without_supervision: int = 0
    rows_truncated: int = 0
    tokens_truncated: int = 0
    answers_cut: int = 0
    rows_with_terminator_supervised: int = 0
    rows_not_one_bos: int = 0
    rows_not_one_eos: int = 0
    rows_too_long: int = 0
    pairs_identical: int = 0
    unusable: int = 0
    duplicates_removed: int = 0
    holdout_rows: int = 0

    @property
    def share_supervised(self) -> float:
        """Targets per token; 0 for no tokens."""
        return self.supervised_tokens / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, int | str]:
        """Return plain data; `from_json` reads it back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_json(data: dict[str, int | str]) -> Census:
        """Read what `to_json` wrote. Raises `TypeError` for other keys."""
        return Census(**data)  # type: ignore[arg-type]


def census_problems(census: Census) -> list[str]:
    """Return why this data must not be trained on, one sentence each; an empty list means that it may be."""
    if census.rows == 0:
        return [f"no row is left to train on, out of {census.records:,} records{_reasons_for_nothing(census)}"]
    problems = _fault_counts(census)
    if census.kind in ("documents", "conversations") and census.supervised_tokens == 0:
        problems.append("no token is supervised, so there is nothing to learn")
    if census.kind in ("conversations", "preferences"):
        problems += _terminator_problems(census)
    if census.kind == "conversations":
        problems += _supervision_problems(census)
    return problems


def _reasons_for_nothing(census: Census) -> str:
    reasons = {
        "do not fit into the context (raise `context`)": census.rows_too_long,
        "have no answer inside the context (raise `context`)": census.rows_without_supervision,
        "have two equal completions": census.pairs_identical,
        "are held out (lower `holdout`)": census.holdout_rows,
    }
    told = [f"{count:,} {reason}" for reason, count in reasons.items() if count]
    return f": {', '.join(told)}" if told else ""


def _fault_counts(census: Census) -> list[str]:
    problems = []
    if census.rows_not_one_bos:
        problems.append(f"{census.rows_not_one_bos:,} of {census.records:,} records do not have exactly one BOS")
    if census.rows_not_one_eos:
        problems.append(
            f"{census.rows_not_one_eos:,} of {census.records:,} records do not end each text or answer with one EOS"
        )
    if census.rows_too_long > MAX_SHARE_TOO_LONG * census.records:
        problems.append(
            f"{census.rows_too_long:,} of {census.records:,} records do not fit into the context; raise `context`"
        )
    return problems


def _terminator_problems(census: Census) -> list[str]:
    unterminated = census.rows - census.answers_cut - census.rows_with_terminator_supervised
    if unterminated <= 0:
        return []
    return [
        f"{unterminated:,} of {census.rows:,} rows do not supervise the end of the answer: the model would not learn "
        "to stop"
    ]


def _supervision_problems(census: Census) -> list[str]:
    problems = []
    if census.supervised_tokens >= census.tokens:
        problems.append("every token is supervised, the prompts too: the assistant mask was lost")
    if census.rows_without_supervision > MAX_SHARE_WITHOUT_SUPERVISION * census.records:
        problems.append(
            f"{census.rows_without_supervision:,} of {census.records:,} records have no supervised token inside the "
            "context; raise `context`"
        )
    if census.rows_truncated > MAX_SHARE_TRUNCATED * census.rows:
        problems.append(
            f"{census.rows_truncated:,} of {census.rows:,} rows are cut at the context, {census.answers_cut:,} of them "
            "before the end of the answer; raise `context`"
        )
    return problems
