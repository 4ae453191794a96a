"""Tables: cells with bare strings lifted, and intervals given the scale they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from weightgate.report.page import Cell, Interval, Table, as_cell

Scale = tuple[float, float]


def scaled_rows(table: Table) -> list[list[Cell]]:
    """Return the rows with every interval's scale set, shared along rows or columns as the table says."""
    rows = [[as_cell(cell) for cell in row] for row in table.rows]
    if table.shared_scale == "row":
        return [[_scaled(cell, _common(row)) for cell in row] for row in rows]
    scales = [_common([row[index] for row in rows if index < len(row)]) for index in range(len(table.columns))]
    return [[_scaled(cell, scale) for cell, scale in zip(row, scales, strict=False)] for row in rows]


def _common(cells: Sequence[Cell]) -> Scale | None:
    """Return the smallest and largest finite number among the cells' intervals and thresholds."""
    intervals = [cell.graphic for cell in cells if isinstance(cell.graphic, Interval)]
    numbers = [number for one in intervals for number in (one.low, one.high, one.value)]
    numbers += [one.threshold for one in intervals if one.threshold is not None]
    finite = [number for number in numbers if math.isfinite(number)]
    return (min(finite), max(finite)) if finite else None


def _scaled(cell: Cell, scale: Scale | None) -> Cell:
    """Return the cell with a scale for an interval that brought none."""
    if not isinstance(cell.graphic, Interval) or cell.graphic.scale is not None:
        return cell
    return replace(cell, graphic=replace(cell.graphic, scale=scale))
