"""How wide the columns of a table are in a terminal, where not all that they hold fits on one line each."""

from __future__ import annotations

from collections.abc import Sequence


def column_widths(
    natural: Sequence[int], least: Sequence[int], room: int, *, is_text: Sequence[bool]
) -> list[int] | None:
    """Share `room` characters among columns so that none is narrower than its `least`.

    What is left goes, character by character, to the narrowest column that is not as wide as its `natural` width, so
    that the widest ones give way first; to columns of text before columns of numbers, whose remarks are short.

    Args:
        natural: width at which no line of a column has to be broken; at least 1.
        least: width below which words of a column would be broken; from 1 to its natural width.
        room: characters for all columns together, gaps aside.

    Returns None where the least widths do not fit.
    """
    widths = list(least)
    if sum(widths) > room:
        return None
    for _ in range(min(room, sum(natural)) - sum(widths)):
        lacking = [each for each, width in enumerate(widths) if width < natural[each]]
        widths[min(lacking, key=lambda each: (not is_text[each], widths[each]))] += 1
    return widths
