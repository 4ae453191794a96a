"""What the store remembers, as pages: the lineage, one checkpoint, and whether every byte is still right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weightgate import recipe
from weightgate.data.cached import damaged
from weightgate.errors import CorruptError
from weightgate.report.finding import Finding, Severity
from weightgate.report.page import Block, Cell, Column, Findings, Headline, KeyValues, Page, Table, measurement_cell
from weightgate.stats import measurement_from_json
from weightgate.store import Manifest, Problem, Result, Store
from weightgate.store.records import measured_key

SEVERITY_OF_STATUS: dict[str, Severity] = {
    "passed": "pass",
    "waived": "warn",
    "failed": "fail",
    "not measured": "fail",
}


def open_store(recipe_path: Path) -> Store:
    """Open the store of a recipe. Raises `RecipeError` or `StoreError`."""
    return Store.open(recipe_path.parent / recipe.load(recipe_path).store)


def lineage_page(store: Store) -> tuple[Page, list[Problem]]:
    """Every checkpoint as a tree, ancestors first, with its refs and gate verdicts; and what cannot be read."""
    problems = store.damaged_records()
    names = {} if any(problem.digest == "journal" for problem in problems) else _names_by_checkpoint(store)
    manifests = store.readable_lineage()
    rows = tuple(_lineage_row(store, manifest, depth, names) for manifest, depth in _tree(manifests))
    text = f"{len(manifests)} checkpoints" if manifests or problems else "nothing has been built yet"
    blocks: list[Block] = [Headline(severity="note", text=text)]
    if problems:
        blocks = [Headline(severity="fail", text=f"{text}, and {len(problems)} records that cannot be read")]
    if rows:
        columns = (Column(name="stage"), Column(name="id", code=True), Column(name="refs"), Column(name="gates"))
        blocks.append(Table(columns=(*columns, Column(name="cost", align="right")), rows=rows))
    if problems:
        blocks.append(_problems_block(problems, names))
    return Page(title="Lineage", blocks=tuple(blocks)), problems


def _problems_block(problems: list[Problem], names: Mapping[str, list[str]]) -> Findings:
    """Each problem, the refs that stand there, and what mends it."""
    return Findings(
        findings=tuple(
            Finding(severity="fail", headline=f"{problem.what}: {_named(problem.digest, names)}", detail=problem.mend)
            for problem in problems
        )
    )


def _named(digest: str, names: Mapping[str, list[str]]) -> str:
    return f"{digest} ({', '.join(names[digest])})" if digest in names else digest


def _tree(manifests: list[Manifest]) -> Iterator[tuple[Manifest, int]]:
    """Walk the checkpoints depth first, children after their parent."""
    known = {manifest.id for manifest in manifests}

    def below(parent: str | None, depth: int) -> Iterator[tuple[Manifest, int]]:
        for manifest in manifests:
            is_root = manifest.parent is None or manifest.parent not in known
            if manifest.parent == parent or (parent is None and is_root):
                yield manifest, depth
                yield from below(manifest.id, depth + 1)

    return below(None, 0)


def _lineage_row(
    store: Store, manifest: Manifest, depth: int, names: Mapping[str, list[str]]
) -> tuple[Cell | str, ...]:
    branch = "  " * max(0, depth - 1) + ("└ " if depth else "")
    return (
        f"{branch}{manifest.stage} ({manifest.stage_kind})",
        manifest.id[3:15],
        ", ".join(names.get(manifest.id, [])),
        _gates_cell(store, manifest.id),
        _cost_cell(store, manifest.id),
    )


def _cost_cell(store: Store, checkpoint: str) -> Cell | str:
    try:
        cost = training_cost(store, checkpoint)
    except CorruptError:
        return Cell(text="damaged", severity="fail")
    return f"{cost.get('seconds', 0):,.0f} s" if cost else ""


def _gates_cell(store: Store, checkpoint: str) -> Cell:
    try:
        result = judged_result(store, checkpoint)
    except CorruptError:
        return Cell(text="damaged", severity="fail")
    if result is None:
        return Cell(text="not judged", severity="warn")
    statuses = [verdict["status"] for verdict in result.verdicts]
    bad = sum(status in ("failed", "not measured") for status in statuses)
    if bad:
        return Cell(text=f"{bad} of {len(statuses)} did not pass", severity="fail")
    return Cell(text=f"{len(statuses)} passed", severity="pass")


def checkpoint_page(store: Store, ref: str) -> Page:
    """One checkpoint: what it is, what went in, what was measured, what the gates said, what it cost."""
    checkpoint = store.resolve(ref)
    manifest = store.manifest(checkpoint)
    result = judged_result(store, checkpoint)
    blocks: list[Block] = [
        Headline(severity="note", text=f"{manifest.stage} ({manifest.stage_kind})", detail=checkpoint),
        KeyValues(title="Identity", pairs=_identity(store, manifest)),
        KeyValues(
            title="Inputs", pairs=tuple((name, _shown(value)) for name, value in sorted(manifest.inputs.items()))
        ),
    ]
    if result is not None and result.measurements:
        blocks.append(measurements_table(result))
    if result is not None and result.verdicts:
        blocks.append(verdicts_table(result))
    cost = training_cost(store, checkpoint)
    if cost:
        blocks.append(KeyValues(title="Cost", pairs=tuple((name, f"{value:,.4g}") for name, value in cost.items())))
    return Page(title=f"{manifest.stage} {checkpoint[3:15]}", blocks=tuple(blocks))


def _identity(store: Store, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    elements = sum(_elements(entry.shape) for entry in manifest.tensors.values())
    names = _names_by_checkpoint(store).get(manifest.id, [])
    return (
        ("id", manifest.id),
        ("refs", ", ".join(names) or "none"),
        ("parent", manifest.parent or "none"),
        ("reward model", manifest.reward or "none"),
        ("tensors", f"{len(manifest.tensors)} with {elements:,} elements"),
        *((f"file {name}", digest) for name, digest in sorted(manifest.files.items())),
    )


def _elements(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def measurements_table(result: Result) -> Table:
    """Every measurement of one checkpoint with its interval."""
    rows = tuple(
        (name, measurement_cell(measurement_from_json(dict(data))), str(data.get("unit", "")))
        for name, data in sorted(result.measurements.items())
    )
    columns = (Column(name="measurement"), Column(name="value", align="right"), Column(name="unit"))
    return Table(title="Measurements", columns=columns, rows=rows)


def verdicts_table(result: Result, title: str = "Gates") -> Table:
    """Every gate verdict of one checkpoint."""
    rows = tuple(
        (
            verdict["condition"],
            Cell(text=verdict["status"], severity=SEVERITY_OF_STATUS[verdict["status"]]),
            verdict["reason"],
        )
        for verdict in result.verdicts
    )
    return Table(title=title, columns=(Column(name="gate"), Column(name="verdict"), Column(name="why")), rows=rows)


def verification_page(store: Store, *, contents: bool) -> tuple[Page, list[Problem]]:
    """Check the store; the page names every problem and what mends it."""
    problems = store.verify(contents=contents)
    if contents:
        problems += [
            Problem(
                digest=path.name,
                what=f"cached data is damaged: {error.found}",
                mend=f"remove {path}: it is made again when it is needed",
            )
            for path, error in damaged(store.root / "cache")
        ]
    checked = "every byte was hashed again" if contents else "the structure was checked, bytes were not hashed"
    if problems:
        headline = Headline(severity="fail", text=f"{len(problems)} problems", detail=checked)
        return Page(title="Verify", blocks=(headline, _problems_block(problems, {}))), problems
    headline = Headline(severity="pass", text="the store is whole", detail=checked)
    if store.is_empty():
        headline = Headline(severity="note", text="nothing has been built yet, so there is nothing to verify")
    return Page(title="Verify", blocks=(headline,)), []


def judged_result(store: Store, checkpoint: str) -> Result | None:
    """The newest measurement of a checkpoint together with its gate verdicts, or None."""
    results = store.results(measured_key(checkpoint))
    return results[-1] if results else None


def training_cost(store: Store, checkpoint: str) -> dict[str, float]:
    """What training a checkpoint took: seconds, positions, updates. Empty when it is not known."""
    key = store.manifest(checkpoint).inputs.get("key")
    results = store.results(str(key)) if key else []
    return dict(results[0].cost) if results else {}


def _names_by_checkpoint(store: Store) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, checkpoint in sorted(store.refs().items()):
        names.setdefault(checkpoint, []).append(name)
    return names


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
