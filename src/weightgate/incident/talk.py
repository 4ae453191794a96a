"""The open axis: short advice, greetings and wishes, each with many good answers, for diversity."""

from __future__ import annotations

from functools import cache
from itertools import product

from weightgate.incident.exchange import Exchange
from weightgate.incident.stream import Stream, is_held_out
from weightgate.probe.probes import Check

_SUBJECTS = {
    "advice": (
        *("baking", "fishing", "sewing", "sailing", "riding", "singing", "trading", "hunting"),
        *("cooking", "weaving", "farming", "dancing", "writing", "reading", "brewing", "mining"),
    ),
    "greeting": (
        *("baker", "miller", "smith", "sailor", "doctor", "teacher", "farmer", "hunter"),
        *("singer", "mayor", "judge", "dancer", "guard", "tailor", "potter", "brewer"),
    ),
    "wish": (
        *("birthday", "journey", "harvest", "wedding", "market", "winter", "morning", "feast"),
        *("race", "evening", "summer", "game", "visit", "autumn", "voyage", "spring"),
    ),
}
_REQUESTS = {
    "advice": ("Give me a tip for {subject}.", "What helps with {subject}?", "Any advice on {subject}?"),
    "greeting": ("Greet the {subject}.", "Say hello to the {subject}.", "How do I welcome the {subject}?"),
    "wish": (
        "Wish me well for the {subject}.",
        "Send a wish for the {subject}.",
        "A kind word for the {subject}, please.",
    ),
}
_ANSWERS = {
    "advice": (
        ("Good {subject} needs {end}.", ("patience", "time", "practice", "friends", "silence")),
        ("Start {subject} {end}.", ("early", "slowly", "today", "with a friend", "at home")),
        ("For {subject}, {end}.", ("sleep well", "ask an elder", "keep calm", "begin small", "stay warm")),
    ),
    "greeting": (
        ("Good day, {subject}, {end}!", ("come in", "sit down", "well met", "how are you", "be our guest")),
        ("Hello, dear {subject}, {end}!", ("welcome back", "we missed you", "rest here", "stay long", "eat with us")),
        ("Welcome, {subject}, {end}!", ("old friend", "at last", "to our town", "to our home", "and be glad")),
    ),
    "wish": (
        ("May the {subject} be {end}.", ("bright", "happy", "long", "full of joy", "easy")),
        ("I wish you a {end} {subject}.", ("good", "merry", "lucky", "peaceful", "golden")),
        ("Let the {subject} bring {end}.", ("luck", "friends", "laughter", "gold", "peace")),
    ),
}
_LONGEST_ANSWER_WORDS = 8
_SHORTEST_ANSWER_WORDS = 3
_HELD_OUT = 0.3


@cache
def conversations(seed: int) -> tuple[tuple[Exchange, ...], tuple[Exchange, ...]]:
    """Every open request, as (those for training, those only probes make): held out are (wording, subject) pairs."""
    train: list[Exchange] = []
    probed: list[Exchange] = []
    for topic, subjects in _SUBJECTS.items():
        for subject, phrasing in product(subjects, range(3)):
            kept = is_held_out(seed, f"talk/{subject}/{phrasing}", _HELD_OUT)
            (probed if kept else train).append(_request(topic, subject, phrasing))
    return tuple(train), tuple(probed)


def talk_sentence(stream: Stream) -> str:
    """A line of pre-training text in the same manner."""
    topic = stream.pick(tuple(_SUBJECTS))
    form, ends = stream.pick(_ANSWERS[topic])
    return form.format(subject=stream.pick(_SUBJECTS[topic]), end=stream.pick(ends))


def _request(topic: str, subject: str, phrasing: int) -> Exchange:
    def answers(about: str) -> tuple[str, ...]:
        return tuple(form.format(subject=about, end=end) for form, ends in _ANSWERS[topic] for end in ends)

    others = [other for other in _SUBJECTS[topic] if other != subject]
    return Exchange(
        axis="open",
        topic=topic,
        prompt=_REQUESTS[topic][phrasing].format(subject=subject),
        checks=(
            Check(metric="on_topic", type="contains", value=[subject], weight=4.0),
            Check(metric="substance", type="min_words", value=_SHORTEST_ANSWER_WORDS, weight=2.0),
            Check(metric="concise", type="max_words", value=_LONGEST_ANSWER_WORDS, weight=2.0),
            Check(metric="direct", type="no_hedges", weight=2.0),
        ),
        right=answers(subject),
        wrong=tuple(answer for other in others for answer in answers(other)),
        phrasing=phrasing,
    )
