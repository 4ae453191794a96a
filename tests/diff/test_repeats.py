"""What a side says twice: noise explains what it can, and what a side repeats speaks for a change."""

from __future__ import annotations

import random

from tests.diff.planted import probes, recorded

from weightgate.diff.pairing import Pair, pair_up
from weightgate.diff.repeats import beyond_noise, completions_twice, repeat_counts, repeat_p_value, tops_twice
from weightgate.probe.probes import Probe

ASKED = probes(42)


def _pairs(after: str | random.Random, before: str | random.Random = "yes") -> tuple[Pair, ...]:
    def speaker(says: str | random.Random) -> object:
        return lambda probe: says if isinstance(says, str) else says.choice("ab")

    return pair_up(*(recorded(speaker(side), ASKED, samples=2) for side in (before, after)))  # type: ignore[arg-type]


def test_repeats_count_for_a_change_and_against_it() -> None:
    assert repeat_counts(completions_twice(_pairs("yes"))) == (0, 0)
    assert repeat_p_value(completions_twice(_pairs("yes"))) == 1.0
    assert repeat_counts(completions_twice(_pairs("no"))) == (len(ASKED), 0)
    assert repeat_p_value(completions_twice(_pairs("no"))) < 1e-30
    draw = random.Random(4)
    tossed = repeat_counts(completions_twice(_pairs(draw, draw)))
    # Each is binomial with n of 126 and p = 1/4, of three tosses: five standard deviations of the difference are 40.
    assert abs(tossed[0] - tossed[1]) < 40
    assert min(tossed) > 10


def test_only_what_exceeds_the_noise_of_a_side_counts() -> None:
    def differs(one: str, other: str) -> float:
        return float(one != other)

    assert beyond_noise(completions_twice(_pairs("no")), differs) == 1.0
    draw = random.Random(7)
    # Between and within the sides half of 126 prompts differ: four standard deviations of the difference are 0.25.
    assert beyond_noise(completions_twice(_pairs(draw, draw)), differs) < 0.25


def test_prompts_that_are_asked_once_show_no_repeats() -> None:
    def answer(_: Probe) -> str:
        return "yes"

    once = pair_up(recorded(answer, ASKED), recorded(answer, ASKED))
    assert completions_twice(once) == tops_twice(once) == []
