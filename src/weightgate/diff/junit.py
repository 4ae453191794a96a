"""A comparison as JUnit XML, for continuous integration: each axis is a test, which fails where it changed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from weightgate.diff.compare import Comparison
from weightgate.diff.rows import Row

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids even as references (section 2.2); completions may hold them."""


def comparison_junit(comparison: Comparison) -> str:
    """Return one test suite: a test for each axis and topic, one for style as a whole, one for the general detector."""
    tests = [(row.name, row.changed, _told(row)) for row in comparison.rows if row.kind != "style"]
    styles = [row for row in comparison.rows if row.kind == "style"]
    moved = [row for row in styles if row.changed]
    tests.append(("style", bool(moved), "; ".join(map(_told, moved)) or f"{len(styles)} features unchanged"))
    lowest = min((one.adjusted_p for one in comparison.general), default=1.0)
    tests.append(("general", lowest <= comparison.alpha, f"lowest corrected p {lowest:.3g}"))
    suite = ElementTree.Element("testsuite", name="weightgate diff", tests=str(len(tests)))
    suite.set("failures", str(sum(failed for _, failed, _ in tests)))
    for name, failed, told in tests:
        case = ElementTree.SubElement(suite, "testcase", classname="weightgate.diff", name=_clean(name))
        if failed:
            failure = ElementTree.SubElement(case, "failure", message=_clean(comparison.headline), type="change")
            failure.text = _clean(told)
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(told)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _told(row: Row) -> str:
    explained = f", {row.explained_by} only" if row.explained_by and row.changed else ""
    return f"{row.name} {row.before:.3g} -> {row.after:.3g} {row.effect}, corrected p {row.adjusted_p:.3g}{explained}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
