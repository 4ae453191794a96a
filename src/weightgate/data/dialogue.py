"""Dialogues written as one string, with turns that start with "\\n\\nHuman:" or "\\n\\nAssistant:".

This is the form of the helpful-and-harmless preference data (Bai et al. 2022, arXiv 2204.05862). It cannot be told
apart from an answer that quotes such a marker; such an answer is read as more turns.
"""

from __future__ import annotations

import re

from weightgate.errors import DataError

_MARKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_dialogue(text: str) -> bool:
    """Whether `text` starts with the marker of a first turn."""
    return _MARKER.match(text.lstrip("\n")) is not None


def parse_dialogue(text: str, where: str) -> list[tuple[str, str]]:
    """Split a dialogue into (role, content), content without surrounding white space.

    Raises `DataError` where the text does not start with a marker.
    """
    if not is_dialogue(text):
        raise DataError("the text is no dialogue", where=where, expected='"Human:" or "Assistant:" at its start')
    parts = _MARKER.split(text.lstrip("\n"))
    return [(_ROLES[parts[i]], parts[i + 1].strip()) for i in range(1, len(parts), 2)]
