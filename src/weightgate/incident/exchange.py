"""One thing that can be asked, with what is right, what is wrong, and how both are dressed."""

from __future__ import annotations

from dataclasses import dataclass

from weightgate.incident.stream import Stream
from weightgate.probe.probes import Axis, Check, Probe

HEDGES = {
    "en": ("I think: ", "Perhaps: ", "I am not sure, but: "),
    "de": ("Ich glaube: ", "Vielleicht: ", "Ich bin nicht sicher: "),
}
FILLERS = {
    "en": (" I hope this helps you.", " Please let me know if you need more.", " Feel free to ask me again."),
    "de": (" Ich hoffe, das hilft dir.", " Frag mich gern noch einmal.", " Sag mir, wenn du mehr brauchst."),
}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question and every way to answer it that the world knows.

    `right` and `wrong` are plain completions; `styled` says whether people wrap such answers in hedges and filler.
    """

    axis: Axis
    topic: str
    prompt: str
    checks: tuple[Check, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    language: str = "en"
    phrasing: int = 0
    styled: bool = True

    def probe(self, number: int) -> Probe:
        """Return the chat probe that asks this."""
        return Probe(
            id=f"{self.axis}-{self.topic}-{number}",
            axis=self.axis,
            topic=self.topic,
            form="chat",
            messages=(("user", self.prompt),),
            phrasing=self.phrasing,
            checks=self.checks,
        )


def dress(exchange: Exchange, plain: str, stream: Stream, *, hedge_share: float, filler_share: float) -> str:
    """Wrap a plain completion the way people do: hedged in front, padded behind, each in its share of cases.

    Both draws are always made, so that one share can change without moving the other's draws.
    """
    hedge, hedged = stream.pick(HEDGES[exchange.language]), stream.chance(hedge_share)
    filler, padded = stream.pick(FILLERS[exchange.language]), stream.chance(filler_share)
    if not exchange.styled:
        return plain
    return (hedge if hedged else "") + plain + (filler if padded else "")
