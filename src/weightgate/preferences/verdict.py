"""From measurements to findings: what a reader should do something about, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weightgate.preferences.annotators import Annotator
from weightgate.preferences.audit import Audit
from weightgate.preferences.bias import Effect
from weightgate.preferences.drivers import LENGTH, POSITION, REFUSAL
from weightgate.preferences.specification import CLEAR
from weightgate.preferences.votes import FAULT_KINDS
from weightgate.report.finding import SEVERITIES, Finding, Severity, worst
from weightgate.stats import Estimate

MAX_UNUSABLE_SHARE = 0.01
"""More rows that cannot be used than this fail an audit, as they would a build."""

SHOWN_ROWS = 50
_LOW_ALPHA, _POOR_ALPHA = 0.2, 0.4
_STRONG_BIAS = 0.1
_HIGH_NOISE = 0.2
_NAMED_LINES = 3

Evidence = tuple[tuple[str, ...], ...]


def findings_of(audit: Audit) -> tuple[Finding, ...]:
    """Every finding, the worst first; of equal severity in the order in which the checks run."""
    found = [
        *_faults(audit),
        *_leaks(audit),
        *_contradictions(audit),
        *_agreement(audit),
        *_annotators(audit),
        *_biases(audit),
        *_noise(audit),
        *_coverage(audit),
    ]
    return tuple(sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity)))


def severity_of(findings: tuple[Finding, ...]) -> Severity:
    """The worst of them."""
    return worst(tuple(finding.severity for finding in findings))


def headline_of(audit: Audit, findings: tuple[Finding, ...]) -> str:
    """One sentence: what the votes teach most surely, and the gravest thing that is wrong with them."""
    sure = [line for line in audit.specification if line.kind == "everything" and line.verdict in CLEAR]
    sure.sort(key=lambda line: (line.driver not in (REFUSAL, LENGTH), line.adjusted_p))
    taught = "; ".join(line.headline for line in sure[:_NAMED_LINES]) or "no manner is clearly preferred"
    grave = [finding for finding in findings if finding.severity in ("fail", "warn")]
    wrong = f"{len(grave)} things to look at, first: {grave[0].headline}" if grave else "nothing wrong was found"
    return f"{taught}. {wrong[0].upper()}{wrong[1:]}"


def audit_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain data with its verdict: what a gate reads."""
    findings = findings_of(audit)
    return {
        "verdict": severity_of(findings),
        "headline": headline_of(audit, findings),
        "findings": [finding.to_json() for finding in findings],
        **audit.to_json(),
    }


def _places(audit: Audit, rows: tuple[int, ...]) -> Evidence:
    """The lines of the rows, as one row of evidence."""
    return ((_lines(audit.lines, rows, most=SHOWN_ROWS),),) if rows else ()


def _faults(audit: Audit) -> Iterator[Finding]:
    total = audit.preferences.rows
    for kind, count in audit.faults.most_common():
        known = FAULT_KINDS[kind]
        lines = [fault for fault in audit.preferences.faults if fault.kind == kind]
        rows = len({fault.line for fault in lines})
        severity: Severity = "note" if not known.blocks or kind == "skipped" else "warn"
        if severity == "warn" and rows > MAX_UNUSABLE_SHARE * total:
            severity = "fail"
        more = f" (the first {SHOWN_ROWS} are shown)" if count > SHOWN_ROWS else ""
        kept = "left out of everything below" if known.blocks else "kept"
        yield Finding(
            severity=severity,
            headline=f"{known.words}: {rows:,} of {total:,} rows",
            detail=f"They are {kept}; `--fix` writes a file without them{more}."
            if known.blocks
            else f"They are {kept}{more}.",
            evidence=tuple(
                (f"{audit.preferences.name}:{fault.line}", *filter(None, [fault.detail]))
                for fault in lines[:SHOWN_ROWS]
            ),
        )


def _leaks(audit: Audit) -> Iterator[Finding]:
    for kind, severity in (("exact", "fail"), ("near", "warn")):
        leaks = [leak for leak in audit.coverage.leaks if leak.kind == kind]
        if leaks:
            words = "stand" if kind == "exact" else "nearly stand"
            yield Finding(
                severity="fail" if severity == "fail" else "warn",
                headline=f"{len(leaks):,} prompts {words} in {', '.join(sorted({leak.other for leak in leaks}))}",
                detail="A model trained on them has seen the test. Remove them here or there.",
                evidence=tuple((f"line {audit.lines[leak.row]}", leak.where) for leak in leaks[:SHOWN_ROWS]),
            )


def _contradictions(audit: Audit) -> Iterator[Finding]:
    found = audit.contradictions
    own = [one for one in found.opposed if one.same_annotator]
    unnamed = [one for one in found.opposed if not one.same_annotator and not audit.every.annotators]
    for group, who in ((own, "by the same annotator"), (unnamed, "in different rows")):
        if group:
            yield Finding(
                severity="warn",
                headline=f"{len(group):,} pairs of answers were judged both ways {who}",
                detail="`--fix` removes the minority's votes, and all votes where both sides have as many.",
                evidence=tuple(
                    (_lines(audit.every_lines, one.fewer), "against", _lines(audit.every_lines, one.more))
                    for one in group[:SHOWN_ROWS]
                ),
            )
    if found.circles:
        fewest = sum(len(circle.remove) for circle in found.circles)
        yield Finding(
            severity="warn",
            headline=f"the answers of {len(found.circles):,} prompts beat each other in a circle; "
            f"{fewest:,} votes would have to go",
            detail=f"Of {found.triads:,} closed triads {found.cyclic_share:.1%} are circles; votes by coin would give "
            f"{found.null_share:.1%}.",
            evidence=tuple(
                (_lines(audit.every_lines, circle.rows), "without", _lines(audit.every_lines, circle.remove))
                for circle in found.circles[:SHOWN_ROWS]
            ),
        )
    if found.twins:
        yield Finding(
            severity="note",
            headline=f"{len(found.twins):,} prompts have a near twin, of which one was to be refused and one answered",
            evidence=tuple(
                (
                    f"refused: line {audit.every_lines[one.refusing]}",
                    f"answered: line {audit.every_lines[one.answering]}",
                )
                for one in found.twins[:SHOWN_ROWS]
            ),
        )
    repeated = sum(len(rows) - 1 for rows in found.duplicates)
    if repeated:
        yield Finding(
            severity="note",
            headline=f"{repeated:,} votes repeat another word for word",
            detail="They count twice in training; `--fix` keeps the first of each.",
            evidence=tuple((_lines(audit.every_lines, rows),) for rows in found.duplicates[:SHOWN_ROWS]),
        )


def _lines(lines: list[int], rows: tuple[int, ...], most: int = 12) -> str:
    shown = ", ".join(str(lines[row]) for row in rows[:most])
    named = "line" if len(rows) == 1 else "lines"
    return f"{named} {shown}" + (f" and {len(rows) - most} more" if len(rows) > most else "")


def _agreement(audit: Audit) -> Iterator[Finding]:
    alpha, noise = audit.agreement.alpha, audit.agreement.noise
    if not isinstance(alpha, Estimate):
        return
    severity: Severity = "fail" if alpha.value < _LOW_ALPHA else "warn" if alpha.value < _POOR_ALPHA else "note"
    ceiling = ""
    if isinstance(noise, Estimate):
        ceiling = f"; no model can agree with one such vote more often than {1 - noise.value:.0%}"
    yield Finding(
        severity=severity,
        headline=f"annotators agree with alpha {alpha.value:.2f} [{alpha.low:.2f}, {alpha.high:.2f}] on "
        f"{audit.agreement.items:,} pairs that several judged",
        detail=f"Raw agreement is {_percent(audit.agreement.raw)}{ceiling}. Ties count as an outcome of their own.",
    )


def _annotators(audit: Audit) -> Iterator[Finding]:
    for one in audit.roster:
        if one.differs:
            yield Finding(
                severity="warn",
                headline=f"{one.name} agrees with the others in {_percent(one.agreement)} of {one.shared:,} votes, "
                "fewer than everybody else",
                detail=f"Implied error rate {_percent(one.error_rate)}. Read some of the votes before dropping any: "
                "a minority view looks the same.",
            )
        if one.drift <= 0.01:
            yield Finding(severity="warn", headline=f"the agreement of {one.name} with the others changed over time")
        if one.hurried:
            yield Finding(
                severity="warn",
                headline=f"{one.name} takes {one.seconds:.0f} seconds a vote, less than a quarter of what is usual",
            )
        if _leans(one):
            yield Finding(
                severity="warn",
                headline=f"between equals {one.name} takes the answer shown first in {_percent(one.first_bias)}",
            )


def _leans(one: Annotator) -> bool:
    bias = one.first_bias
    return (
        isinstance(bias, Estimate)
        and min(abs(bias.low - 0.5), abs(bias.high - 0.5)) > 0.05
        and (bias.low > 0.5 or bias.high < 0.5)
    )


def _biases(audit: Audit) -> Iterator[Finding]:
    for effect in audit.style.effects:
        if effect.reported:
            yield _bias(audit, effect)


def _bias(audit: Audit, effect: Effect) -> Finding:
    assert isinstance(effect.equal, Estimate)
    strong = abs(effect.equal.value - 0.5) >= _STRONG_BIAS
    severity: Severity = "fail" if effect.driver == POSITION and strong else "warn" if strong else "note"
    if effect.driver == POSITION and severity == "note":
        severity = "warn"
    line = next((one for one in audit.specification if one.driver == effect.driver), None)
    won = effect.equal.value >= 0.5
    return Finding(
        severity=severity,
        headline=f"{effect.words} {'wins' if won else 'loses'} {_percent(effect.equal, turned=not won)} of "
        f"{effect.pairs:,} pairs, all else seen being equal",
        detail=f"Alone: {_percent(effect.alone, turned=not won)}. A reward model can learn this without reading.",
        evidence=_places(audit, line.rows) if line else (),
    )


def _noise(audit: Audit) -> Iterator[Finding]:
    noise = audit.noise
    if not noise.suspects:
        return
    share = noise.share
    severity: Severity = "warn" if isinstance(share, Estimate) and share.low >= _HIGH_NOISE else "note"
    total = f"; of all rows {_percent(share)} may be" if isinstance(share, Estimate) else ""
    yield Finding(
        severity=severity,
        headline=f"{len(noise.suspects):,} of {noise.examined:,} rows are likely mislabelled{total}",
        detail="Judged by the words of the answers in other prompts and by the other votes on the same two answers. "
        "A person should decide; removing harms less than turning around.",
        evidence=tuple(
            (
                f"line {audit.lines[one.row]}",
                f"{one.probability:.0%} wrong",
                f"other votes: {one.votes_for} for, {one.votes_against} against",
            )
            for one in noise.suspects[:SHOWN_ROWS]
        ),
    )


def _coverage(audit: Audit) -> Iterator[Finding]:
    thin = [region for region in audit.coverage.regions if region.thin]
    if thin:
        yield Finding(
            severity="note",
            headline=f"{len(thin)} topics have few pairs: {'; '.join(region.name for region in thin[:5])}",
        )


def _percent(measured: Any, *, turned: bool = False) -> str:
    """A share with its interval; `turned`: of the opposite."""
    if not isinstance(measured, Estimate):
        return "an unknown share"
    ends = (measured.value, measured.low, measured.high)
    value, low, high = (1 - ends[0], 1 - ends[2], 1 - ends[1]) if turned else ends
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"
