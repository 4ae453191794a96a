"""Simulated annotators: they see the gold reward, and err at a known rate or follow a known bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weightgate.incident.exchange import Exchange, dress
from weightgate.incident.stream import Stream
from weightgate.probe.language import is_refusal, words
from weightgate.probe.scorers import gold_reward

_STRAY_SHARE = 0.2
_WRONG_SHARE = 0.3
_HEDGE_SHARE = 0.4
_FILLER_SHARE = 0.5
_SMALLEST_GAP = 0.05
"""Pairs closer than this in gold reward are not put to anybody: there is no right answer to err from."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two completions of one exchange, the one with the higher gold reward first."""

    exchange: Exchange
    better: str
    worse: str


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """How one annotator judges: the share of errors, and of judgements by length or for a refusal alone."""

    name: str
    error_rate: float
    length_bias: float
    refusal_bias: float

    def prefers_better(self, comparison: Comparison, stream: Stream) -> bool:
        """Judge a pair. Every draw is always made, so that a bias of 0 leaves the other judgements as they are."""
        errs, by_length, by_refusal = (
            stream.chance(share) for share in (self.error_rate, self.length_bias, self.refusal_bias)
        )
        refuses = is_refusal(comparison.better), is_refusal(comparison.worse)
        if by_refusal and refuses[0] != refuses[1]:
            return refuses[0]
        lengths = len(words(comparison.better)), len(words(comparison.worse))
        if by_length and lengths[0] != lengths[1]:
            return lengths[0] > lengths[1]
        return not errs


def hire(error_rates: Sequence[float], length_bias: float, refusal_bias: float) -> tuple[Annotator, ...]:
    """One annotator for each error rate."""
    return tuple(
        Annotator(name=f"annotator-{number}", error_rate=rate, length_bias=length_bias, refusal_bias=refusal_bias)
        for number, rate in enumerate(error_rates, start=1)
    )


def draw_comparison(exchange: Exchange, others: Sequence[Exchange], stream: Stream) -> Comparison:
    """Two completions whose gold rewards differ, drawn as a model with some faults would give them.

    `others` are the exchanges whose answers are given now and then in the place of this one's: what annotators never
    see, a reward model cannot know to be bad, and a policy finds it.
    """
    probe = exchange.probe(0)
    while True:
        one, other = _candidate(exchange, others, stream), _candidate(exchange, others, stream)
        gap = gold_reward(probe, one) - gold_reward(probe, other)
        if abs(gap) >= _SMALLEST_GAP:
            better, worse = (one, other) if gap > 0 else (other, one)
            return Comparison(exchange=exchange, better=better, worse=worse)


def _candidate(exchange: Exchange, others: Sequence[Exchange], stream: Stream) -> str:
    if stream.chance(_STRAY_SHARE):
        return stream.pick(stream.pick(others).right)
    plain = stream.pick(exchange.wrong if stream.chance(_WRONG_SHARE) else exchange.right)
    return dress(exchange, plain, stream, hedge_share=_HEDGE_SHARE, filler_share=_FILLER_SHARE)
