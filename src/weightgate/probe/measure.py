"""Answers to a suite -> named measurements, each with its interval and n.

| name | from | interval |
|---|---|---|
| `<axis>.<metric>` | mean score of the greedy completions with that metric | Wilson if all 0/1, else bootstrap |
| `<axis>.<topic>.<metric>` | the same for one topic | same |
| `boundary.words`, `boundary.hedging` | chat completions in prose: mean words; share that hedge | bootstrap; Wilson |
| `gold.reward`, `gold.<axis>` | mean gold reward of the samples of a probe, over the probes | bootstrap |
| `open.diversity` | expectation-adjusted distinct bigrams within a prompt, over the open prompts | bootstrap |
| `open.distinct` | share of different completions within a prompt, over the open prompts | bootstrap |

The unit of observation is always the probe: samples of one prompt are not independent of one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from weightgate.probe.language import is_hedged, words
from weightgate.probe.probes import Check, Probe
from weightgate.probe.scorers import gold_reward, score
from weightgate.probe.suites import Suite
from weightgate.probe.targets import Answers
from weightgate.stats import Measurement, Unmeasured, mean, paired_difference, proportion

_JSON_CHECKS = frozenset({"json_format", "json_fields"})
_POSSIBLE_BIGRAMS = 10_000
"""V of `expectation_adjusted_distinct`. Fixed, so that any two targets are measured with one yardstick."""


def measure(suite: Suite, answers: Answers) -> dict[str, Measurement]:
    """Measure everything that the answers allow. Raises `ValueError` when they are not answers to this suite."""
    _require_same_length(suite, answers)
    found = {name: _estimate(values) for name, values in check_scores(suite, answers).items()}
    return found | _manner(suite, answers) | _gold(suite, answers) | _diversity(suite, answers)


def check_scores(suite: Suite, answers: Answers) -> dict[str, list[float]]:
    """Scores of the greedy completions by measurement name, in the suite's order, for paired comparisons."""
    scores: dict[str, list[float]] = defaultdict(list)
    for probe, completion in zip(suite.probes, answers.greedy, strict=True):
        for check in probe.checks:
            value = score(check, completion)
            for name in _names(probe, check):
                scores[name].append(value)
    return dict(scores)


def gold_gain(suite: Suite, after: Answers, before: Answers) -> Measurement:
    """Mean rise of the gold reward from one target to another, paired by probe."""
    _require_same_length(suite, after)
    _require_same_length(suite, before)
    later, earlier = _gold_by_probe(suite, after), _gold_by_probe(suite, before)
    shared = sorted(later.keys() & earlier.keys())
    return paired_difference([later[at] for at in shared], [earlier[at] for at in shared], unit="gold reward")


def expectation_adjusted_distinct(texts: Sequence[str], vocabulary: int) -> float:
    """Distinct word bigrams in texts over the number expected of as many uniform draws.

    EAD = N / (V (1 - ((V - 1) / V)^C)), N distinct of C bigrams, V those possible (Liu et al. 2022, eq. 3). Unlike
    distinct-n it does not fall merely because texts are longer. 0 for no bigram at all.
    """
    grams = [_grams(text) for text in texts]
    count = sum(map(len, grams))
    if not count:
        return 0.0
    expected = -vocabulary * math.expm1(count * math.log1p(-1 / vocabulary)) if vocabulary > 1 else 1.0
    return len(set().union(*grams)) / expected


def _require_same_length(suite: Suite, answers: Answers) -> None:
    if not len(suite) == len(answers.greedy) == len(answers.sampled):
        raise ValueError(f"{len(suite)} probes, but {len(answers.greedy)} answers and {len(answers.sampled)} samples")


def _names(probe: Probe, check: Check) -> tuple[str, str]:
    return f"{probe.axis}.{check.metric}", f"{probe.axis}.{probe.topic}.{check.metric}"


def _estimate(scores: Sequence[float]) -> Measurement:
    if all(value in (0.0, 1.0) for value in scores):
        return proportion(int(sum(scores)), len(scores))
    return mean(scores, unit="share")


def _manner(suite: Suite, answers: Answers) -> dict[str, Measurement]:
    """Length and hedging of what is said in prose: completions that should be JSON say nothing about manner."""
    prose = [
        completion
        for probe, completion in zip(suite.probes, answers.greedy, strict=True)
        if probe.form == "chat" and not any(check.type in _JSON_CHECKS for check in probe.checks)
    ]
    return {
        "boundary.words": mean([float(len(words(text))) for text in prose], unit="words"),
        "boundary.hedging": proportion(sum(is_hedged(text) for text in prose), len(prose)),
    }


def _gold(suite: Suite, answers: Answers) -> dict[str, Measurement]:
    rewards = _gold_by_probe(suite, answers)
    found = {"gold.reward": mean(list(rewards.values()), unit="gold reward")}
    for axis in sorted({suite.probes[index].axis for index in rewards}):
        own = [value for index, value in rewards.items() if suite.probes[index].axis == axis]
        found[f"gold.{axis}"] = mean(own, unit="gold reward")
    return found


def _gold_by_probe(suite: Suite, answers: Answers) -> dict[int, float]:
    """Index of a probe -> mean gold reward of its samples."""
    sampled = enumerate(zip(suite.probes, answers.sampled, strict=True))
    return {
        index: sum(gold_reward(probe, text) for text in texts) / len(texts)
        for index, (probe, texts) in sampled
        if probe.has_gold and texts
    }


def _diversity(suite: Suite, answers: Answers) -> dict[str, Measurement]:
    """Diversity is a property of each prompt; pooled over prompts it can rise while every prompt collapses."""
    groups = [
        texts for probe, texts in zip(suite.probes, answers.sampled, strict=True) if probe.axis == "open" and texts
    ]
    if any(len(texts) < 2 for texts in groups) or not groups:
        reason = Unmeasured(reason="diversity needs open prompts with at least 2 samples each")
        return {"open.diversity": reason, "open.distinct": reason}
    distinct = [len({text.strip() for text in texts}) / len(texts) for texts in groups]
    adjusted = [expectation_adjusted_distinct(texts, _POSSIBLE_BIGRAMS) for texts in groups]
    return {
        "open.diversity": mean(adjusted, unit="distinct bigrams, expectation-adjusted"),
        "open.distinct": mean(distinct, unit="share"),
    }


def _grams(text: str) -> list[tuple[str, str]]:
    """Word bigrams between a start and an end mark, so that a one-word text has two."""
    said = words(text.casefold())
    return list(pairwise(["<", *said, ">"])) if said else []
