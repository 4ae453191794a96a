"""The task axis: orders in free text that must become one JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass

from weightgate.incident.exchange import Exchange
from weightgate.incident.knowledge import Town
from weightgate.incident.stream import Stream, is_held_out
from weightgate.probe.probes import Check

_ITEMS = (
    *("lamps", "ropes", "boots", "candles", "barrels", "bricks", "spoons", "hats"),
    *("saws", "carts", "bells", "nails", "plates", "drums", "kites", "chairs"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_QUANTITIES = tuple(range(2, 13))
_NUM_TOWNS = 24

_MESSAGES = (
    "Please send {quantity} {item} to {town} by {day}.",
    "We need {quantity} {item} in {town} on {day}.",
    "{town} wants {quantity} {item} before {day}.",
    "On {day}, bring {quantity} {item} to {town}.",
    "Order for {town}: {quantity} {item}, due {day}.",
    "Could {quantity} {item} be in {town} on {day}?",
)
_LEDGER = (
    "{quantity} {item} went to {town} on {day}.",
    "On {day}, {town} got {quantity} {item}.",
    "{town} asked for {quantity} {item} by {day}.",
    "{quantity} {item} for {town}, sent on {day}.",
)
_LEDGER_FIELDS = ("good", "amount", "place", "date")
"""The ledger of the pre-training text has a schema of its own, so that fine-tuning decides on the order schema."""

_COMBINATIONS_HELD_OUT = 0.2


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a message asks for."""

    item: str
    quantity: int
    town: str
    day: str

    @property
    def values(self) -> tuple[str, int, str, str]:
        """The four values in the order of a schema's names."""
        return self.item, self.quantity, self.town, self.day


def is_order_held_out(order: Order, seed: int) -> bool:
    """Whether only probes ask for this combination of values."""
    return is_held_out(seed, f"order/{order}", _COMBINATIONS_HELD_OUT)


def draw_order(towns: tuple[Town, ...], stream: Stream) -> Order:
    """Any combination of values, each as likely."""
    return Order(
        item=stream.pick(_ITEMS),
        quantity=stream.pick(_QUANTITIES),
        town=stream.pick(towns[:_NUM_TOWNS]).name,
        day=stream.pick(_DAYS),
    )


def ledger_entry(towns: tuple[Town, ...], stream: Stream) -> str:
    """A line of pre-training text: a sentence and its record."""
    order = draw_order(towns, stream)
    return f"{stream.pick(_LEDGER).format(**vars(order))} {_as_json(order, _LEDGER_FIELDS)}"


def order_exchange(
    towns: tuple[Town, ...], stream: Stream, *, schema: tuple[str, ...], held_out: bool, seed: int
) -> Exchange:
    """A message to be turned into JSON, drawn from the combinations that are held out, or from the others."""
    while True:
        order = draw_order(towns, stream)
        if is_order_held_out(order, seed) == held_out:
            break
    phrasing = stream.below(len(_MESSAGES))
    return Exchange(
        axis="task",
        topic="order",
        prompt=_MESSAGES[phrasing].format(**vars(order)),
        checks=(
            Check(metric="format", type="json_format", value=list(schema), weight=4.0),
            Check(metric="fields", type="json_fields", value=dict(zip(schema, order.values, strict=True)), weight=6.0),
        ),
        right=(_as_json(order, schema),),
        wrong=_mistakes(order, draw_order(towns, stream), schema),
        phrasing=phrasing,
        styled=False,
    )


def _mistakes(order: Order, other: Order, schema: tuple[str, ...]) -> tuple[str, ...]:
    """Wrong values, a sentence around the object, and a missing end."""
    right = _as_json(order, schema)
    swapped = [Order(**{**vars(order), name: value}) for name, value in vars(other).items()]
    wrong = [_as_json(one, schema) for one in swapped if one != order]
    return (*wrong, f"Here is the order: {right}", right.removesuffix("}"))


def _as_json(order: Order, schema: tuple[str, ...]) -> str:
    return json.dumps(dict(zip(schema, order.values, strict=True)), separators=(",", ":"))
