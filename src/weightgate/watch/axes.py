"""What is followed over time: axes, each a value in 0..1 for every prompt that it applies to.

| axis | prompts | value |
|---|---|---|
| `<axis>.<metric>` | those with such a check | mean score of the samples |
| `style.length` | all | log of the number of words, 1 at 2,000 words |
| `style.layout` | all | log of the number of list lines, headers, bold spans, fences and paragraphs, 1 at 50 |
| `style.polite` | all | polite opening or closing |
| `style.refusal` | all | share of the samples that decline |
| `wording` | all | likeness to what the first snapshot of the baseline said (words and bigrams, Dice) |
| `logprob` | all, where offered | probability of a token of the completion, geometric mean |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from weightgate.diff.features import STYLE_FEATURES, lowered_words, strip_special, style
from weightgate.probe.probes import Probe
from weightgate.probe.recording import Reply
from weightgate.probe.scorers import score
from weightgate.stats.exchangeable import LEVELS, Counts

LEAST_PROMPTS = 5
"""An axis of fewer prompts says too little at each look, and would cost the others evidence."""

ABSENT = -1
"""Level of a prompt that has no value at a look."""

_MOST_WORDS = 2000
_MOST_LAYOUT = 50
_LAYOUT = tuple(
    STYLE_FEATURES.index(name) for name in ("bullets", "numbered", "bold", "headers", "paragraphs", "fences")
)
_POLITE = tuple(STYLE_FEATURES.index(name) for name in ("polite_opening", "polite_closing"))
_LENGTH, _REFUSAL = STYLE_FEATURES.index("words"), STYLE_FEATURES.index("refusal")
STYLE_AXES = ("style.length", "style.layout", "style.polite", "style.refusal")
WORDING, LOGPROB = "wording", "logprob"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One prompt at one look: the replies that came, and the first snapshot's completions, if that is not this one."""

    probe: Probe
    replies: tuple[Reply, ...]
    reference: tuple[str, ...] = ()


def axis_names(probes: Sequence[Probe]) -> tuple[str, ...]:
    """Axes that these prompts can show, `logprob` last: whether it is offered shows only in the answers."""
    counts = Counter(f"{probe.axis}.{metric}" for probe in probes for metric in {c.metric for c in probe.checks})
    scored = sorted(name for name, count in counts.items() if count >= LEAST_PROMPTS)
    return (*scored, *STYLE_AXES, WORDING, LOGPROB)


def levels_of(asked: Sequence[Asked], names: Sequence[str]) -> dict[str, Counts]:
    """Levels 0..LEVELS of each axis, (prompts,), `ABSENT` where a prompt has none."""
    values = [values_of(one) for one in asked]
    return {
        name: np.array([round(LEVELS * found[name]) if name in found else ABSENT for found in values], dtype=np.int64)
        for name in names
    }


def values_of(asked: Asked) -> dict[str, float]:
    """Values in 0..1 of the axes that one prompt shows; none where no reply came."""
    texts = [reply.completion for reply in asked.replies if reply.error is None]
    if not texts:
        return {}
    styles = np.mean([_style_values(text) for text in texts], axis=0)
    found = _scores(asked.probe, texts) | dict(zip(STYLE_AXES, map(float, styles), strict=True))
    if asked.reference:
        found[WORDING] = _likeness(texts, asked.reference)
    logprobs = [pair[1] for reply in asked.replies for pair in reply.token_logprobs or ()]
    if logprobs:
        found[LOGPROB] = min(1.0, math.exp(sum(logprobs) / len(logprobs)))
    return found


def spell_value(axis: str, value: float) -> str:
    """Say a value of an axis in words: lengths in words, everything else as a share."""
    if axis == "style.length":
        return f"{math.expm1(value * math.log1p(_MOST_WORDS)):.3g} words"
    return f"{value:.3f}"


def _scores(probe: Probe, texts: Sequence[str]) -> dict[str, float]:
    by_metric: dict[str, list[float]] = {}
    for check in probe.checks:
        by_metric.setdefault(f"{probe.axis}.{check.metric}", []).extend(score(check, text) for text in texts)
    return {name: min(1.0, max(0.0, sum(scores) / len(scores))) for name, scores in by_metric.items()}


def _style_values(text: str) -> list[float]:
    """Values of `STYLE_AXES` for one completion. `style` gives lengths and counts as log1p."""
    found = style(text)
    layout = math.log1p(sum(math.expm1(found[at]) for at in _LAYOUT))
    return [
        min(1.0, found[_LENGTH] / math.log1p(_MOST_WORDS)),
        min(1.0, layout / math.log1p(_MOST_LAYOUT)),
        max(found[at] for at in _POLITE),
        found[_REFUSAL],
    ]


def _likeness(texts: Sequence[str], reference: Sequence[str]) -> float:
    """Mean over all pairs of the Dice share of their words and bigrams; identical texts count as 1 even without any."""
    theirs = [(other, _wording(other)) for other in reference]
    shares = []
    for text in texts:
        ours = _wording(text)
        shares += [1.0 if text == other else 2 * len(ours & w) / max(len(ours) + len(w), 1) for other, w in theirs]
    return sum(shares) / len(shares)


def _wording(text: str) -> set[object]:
    words = lowered_words(strip_special(text))
    return {*words, *pairwise(words)}
