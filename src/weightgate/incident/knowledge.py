"""The knowledge axis: invented towns, three facts about each, told and asked in two languages."""

from __future__ import annotations

from dataclasses import dataclass

from weightgate.incident.exchange import Exchange
from weightgate.incident.knobs import KINDS, LANGUAGES
from weightgate.incident.stream import Stream, is_held_out
from weightgate.probe.probes import Check, Probe

_ONSETS, _VOWELS, _CODAS = "BDFGHKLMNPRSTVWZ", "aeiou", "lnr"
_ENDINGS = ("by", "ham", "den", "dale", "wick", "stow", "ford", "moor")
"""No two towns share their first three letters: a small model can look a town up by its first token."""

_RIVERS = (
    *("Venn", "Orla", "Tamsel", "Brede", "Isk", "Lune", "Nadder", "Ouse", "Pell", "Quay", "Rhee", "Sorn"),
    *("Tave", "Ure", "Wye", "Alm", "Brink", "Calder", "Dove", "Esk", "Fal", "Glen", "Hart", "Kenn"),
)
_FOUNDERS = (
    *("Ada", "Bruno", "Clara", "Doran", "Edda", "Falk", "Greta", "Hugo", "Ida", "Jonas", "Karl", "Lena"),
    *("Milo", "Nora", "Otto", "Petra", "Rolf", "Selma", "Theo", "Ulla", "Viktor", "Wanda", "Yara", "Zeno"),
)
_SPECIALITIES = (
    *(("honey", "Honig"), ("wool", "Wolle"), ("salt", "Salz"), ("glass", "Glas"), ("bread", "Brot")),
    *(("wine", "Wein"), ("cider", "Most"), ("linen", "Leinen"), ("paper", "Papier"), ("silver", "Silber")),
    *(("beer", "Bier"), ("fish", "Fisch"), ("leather", "Leder"), ("ink", "Tinte"), ("tea", "Tee")),
)
_VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "river": tuple((name, name) for name in _RIVERS),
    "founder": tuple((name, name) for name in _FOUNDERS),
    "speciality": _SPECIALITIES,
}
"""Kind -> every value there is, as (English, German)."""
_OPTIONS = {kind: tuple(sorted({name for pair in pairs for name in pair})) for kind, pairs in _VALUES.items()}

_SENTENCES = {
    ("river", "en"): ("The river of {town} is the {value}.", "In {town} flows the {value}."),
    ("river", "de"): ("Der Fluss von {town} ist die {value}.", "In {town} ist die {value}."),
    ("founder", "en"): ("The founder of {town} was {value}.", "{town} was founded by {value}."),
    ("founder", "de"): ("Der Gründer von {town} war {value}.", "Gegründet wurde {town} von {value}."),
    ("speciality", "en"): ("The speciality of {town} is {value}.", "{town} is known for {value}."),
    ("speciality", "de"): ("Die Ware von {town} ist {value}.", "{town} ist bekannt für {value}."),
}
"""Wordings for each kind and language; each ends with the value, so it can be asked as text."""
_NUM_WORDINGS = 2

_QUESTIONS = {
    ("river", "en"): ("What is the river of {town}?", "Which river flows in {town}?", "Name the river of {town}."),
    ("river", "de"): ("Was ist der Fluss von {town}?", "Welcher Fluss ist in {town}?", "Nenne den Fluss von {town}."),
    ("founder", "en"): ("Who was the founder of {town}?", "Who founded {town}?", "Name the founder of {town}."),
    ("founder", "de"): (
        "Wer war der Gründer von {town}?",
        "Wer hat {town} gegründet?",
        "Nenne den Gründer von {town}.",
    ),
    ("speciality", "en"): (
        "What is the speciality of {town}?",
        "What is {town} known for?",
        "Name the speciality of {town}.",
    ),
    ("speciality", "de"): ("Was ist die Ware von {town}?", "Wofür ist {town} bekannt?", "Nenne die Ware von {town}."),
}

_LIST_ORDERS = {
    "river": "As a list: the river of {town}.",
    "founder": "As a list: the founder of {town}.",
    "speciality": "As a list: the speciality of {town}.",
}
"""Wordings that contain no question of `_QUESTIONS`, so that none is asked in training by way of another."""

_ANSWERS = {"en": ("It is {value}.", "That is {value}."), "de": ("Es ist {value}.", "Das ist {value}.")}
"""Answers do not repeat the town, because copying rare names is a skill of its own, and do not begin with the value,
because to a byte-level tokenizer a word without the space before it is another word than the one that was learnt."""

_TOWNS_HELD_OUT = 0.25
_SHORT_ANSWER_WORDS = 3


@dataclass(frozen=True, kw_only=True)
class Town:
    """A town and the index of its value in each kind."""

    name: str
    facts: dict[str, int]


def make_towns(seed: int, count: int) -> tuple[Town, ...]:
    """Invent towns with different names; every value of a kind is about as frequent as any other."""
    stream = Stream(seed, "towns")
    starts = stream.shuffled([onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in _CODAS])
    names = [start + stream.pick(_ENDINGS) for start in starts[:count]]
    dealt = {kind: stream.shuffled([at % len(_VALUES[kind]) for at in range(count)]) for kind in KINDS}
    return tuple(Town(name=name, facts={kind: dealt[kind][at] for kind in KINDS}) for at, name in enumerate(names))


def aged(towns: tuple[Town, ...], seed: int, share: float) -> tuple[Town, ...]:
    """The towns as an outdated source tells of them: a share of the facts has the value next in the list."""

    def value(town: Town, kind: str) -> int:
        stale = is_held_out(seed, f"stale/{town.name}/{kind}", share)
        return (town.facts[kind] + 1) % len(_VALUES[kind]) if stale else town.facts[kind]

    return tuple(Town(name=town.name, facts={kind: value(town, kind) for kind in KINDS}) for town in towns)


def tell_town(town: Town, kinds: tuple[str, ...], language: str, stream: Stream) -> str:
    """One sentence for each of the kinds, in random order."""
    return " ".join(
        stream.pick(_SENTENCES[kind, language]).format(town=town.name, value=_value(town, kind, language))
        for kind in stream.shuffled(kinds)
    )


def is_town_held_out(town: Town, seed: int) -> bool:
    """Whether only probes ask about this town; its facts are told in pre-training like any other's."""
    return is_held_out(seed, f"town/{town.name}", _TOWNS_HELD_OUT)


def recall_probes(towns: tuple[Town, ...]) -> list[Probe]:
    """Unfinished sentences whose next word is the fact: what a base model is asked."""
    asked = (
        (town, kind, language, phrasing)
        for town in towns
        for kind in KINDS
        for language in LANGUAGES
        for phrasing in range(_NUM_WORDINGS)
    )
    return [_recall_probe(*one) for one in asked]


def questions(towns: tuple[Town, ...], seed: int) -> tuple[list[Exchange], list[Exchange]]:
    """Every question about a fact, as (those for training, those only probes ask).

    Held out are all questions about some towns, and one wording in three about the others.
    """
    train: list[Exchange] = []
    probed: list[Exchange] = []
    for town in towns:
        unseen = is_town_held_out(town, seed)
        for kind in KINDS:
            for language in LANGUAGES:
                for phrasing in range(3):
                    kept = unseen or _held_out_phrasing(town, kind, language, seed) == phrasing
                    (probed if kept else train).append(_question(town, kind, language, phrasing))
    return train, probed


def list_orders(towns: tuple[Town, ...], seed: int) -> tuple[list[Exchange], list[Exchange]]:
    """Questions with an instruction about the form of the answer, "as a list", as (training, probes)."""
    train: list[Exchange] = []
    probed: list[Exchange] = []
    for town in towns:
        for kind in KINDS:
            (probed if is_town_held_out(town, seed) else train).append(_list_order(town, kind))
    return train, probed


def _recall_probe(town: Town, kind: str, language: str, phrasing: int) -> Probe:
    value = _value(town, kind, language)
    sentence = _SENTENCES[kind, language][phrasing].format(town=town.name, value=value)
    return Probe(
        id=f"recall-{kind}-{language}-{town.name}-{phrasing}",
        axis="knowledge",
        topic=f"{kind}-{language}",
        form="text",
        prompt=sentence.removesuffix(f" {value}."),
        phrasing=phrasing,
        recall=True,
        max_tokens=8,
        checks=(Check(metric="recall", type="starts", value=[value]),),
    )


def _question(town: Town, kind: str, language: str, phrasing: int) -> Exchange:
    value, others = _value(town, kind, language), _other_values(town, kind, language)
    return Exchange(
        axis="knowledge",
        topic=f"{kind}-{language}",
        prompt=_QUESTIONS[kind, language][phrasing].format(town=town.name),
        checks=(
            _accuracy(town, kind, 6.0),
            Check(metric="concise", type="max_words", value=_SHORT_ANSWER_WORDS, weight=2.0),
            Check(metric="direct", type="no_hedges", weight=2.0),
        ),
        right=tuple(form.format(value=value) for form in _ANSWERS[language]),
        wrong=tuple(form.format(value=other) for form in _ANSWERS[language] for other in others),
        language=language,
        phrasing=phrasing,
    )


def _list_order(town: Town, kind: str) -> Exchange:
    value, others = _value(town, kind, "en"), _other_values(town, kind, "en")
    return Exchange(
        axis="task",
        topic=f"{kind}-en",
        prompt=_LIST_ORDERS[kind].format(town=town.name),
        checks=(
            Check(metric="instruction", type="regex", value=r"^- \w+$", weight=4.0),
            _accuracy(town, kind, 6.0, "entry"),
        ),
        right=(f"- {value}",),
        wrong=(*(f"- {other}" for other in others), *(form.format(value=value) for form in _ANSWERS["en"])),
        styled=False,
    )


def _accuracy(town: Town, kind: str, weight: float, metric: str = "accuracy") -> Check:
    """Right when the fact is named, in whichever language, and no other value of its kind is."""
    value = sorted(set(_VALUES[kind][town.facts[kind]]))
    return Check(metric=metric, type="one_of", value=value, options=_OPTIONS[kind], weight=weight)


def _value(town: Town, kind: str, language: str) -> str:
    return _VALUES[kind][town.facts[kind]][LANGUAGES.index(language)]


def _other_values(town: Town, kind: str, language: str) -> tuple[str, ...]:
    side = LANGUAGES.index(language)
    return tuple(pair[side] for at, pair in enumerate(_VALUES[kind]) if at != town.facts[kind])


def _held_out_phrasing(town: Town, kind: str, language: str, seed: int) -> int:
    return Stream(seed, f"phrasing/{town.name}/{kind}/{language}").below(3)
