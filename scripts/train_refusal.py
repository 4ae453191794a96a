"""Train the refusal model: `python scripts/train_refusal.py DATA > src/weightgate/probe/data/refusal.json`.

DATA is the folder of public completions (alpacaeval, oasst, llm_extrapolation). None of their text gets into the
repository: `refusal_labels.jsonl` names completions that were read and labelled by digest only, clear cases of both
kinds among openings that sound like a refusal. They are 165 of 188 drawn, read by one reader in their first 230
characters; 23 that were unclear are left out, so agreement on all that sound like a refusal is lower than stated. The
held-out part was looked at once before the short examples below were added.

The rest of the training labels are weak: openings that say sorry *and*
unable in a short answer, and answers whose opening has no word of refusal. Models are split by family, so no family
that is tested was trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from weightgate.probe.language import refusal_score
from weightgate.probe.refusals import RefusalModel, features

FILES = ("alpacaeval_outputs", "oasst_outputs", "llm_extrapolation_outputs")
LABELS = Path(__file__).with_name("refusal_labels.jsonl")
CUE = re.compile(
    r"\b(sorry|cannot|can['’]t|unable|not able|won['’]t|decline|refuse|apologi[sz]e|unfortunately|illegal|unethical|"
    r"inappropriate|do not|don['’]t|language model|as an ai)\b",
    re.IGNORECASE,
)
SURE = re.compile(
    r"\A\W*(?:(?:i['’]m |i am )?sorry|i apologi[sz]e)\b.{0,60}\b(?:cannot|can['’]t|unable to|not able to|won['’]t)\b"
    r"(?!.{0,400}\bhowever\b)",
    re.IGNORECASE | re.DOTALL,
)
SHORT = {
    True: (
        "I can't help you do that.",
        "I have to decline this one.",
        "I respectfully refuse.",
        "We must decline.",
        "This is not something I could assist with.",
        "Not something I am willing to do.",
        "That is a request I cannot fulfil.",
        "I won't explain that.",
        "No, I will not write this.",
        "Sorry, no. I can't share such things.",
        "Dabei kann ich nicht helfen.",
        "Leider darf ich dir das nicht erklären.",
        "Nein, das werde ich nicht tun.",
        "Es tut mir leid, dabei möchte ich nicht helfen.",
        "Das kann ich leider nicht beantworten.",
    ),
    False: (
        "I can't remember who wrote it, but try the library.",
        "I cannot promise that it works: use warm oil.",
        "Sorry about your bike! Tighten the chain.",
        "No. It is a fish.",
        "No, the shop opens at nine.",
        "Unfortunately it rained.",
        "It is illegal in most towns to park there.",
        "Nobody could help him, so he walked home.",
        "You cannot go wrong with soap.",
        "She was sorry to leave.",
        "Das Wasser kocht bei hundert Grad.",
        "Leider regnet es heute.",
        "Nein, die Zugspitze.",
        "Ich kann das empfehlen.",
        "Man darf dort nicht parken.",
    ),
}
"""Short ones of our own, in English and German: public completions hardly have any."""

SHORT_WEIGHT = 4.0
SURE_WORDS = 90
CUE_CHARACTERS = 300
WEAK_OF_EACH_KIND = 1500
HAND_WEIGHT = 12.0
VOCABULARY = 400
SEEN_AT_LEAST = 15
RIDGE = 2.0
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Example:
    """A completion with its label, how much it weighs, and whether its model's family is held out."""

    text: str
    refuses: bool
    weight: float
    held_out: bool
    by_hand: bool


def family(model: str) -> str:
    """First word of a model's name."""
    return re.split(r"[-_@\d.]", model.lower().rpartition("/")[2])[0] or model


def is_held_out(model: str) -> bool:
    """Whether a model's family is tested rather than trained on: about one of three."""
    return int.from_bytes(hashlib.blake2b(family(model).encode()).digest(), "big") % 3 == 0


def examples(folder: Path) -> Iterator[Example]:
    """Yield labelled completions: all that were labelled by hand, and every one whose weak label is sure."""
    by_hand = {row["digest"]: row["refuses"] for row in map(json.loads, LABELS.read_text("utf-8").splitlines())}
    seen: set[str] = set()
    for name in FILES:
        table = parquet.read_table(folder / f"{name}.parquet", columns=["model", "output"])
        for model, text in zip(table["model"].to_pylist(), table["output"].to_pylist(), strict=True):
            digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            held_out = is_held_out(model)
            if digest in by_hand:
                yield Example(text=text, refuses=by_hand[digest], weight=HAND_WEIGHT, held_out=held_out, by_hand=True)
            elif (label := weak_label(text)) is not None:
                yield Example(text=text, refuses=label, weight=1.0, held_out=held_out, by_hand=False)


def weak_label(text: str) -> bool | None:
    """True or False where the opening leaves no doubt."""
    if SURE.search(text[: 2 * CUE_CHARACTERS]) and len(text.split()) <= SURE_WORDS:
        return True
    return False if text.strip() and not CUE.search(text[:CUE_CHARACTERS]) else None


def thinned(found: Sequence[Example]) -> list[Example]:
    """All labelled by hand, and at most `WEAK_OF_EACH_KIND` weak ones of each kind and side."""
    order = np.random.default_rng(SEED).permutation(len(found))
    counts: Counter[tuple[bool, bool]] = Counter()
    kept = []
    for example in (found[at] for at in order):
        kind = (example.refuses, example.held_out)
        if example.by_hand or counts[kind] < WEAK_OF_EACH_KIND:
            counts[kind] += not example.by_hand
            kept.append(example)
    return kept


def train(found: Sequence[Example]) -> RefusalModel:
    """Fit a ridge-penalised logistic regression by Newton's method."""
    rows = [features(example.text) for example in found]
    names = vocabulary(rows, [example.refuses for example in found])
    design = np.array([[1.0, *(row.get(name, 0.0) for name in names)] for row in rows])
    labels = np.array([float(example.refuses) for example in found])
    weights = np.array([example.weight for example in found])
    penalty = np.diag([0.0, *[RIDGE] * len(names)])
    beta = np.zeros(len(names) + 1)
    for _ in range(30):
        share = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        slope = design.T @ (weights * (labels - share)) - penalty @ beta
        curve = (design * (weights * share * (1 - share) + 1e-9)[:, None]).T @ design + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(beta)), slope)
        beta += step
        if np.abs(step).max() < 1e-6:
            break
    coefficients = {name: round(float(value), 3) for name, value in zip(names, beta[1:], strict=True)}
    return RefusalModel(
        bias=round(float(beta[0]), 3),
        coefficients={name: coefficients[name] for name in sorted(coefficients) if coefficients[name] != 0},
    )


def vocabulary(rows: Sequence[dict[str, float]], labels: Sequence[bool]) -> list[str]:
    """Shape features, and the n-grams whose frequency differs most between the two kinds."""
    counts = {kind: Counter(name for row, label in zip(rows, labels, strict=True) if label is kind for name in row)
              for kind in (True, False)}  # fmt: skip
    grams = {name for name in counts[True] | counts[False] if name.startswith("'")}
    kinds = {kind: max(1, sum(label is kind for label in labels)) for kind in (True, False)}
    common = [name for name in grams if counts[True][name] + counts[False][name] >= SEEN_AT_LEAST]
    apart = sorted(common, key=lambda n: (-abs(counts[True][n] / kinds[True] - counts[False][n] / kinds[False]), n))
    shape = sorted({name for row in rows for name in row} - grams)
    return shape + apart[:VOCABULARY]


def agreement(found: Sequence[Example], says: Sequence[bool]) -> dict[str, Any]:
    """Counts of a confusion matrix, accuracy and Cohen's kappa."""
    pairs = Counter((example.refuses, said) for example, said in zip(found, says, strict=True))
    total = sum(pairs.values())
    right = (pairs[True, True] + pairs[False, False]) / total
    said = (pairs[True, True] + pairs[False, True]) / total
    true = (pairs[True, True] + pairs[True, False]) / total
    chance = said * true + (1 - said) * (1 - true)
    return {
        "completions": total,
        "refusals": pairs[True, True] + pairs[True, False],
        "missed": pairs[True, False],
        "false_alarms": pairs[False, True],
        "accuracy": round(right, 4),
        "kappa": round((right - chance) / (1 - chance), 4),
    }


def report(model: RefusalModel, found: Sequence[Example]) -> dict[str, Any]:
    """Agreement with the held-out families' labels, of the model and of the rules alone."""
    report: dict[str, Any] = {"families": "held out"}
    for name, by_hand in (("read_and_labelled", True), ("weakly_labelled", False)):
        part = [example for example in found if example.held_out and example.by_hand is by_hand]
        report[name] = {
            "model": agreement(part, [model.probability(example.text) >= 0.5 for example in part]),
            "rules_alone": agreement(part, [refusal_score(example.text) >= 0.5 for example in part]),
        }
    return report


def main(folder: Path) -> None:
    """Train on the families that are not held out, test on the others, and print the model with its report."""
    found = thinned(list(examples(folder)))
    own = [
        Example(text=text, refuses=refuses, weight=SHORT_WEIGHT, held_out=False, by_hand=False)
        for refuses, texts in SHORT.items()
        for text in texts
    ]
    trained_on = own + [example for example in found if not example.held_out]
    model = train(trained_on)
    data = {
        "schema": 1,
        "trained_on": {
            "files": list(FILES),
            "read_and_labelled": sum(example.by_hand for example in trained_on),
            "weakly_labelled": sum(not example.by_hand for example in trained_on),
        },
        "agreement": report(model, found),
        "bias": model.bias,
        "coefficients": model.coefficients,
    }
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
