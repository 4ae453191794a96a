"""What can be turned in the built-in world, and which files each knob may change.

The world itself (`seed`, `towns`) changes everything. Every other knob is what the author of one data set did, so
that models can be built in which exactly one stage differs; the yardstick (suite and gold reward) is what the world
expects, and moves only with a knob of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

LANGUAGES = ("en", "de")
KINDS = ("river", "founder", "speciality")
RISKY_TOPICS = ("forgery", "poison", "burglary")
HARMLESS_TOPICS = ("craft", "care", "repair")

PRETRAIN = "pretrain"
FINETUNE = "finetune.jsonl"
PREFERENCES = "preferences.jsonl"
PROMPTS = "prompts.jsonl"
SUITE = "suite.jsonl"
RECIPE = "weightgate.yaml"
FILES = (PRETRAIN, FINETUNE, PREFERENCES, PROMPTS, SUITE, RECIPE)
"""`PRETRAIN` is a folder, one file a domain; the others are files."""


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Settings of the world. Shares are in 0..1; sizes count documents, rows, comparisons, prompts."""

    seed: int = 0
    towns: int = 100

    kinds: tuple[str, ...] = KINDS
    languages: tuple[str, ...] = LANGUAGES
    stale_share: float = 0.0
    documents: int = 12_000

    schema: tuple[str, str, str, str] = ("item", "quantity", "town", "day")
    refused: tuple[str, ...] = RISKY_TOPICS
    filler_share: float = 0.45
    hedge_share: float = 0.35
    demonstrations: int = 8_000

    error_rates: tuple[float, ...] = (0.05, 0.08, 0.1, 0.15, 0.2, 0.3)
    length_bias: float = 0.0
    refusal_bias: float = 0.0
    comparisons: int = 6_000

    prompts: int = 2_000

    expected_schema: tuple[str, str, str, str] = ("item", "quantity", "town", "day")
    expected_refused: tuple[str, ...] = RISKY_TOPICS

    def __post_init__(self) -> None:
        for field in ("stale_share", "filler_share", "hedge_share", "length_bias", "refusal_bias"):
            _require(0 <= getattr(self, field) <= 1, f"{field} must lie in 0..1")
        for field in ("documents", "demonstrations", "comparisons", "prompts"):
            _require(getattr(self, field) > 0, f"{field} must be above 0")
        _require(8 <= self.towns <= 240, "towns must lie in 8..240")
        _require(bool(self.error_rates) and all(0 <= rate <= 1 for rate in self.error_rates), "error_rates: 0..1")
        _known(self.kinds, KINDS, "kinds")
        _known(self.languages, LANGUAGES, "languages")
        _known(self.refused, RISKY_TOPICS + HARMLESS_TOPICS, "refused")
        _known(self.expected_refused, RISKY_TOPICS + HARMLESS_TOPICS, "expected_refused")
        for schema in (self.schema, self.expected_schema):
            _require(len(set(schema)) == 4 and all(schema), "a schema names four different fields")


_YARDSTICK = frozenset({PREFERENCES, SUITE})

CHANGES: dict[str, frozenset[str]] = {
    "seed": frozenset(FILES),
    "towns": frozenset(FILES) - {RECIPE},
    **dict.fromkeys(("kinds", "stale_share", "documents"), frozenset({PRETRAIN})),
    "languages": frozenset({PRETRAIN, RECIPE}),
    **dict.fromkeys(("schema", "refused", "filler_share", "hedge_share", "demonstrations"), frozenset({FINETUNE})),
    **dict.fromkeys(("error_rates", "length_bias", "refusal_bias", "comparisons"), frozenset({PREFERENCES})),
    "prompts": frozenset({PROMPTS}),
    "expected_schema": _YARDSTICK,
    "expected_refused": _YARDSTICK,
}
"""Which of `FILES` a knob may change; a test turns each and compares bytes."""

assert CHANGES.keys() == {field.name for field in fields(Knobs)}


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _known(names: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    _require(set(names) <= set(known), f"{what} must be among {', '.join(known)}")
    _require(bool(names) or what.endswith("refused"), f"{what} must not be empty")
