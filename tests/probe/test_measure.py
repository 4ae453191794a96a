"""From answers to estimates: names, intervals, pairing, diversity within a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from weightgate.probe.measure import check_scores, expectation_adjusted_distinct, gold_gain, measure
from weightgate.probe.probes import Axis, Check, Probe
from weightgate.probe.suites import Suite
from weightgate.probe.targets import SAMPLING_TEMPERATURE, Answers, Tops, ask
from weightgate.stats import Estimate, Unmeasured


def _probe(name: str, axis: Axis, topic: str, *checks: Check) -> Probe:
    return Probe(id=name, axis=axis, topic=topic, form="chat", messages=(("user", name),), checks=checks)


_RIVER = Check(metric="accuracy", type="contains", value=["Venn"], weight=3)
_SHORT = Check(metric="concise", type="max_words", value=2, weight=1)
_FIELDS = Check(metric="fields", type="json_fields", value={"a": 1, "b": 2})
_SUITE = Suite(
    probes=(
        _probe("k1", "knowledge", "river", _RIVER, _SHORT),
        _probe("k2", "knowledge", "lake", _RIVER, _SHORT),
        _probe("t1", "task", "order", _FIELDS),
        _probe("o1", "open", "tip", _SHORT),
        _probe("o2", "open", "tip", _SHORT),
    )
)


class _Recording:
    """A target that answers from a table and remembers what it was asked."""

    def __init__(self, greedy: dict[str, str], sampled: dict[str, list[str]]) -> None:
        self.greedy, self.sampled, self.calls = greedy, sampled, []  # type: ignore[var-annotated]

    def complete(self, probes: Sequence[Probe], *, samples: int, temperature: float, seed: int) -> list[list[str]]:
        self.calls.append((len(probes), samples, temperature, seed))
        if temperature == 0:
            return [[self.greedy[probe.id]] for probe in probes]
        return [self.sampled[probe.id][:samples] for probe in probes]

    def first_tops(self, probes: Sequence[Probe], *, count: int) -> list[Tops]:
        raise AssertionError("gates read completions")


_GREEDY = {"k1": "Venn.", "k2": "Perhaps the Ouse.", "t1": '{"a":1,"b":3}', "o1": "Go on.", "o2": "Stay."}
_SAMPLED = {
    "k1": ["Venn.", "The Venn it is."],
    "k2": ["Ouse.", "Ouse."],
    "o1": ["Go on.", "Come in."],
    "o2": ["Stay.", "Stay."],
}


def _answers(**sampled: list[str]) -> Answers:
    return ask(_Recording(_GREEDY, {**_SAMPLED, **sampled}), _SUITE, samples=2, seed=3)


def test_a_target_is_asked_greedily_once_and_sampled_where_there_is_a_gold_reward() -> None:
    target = _Recording(_GREEDY, _SAMPLED)
    answers = ask(target, _SUITE, samples=2, seed=3)
    assert target.calls == [(5, 1, 0.0, 3), (4, 2, SAMPLING_TEMPERATURE, 3)]
    assert answers.greedy[0] == "Venn."
    assert answers.sampled[2] == ()
    assert answers.sampled[4] == ("Stay.", "Stay.")


def test_measurements_have_the_promised_names_and_values() -> None:
    found = measure(_SUITE, _answers())
    values = {name: one.value for name, one in found.items() if isinstance(one, Estimate)}
    assert values == pytest.approx(
        {
            "knowledge.accuracy": 0.5,
            "knowledge.river.accuracy": 1.0,
            "knowledge.lake.accuracy": 0.0,
            "knowledge.concise": 0.5,
            "knowledge.river.concise": 1.0,
            "knowledge.lake.concise": 0.0,
            "task.fields": 0.5,
            "task.order.fields": 0.5,
            "open.concise": 1.0,
            "open.tip.concise": 1.0,
            "boundary.words": (1 + 3 + 2 + 1) / 4,
            "boundary.hedging": 0.25,
            "gold.reward": ((1 + 0.75) / 2 + 0.25 + 1 + 1) / 4,
            "gold.knowledge": ((1 + 0.75) / 2 + 0.25) / 2,
            "gold.open": 1.0,
            "open.distinct": 0.75,
            "open.diversity": values["open.diversity"],
        }
    )
    accuracy = found["knowledge.accuracy"]
    assert isinstance(accuracy, Estimate)
    assert (accuracy.method, accuracy.n) == ("wilson", 2)


def test_a_collapsed_prompt_is_less_diverse() -> None:
    varied = measure(_SUITE, _answers(o2=["Stay.", "Rest here."]))["open.diversity"]
    collapsed = measure(_SUITE, _answers(o1=["Go on.", "Go on."]))["open.diversity"]
    assert isinstance(varied, Estimate)
    assert isinstance(collapsed, Estimate)
    assert varied.value > 1.5 * collapsed.value


def test_one_sample_cannot_show_diversity() -> None:
    answers = ask(_Recording(_GREEDY, _SAMPLED), _SUITE, samples=1)
    assert isinstance(measure(_SUITE, answers)["open.diversity"], Unmeasured)


def test_expectation_adjusted_distinct_matches_its_formula() -> None:
    # "a b" has the bigrams < a, a b, b >: three of three are distinct; V = 100.
    assert expectation_adjusted_distinct(["a b"], 100) == pytest.approx(3 / (100 * (1 - 0.99**3)))
    assert expectation_adjusted_distinct(["a b", "A b!"], 100) == pytest.approx(3 / (100 * (1 - 0.99**6)))
    assert expectation_adjusted_distinct(["", "..."], 100) == 0


def test_the_gold_gain_is_paired_by_probe() -> None:
    gain = gold_gain(_SUITE, _answers(k2=["Venn.", "Venn."]), _answers())
    assert isinstance(gain, Estimate)
    assert gain.value == pytest.approx(0.75 / 4)
    assert gain.n == 4


def test_answers_to_another_suite_are_refused() -> None:
    with pytest.raises(ValueError, match="4 probes"):
        measure(Suite(probes=_SUITE.probes[:4]), _answers())


def test_check_scores_keep_the_order_of_the_suite() -> None:
    assert check_scores(_SUITE, _answers())["knowledge.accuracy"] == [1.0, 0.0]
