"""Making text from models and data files safe to show: nothing in it may move a cursor or reorder a line."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls without tab and line feed
    "\u00ad\u061c\u180e\u200b\u200e\u200f"  # soft hyphen, bidi marks, zero-width space
    "\u2028-\u202e\u2060-\u206f"  # separators, bidi embeddings, overrides and isolates, invisible operators
    "\ufeff\ufff0-\ufffb\ufffe\uffff"  # byte order mark, interlinear marks, non-characters
    "\ud800-\udfff"  # lone surrogates, which no encoding of a file accepts
    "\U000e0000-\U000e0fff"  # tag characters: invisible text
    "]"
)
"""Controls, and characters that draw nothing or change the order of others. Tab, line feed and the joiners U+200C and
U+200D stay: without the joiners Persian, Indic scripts and emoji are misspelt."""


def visible(text: str) -> str:
    """Return text with every control, bidi and invisible character replaced by its escape, such as `\\x1b`."""
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return visible text on one line: runs of white space become one space."""
    return " ".join(visible(text).split())


def _escape(match: re.Match[str]) -> str:
    """Spell a character as Python would."""
    point = ord(match.group())
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
