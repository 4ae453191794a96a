"""Write the built-in world: corpus, demonstrations, comparisons, prompts, suite and recipe.

Each file has its own random stream, so that a knob changes the files it is meant to and no other (`knobs.CHANGES`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from weightgate.incident.annotators import draw_comparison, hire
from weightgate.incident.boundary import craft_sentence, requests
from weightgate.incident.exchange import Exchange, dress
from weightgate.incident.knobs import FINETUNE, LANGUAGES, PREFERENCES, PRETRAIN, PROMPTS, RECIPE, SUITE, Knobs
from weightgate.incident.knowledge import Town, aged, list_orders, make_towns, questions, recall_probes, tell_town
from weightgate.incident.orders import ledger_entry, order_exchange
from weightgate.incident.recipe_text import FULL, Scale, recipe_text
from weightgate.incident.stream import Stream
from weightgate.incident.talk import conversations, talk_sentence
from weightgate.probe.probes import Probe
from weightgate.probe.suites import write_suite

_PASSAGES_PER_DOCUMENT = 2
_SENTENCES_PER_PASSAGE = 3
_LEDGER_SHARE = 0.27
_TALK_SHARE = 0.18
"""Shares of the documents; the languages divide the rest among their facts."""
_QUIZ_SHARE = 0.5
"""Share of the passages that ask and answer: a fact is found later only if being asked was met with being told."""

_FINETUNE_MIX = {"questions": 0.28, "lists": 0.08, "orders": 0.28, "requests": 0.2, "conversations": 0.16}
_ALIGN_MIX = {"questions": 0.3, "lists": 0.07, "orders": 0.23, "requests": 0.25, "conversations": 0.15}

_NUM_PROBES = {"recall": 240, "questions": 240, "lists": 60, "orders": 150, "requests": 200, "conversations": 27}

_FIRST_COMPARISON = datetime(2025, 3, 3, 8, tzinfo=UTC)
_BETWEEN_COMPARISONS = timedelta(minutes=7)


@dataclass(frozen=True, kw_only=True)
class World:
    """What was written, and the truth behind it."""

    folder: Path
    knobs: Knobs
    towns: tuple[Town, ...]
    recipe: Path
    suite: Path


def generate(folder: Path, knobs: Knobs, scale: Scale = FULL, *, store: str = ".weightgate", line: str = "") -> World:
    """Write every file of the world into `folder`, which is made if it is missing; `recipe_text` has the rest."""
    towns = make_towns(knobs.seed, knobs.towns)
    (folder / PRETRAIN).mkdir(parents=True, exist_ok=True)
    for name, documents in _corpus(towns, knobs).items():
        _write_lines(folder / PRETRAIN / f"{name}.jsonl", ({"text": text} for text in documents))
    _write_lines(folder / FINETUNE, _demonstrations(towns, knobs))
    write_preferences(folder / PREFERENCES, knobs)
    _write_lines(folder / PROMPTS, _prompts(towns, knobs))
    write_suite(folder / SUITE, _probes(towns, knobs))
    (folder / RECIPE).write_text(recipe_text(knobs, scale, store=store, line=line), encoding="utf-8")
    return World(folder=folder, knobs=knobs, towns=towns, recipe=folder / RECIPE, suite=folder / SUITE)


def write_preferences(path: Path, knobs: Knobs) -> None:
    """Write the comparisons alone, as the simulated annotators of these knobs judge them."""
    _write_lines(path, _comparisons(make_towns(knobs.seed, knobs.towns), knobs))


def _corpus(towns: tuple[Town, ...], knobs: Knobs) -> dict[str, Iterator[str]]:
    """Domain -> its documents. The number of documents in a language does not depend on the other languages."""
    told = aged(towns, knobs.seed, knobs.stale_share)
    shares = {"ledger": _LEDGER_SHARE, "talk": _TALK_SHARE}
    writers: dict[str, Callable[[Stream], str]] = {
        "ledger": lambda stream: ledger_entry(towns, stream),
        "talk": _quizzed(
            lambda stream: talk_sentence(stream) if stream.chance(0.5) else craft_sentence(stream),
            conversations(knobs.seed)[0],
        ),
    }
    asked = questions(told, knobs.seed)[0] + list_orders(told, knobs.seed)[0]
    for language in knobs.languages:
        shares[f"facts-{language}"] = (1 - _LEDGER_SHARE - _TALK_SHARE) / len(LANGUAGES)
        topics = {f"{kind}-{language}" for kind in knobs.kinds}
        writers[f"facts-{language}"] = _quizzed(
            _fact_writer(told, knobs.kinds, language), [exchange for exchange in asked if exchange.topic in topics]
        )
    return {
        name: _documents(write, round(knobs.documents * shares[name]), Stream(knobs.seed, f"{PRETRAIN}/{name}"))
        for name, write in writers.items()
    }


def _fact_writer(towns: tuple[Town, ...], kinds: tuple[str, ...], language: str) -> Callable[[Stream], str]:
    return lambda stream: tell_town(stream.pick(towns), kinds, language, stream)


def _quizzed(write: Callable[[Stream], str], exchanges: Sequence[Exchange]) -> Callable[[Stream], str]:
    """A writer whose passages are sometimes questions with their answers, of those that no probe asks."""

    def quiz(stream: Stream) -> str:
        exchange = stream.pick(exchanges)
        answer = dress(exchange, stream.pick(exchange.right), stream, hedge_share=0.2, filler_share=0.2)
        return f"{exchange.prompt}\n{answer}"

    def passage(stream: Stream) -> str:
        if not stream.chance(_QUIZ_SHARE):
            return write(stream)
        return "\n".join(quiz(stream) for _ in range(_SENTENCES_PER_PASSAGE))

    return passage


def _documents(write: Callable[[Stream], str], count: int, stream: Stream) -> Iterator[str]:
    for _ in range(count):
        yield "\n".join(write(stream) for _ in range(_PASSAGES_PER_DOCUMENT))


@dataclass(frozen=True, kw_only=True)
class _Pools:
    """What may be asked, by family; `orders` are drawn because there are too many to list."""

    listed: dict[str, Sequence[Exchange]]
    order: Callable[[Stream], Exchange]

    def draw(self, family: str, stream: Stream) -> Exchange:
        return self.order(stream) if family == "orders" else stream.pick(self.listed[family])

    def mixed(self, mix: dict[str, float], count: int, stream: Stream) -> list[Exchange]:
        """About `count` exchanges in the shares of `mix`, in random order."""
        drawn = [
            self.draw(family, stream) for family, share in mix.items() for _ in range(max(1, round(count * share)))
        ]
        return stream.shuffled(drawn)


def _pools(
    towns: tuple[Town, ...], seed: int, schema: tuple[str, ...], refused: tuple[str, ...], *, held_out: bool
) -> _Pools:
    side = int(held_out)
    listed: dict[str, Sequence[Exchange]] = {
        "questions": questions(towns, seed)[side],
        "lists": list_orders(towns, seed)[side],
        "requests": requests(seed, refused)[side],
        "conversations": conversations(seed)[side],
    }

    def order(stream: Stream) -> Exchange:
        return order_exchange(towns, stream, schema=schema, held_out=held_out, seed=seed)

    return _Pools(listed=listed, order=order)


def _demonstrations(towns: tuple[Town, ...], knobs: Knobs) -> Iterator[dict[str, Any]]:
    pools = _pools(towns, knobs.seed, knobs.schema, knobs.refused, held_out=False)
    stream = Stream(knobs.seed, FINETUNE)
    for exchange in pools.mixed(_FINETUNE_MIX, knobs.demonstrations, stream):
        answer = dress(
            exchange,
            stream.pick(exchange.right),
            stream,
            hedge_share=knobs.hedge_share,
            filler_share=knobs.filler_share,
        )
        yield {"messages": [_message("user", exchange.prompt), _message("assistant", answer)]}


def _comparisons(towns: tuple[Town, ...], knobs: Knobs) -> Iterator[dict[str, Any]]:
    pools = _pools(towns, knobs.seed, knobs.expected_schema, knobs.expected_refused, held_out=False)
    annotators = hire(knobs.error_rates, knobs.length_bias, knobs.refusal_bias)
    pairs, judging = Stream(knobs.seed, f"{PREFERENCES}/pairs"), Stream(knobs.seed, f"{PREFERENCES}/judging")
    exchanges = pools.mixed(_ALIGN_MIX, knobs.comparisons, pairs)
    for number, exchange in enumerate(exchanges):
        comparison = draw_comparison(exchange, exchanges, pairs)
        annotator = judging.pick(annotators)
        ranked = [comparison.better, comparison.worse]
        if not annotator.prefers_better(comparison, judging):
            ranked.reverse()
        yield {
            "prompt": [_message("user", exchange.prompt)],
            "chosen": ranked[0],
            "rejected": ranked[1],
            "annotator": annotator.name,
            "timestamp": (_FIRST_COMPARISON + number * _BETWEEN_COMPARISONS).isoformat(),
            "source": exchange.axis,
        }


def _prompts(towns: tuple[Town, ...], knobs: Knobs) -> Iterator[dict[str, Any]]:
    """Prompts for alignment carry no answer, so no policy or schema enters."""
    pools = _pools(towns, knobs.seed, ("a", "b", "c", "d"), (), held_out=False)
    for exchange in pools.mixed(_ALIGN_MIX, knobs.prompts, Stream(knobs.seed, PROMPTS)):
        yield {"prompt": [_message("user", exchange.prompt)]}


def _probes(towns: tuple[Town, ...], knobs: Knobs) -> Iterator[Probe]:
    """Recall probes first, then what the held-out side of each family asks."""
    stream = Stream(knobs.seed, SUITE)
    yield from stream.shuffled(recall_probes(towns))[: _NUM_PROBES["recall"]]
    pools = _pools(towns, knobs.seed, knobs.expected_schema, knobs.expected_refused, held_out=True)
    for family, count in _NUM_PROBES.items():
        if family == "orders":
            yield from _numbered(_distinct_orders(pools, count, stream))
        elif family != "recall":
            yield from _numbered(stream.shuffled(pools.listed[family])[:count])


def _distinct_orders(pools: _Pools, count: int, stream: Stream) -> Iterable[Exchange]:
    found: dict[str, Exchange] = {}
    while len(found) < count:
        exchange = pools.order(stream)
        found[exchange.prompt] = exchange
    return found.values()


def _numbered(exchanges: Iterable[Exchange]) -> Iterator[Probe]:
    for number, exchange in enumerate(exchanges):
        yield exchange.probe(number)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
