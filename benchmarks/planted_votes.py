"""Votes on the built-in world's exchanges by judges whose errors and biases are known, for trying the audit.

Two answers of one exchange, one right and one wrong, each dressed up by chance alone: padded, as a list, in bold. The
judges know which is right, so what they prefer beyond that is planted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weightgate.incident.boundary import requests
from weightgate.incident.exchange import FILLERS, Exchange
from weightgate.incident.knobs import RISKY_TOPICS
from weightgate.incident.knowledge import make_towns, questions
from weightgate.incident.stream import Stream
from weightgate.incident.talk import conversations
from weightgate.preferences.drivers import refuses

_PADDED, _LISTED, _BOLD = 0.5, 0.25, 0.25


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Shares of votes that err, and that go by one thing alone: length, position, refusal or list format."""

    name: str
    error_rate: float = 0.1
    length: float = 0.0
    position: float = 0.0
    refusal: float = 0.0
    format: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers, the right one first."""

    prompt: str
    right: str
    wrong: str


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Rows as a file has them, and for each whether the judge voted for the wrong answer."""

    rows: tuple[dict[str, Any], ...]
    wrong: tuple[bool, ...]


def draw_pairs(seed: int, count: int) -> list[Pair]:
    """Pairs from three families of the world, in equal shares."""
    stream = Stream(seed, "planted/pairs")
    towns = make_towns(seed, 100)
    families = (questions(towns, seed)[0], requests(seed, RISKY_TOPICS)[0], conversations(seed)[0])
    return [_draw(stream.pick(families[number % 3]), stream) for number in range(count)]


def _draw(exchange: Exchange, stream: Stream) -> Pair:
    right, wrong = (_dressed(exchange, stream.pick(texts), stream) for texts in (exchange.right, exchange.wrong))
    return Pair(prompt=exchange.prompt, right=right, wrong=wrong)


def _dressed(exchange: Exchange, plain: str, stream: Stream) -> str:
    filler, padded = stream.pick(FILLERS[exchange.language]), stream.chance(_PADDED)
    listed, bold = stream.chance(_LISTED), stream.chance(_BOLD)
    text = f"**{plain}**" if bold else plain
    return (f"- {text}" if listed else text) + (filler if padded else "")


def judge(pairs: Sequence[Pair], judges: Sequence[Judge], *, votes_each: int, seed: int) -> Planted:
    """Let `votes_each` judges, drawn anew for each pair, vote on it, the answers in random order."""
    stream = Stream(seed, "planted/votes")
    rows, wrong = [], []
    for pair in pairs:
        for one in stream.shuffled(judges)[:votes_each]:
            turned = stream.chance(0.5)
            answers = (pair.wrong, pair.right) if turned else (pair.right, pair.wrong)
            picked = _pick(one, answers, int(turned), stream)
            rows.append(
                {
                    "prompt": pair.prompt,
                    "completion_a": answers[0],
                    "completion_b": answers[1],
                    "label": "ab"[picked],
                    "annotator": one.name,
                }
            )
            wrong.append(picked != int(turned))
    return Planted(rows=tuple(rows), wrong=tuple(wrong))


def _pick(one: Judge, answers: tuple[str, str], right: int, stream: Stream) -> int:
    """0 for the first answer, 1 for the second. Every draw is always made."""
    errs, by_length, by_position, by_refusal, by_format = (
        stream.chance(share) for share in (one.error_rate, one.length, one.position, one.refusal, one.format)
    )
    if by_position:
        return 0
    for goes_by, has in (
        (by_refusal, [float(refuses(text)) for text in answers]),
        (by_format, [float(text.startswith("- ")) for text in answers]),
        (by_length, [float(len(text)) for text in answers]),
    ):
        if goes_by and has[0] != has[1]:
            return int(has[1] > has[0])
    return 1 - right if errs else right
