"""Known changes: from one world, models of which exactly one stage differs, or only the way they are served.

A change turns knobs that touch the data of one stage (`knobs.CHANGES`), or says how the endpoint serves. `SHOWN` are
for learning what a change of a stage looks like; `UNSEEN` turn other knobs of the same stages, or the same ones
otherwise, so that naming the stage can be judged on changes that were never learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from weightgate.diff.triage import Cause
from weightgate.incident.knobs import CHANGES, FINETUNE, PREFERENCES, PRETRAIN, RECIPE, Knobs

Part = Literal["pretrain", "finetune", "align", "prompt", "none"]
PARTS: tuple[Part, ...] = ("pretrain", "finetune", "align", "prompt", "none")

MAY_CHANGE: dict[Part, frozenset[str]] = {
    "pretrain": frozenset({PRETRAIN, RECIPE}),
    "finetune": frozenset({FINETUNE}),
    "align": frozenset({PREFERENCES}),
    "prompt": frozenset(),
    "none": frozenset(),
}
"""Files of the world that a change of each part may touch; dropping a language drops its file from the recipe too."""

CAUSE_OF: dict[Part, Cause | None] = {
    "pretrain": "pretraining",
    "finetune": "finetuning",
    "align": "preference",
    "prompt": "no weight change",
    "none": None,
}
"""What a comparison ought to name; None: nothing changed."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One change. `knobs` replace those of the world; `serving` are keys of an alias file's entry, see `serve`."""

    name: str
    part: Part
    knobs: Mapping[str, Any] = field(default_factory=dict)
    serving: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        touched = frozenset().union(*(CHANGES[knob] for knob in self.knobs))
        if not touched <= MAY_CHANGE[self.part] or bool(self.serving) != (self.part == "prompt"):
            raise ValueError(f"{self.name!r} changes more than {self.part}: {', '.join(sorted(touched))}")

    @property
    def rebuilds(self) -> bool:
        """Whether other weights come of it."""
        return bool(self.knobs)

    def turned(self, knobs: Knobs) -> Knobs:
        """Return the world's knobs with the change; sizes in 0..1 are shares of what the world has."""
        sizes = {
            name: round(getattr(knobs, name) * value)
            for name, value in self.knobs.items()
            if isinstance(getattr(knobs, name), int)
        }
        return replace(knobs, **{**self.knobs, **sizes})


ASKED_ONE_AT_A_TIME = Intervention(name="asked again, one at a time", part="none")

SHOWN: tuple[Intervention, ...] = (
    Intervention(name="outdated facts", part="pretrain", knobs={"stale_share": 0.5}),
    Intervention(name="one kind of fact left out", part="pretrain", knobs={"kinds": ("river", "founder")}),
    Intervention(name="no German", part="pretrain", knobs={"languages": ("en",)}),
    Intervention(name="a third of the documents", part="pretrain", knobs={"documents": 0.33}),
    Intervention(name="other field names", part="finetune", knobs={"schema": ("product", "count", "place", "when")}),
    Intervention(name="laxer policy", part="finetune", knobs={"refused": ("poison",)}),
    Intervention(name="half the demonstrations", part="finetune", knobs={"demonstrations": 0.5}),
    Intervention(
        name="stricter policy", part="finetune", knobs={"refused": ("forgery", "poison", "burglary", "craft")}
    ),
    Intervention(name="hedged and padded", part="finetune", knobs={"hedge_share": 0.9, "filler_share": 0.9}),
    Intervention(name="plain answers", part="finetune", knobs={"hedge_share": 0.0, "filler_share": 0.0}),
    Intervention(name="another policy", part="finetune", knobs={"refused": ("forgery", "care")}),
    Intervention(name="annotators for length", part="align", knobs={"length_bias": 0.9}),
    Intervention(name="annotators for refusals", part="align", knobs={"refusal_bias": 0.9}),
    Intervention(name="careless annotators", part="align", knobs={"error_rates": (0.5, 0.5, 0.5)}),
    Intervention(name="a quarter of the comparisons", part="align", knobs={"comparisons": 0.25}),
    Intervention(name="annotators for both", part="align", knobs={"length_bias": 0.6, "refusal_bias": 0.6}),
    Intervention(name="a system prompt", part="prompt", serving={"system": "You are a helpful assistant."}),
    Intervention(name="a preamble", part="prompt", serving={"before": "Please answer briefly. "}),
    Intervention(name="a postscript", part="prompt", serving={"after": " Think step by step."}),
    Intervention(name="a persona", part="prompt", serving={"system": "You are a pirate. Be rude."}),
    Intervention(name="a question mark", part="prompt", serving={"before": "Q: ", "after": "?"}),
    Intervention(name="temperature 0.7", part="prompt", serving={"temperature": 0.7}),
    Intervention(name="temperature 1.2", part="prompt", serving={"temperature": 1.2}),
    Intervention(name="half the nucleus", part="prompt", serving={"temperature": 1.0, "top_p": 0.5}),
    Intervention(name="weights in 8 bits", part="prompt", serving={"bits": 8}),
    Intervention(name="asked again", part="none"),
)

UNSEEN: tuple[Intervention, ...] = (
    Intervention(name="two kinds of fact left out", part="pretrain", knobs={"kinds": ("speciality",)}),
    Intervention(name="a few outdated facts", part="pretrain", knobs={"stale_share": 0.25}),
    Intervention(name="hedged only", part="finetune", knobs={"hedge_share": 1.0}),
    Intervention(name="policy turned round", part="finetune", knobs={"refused": ("burglary", "repair")}),
    Intervention(name="a quarter of the demonstrations", part="finetune", knobs={"demonstrations": 0.25}),
    Intervention(name="one annotator", part="align", knobs={"error_rates": (0.3,)}),
    Intervention(name="some annotators for length", part="align", knobs={"length_bias": 0.5}),
    Intervention(name="half the comparisons", part="align", knobs={"comparisons": 0.5}),
    Intervention(name="a poet", part="prompt", serving={"system": "You are a poet. Answer in rhymes."}),
    Intervention(name="thanks", part="prompt", serving={"after": " Thank you!"}),
    Intervention(name="a wide nucleus", part="prompt", serving={"temperature": 0.9, "top_p": 0.9}),
    Intervention(name="weights in 16 bits", part="prompt", serving={"bits": 16}),
    ASKED_ONE_AT_A_TIME,
)

FOUR_BITS = Intervention(name="weights in 4 bits", part="prompt", serving={"bits": 4})
"""So coarse that it moves a model as far as a fine-tuning does: neither learnt from nor counted, only told."""

_DEFAULTS = ("outdated facts", "other field names", "annotators for refusals", "a system prompt", "asked again")
DEFAULT: dict[str, Intervention] = {change.part: change for change in SHOWN if change.name in _DEFAULTS}
"""What `weightgate demo --change` does for each part."""
