"""SVG elements as safe markup: every attribute and every text child is made visible and escaped here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape

from weightgate.report.text import visible

Attributes = Mapping[str, str | float]


def element(name: str, attributes: Attributes, *children: str | Markup) -> Markup:
    """Return `<name attributes>children</name>`. A child that is not `Markup` is text and is escaped."""
    spelt = "".join(f' {key}="{_attribute(value)}"' for key, value in attributes.items())
    inside = "".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup(f"<{name}{spelt}>{inside}</{name}>")


def percent(share: float) -> str:
    """Spell a share as an SVG percentage."""
    return f"{share * 100:.5g}%"


def _attribute(value: str | float) -> str:
    """Spell an attribute: numbers to a thousandth of a pixel, texts escaped."""
    return str(escape(visible(value))) if isinstance(value, str) else f"{value:.6g}"
