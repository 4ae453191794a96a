"""KL and gold reward that one's own alignments reached, from a table or from a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightgate.plan.align import Measured
from weightgate.plan.columns import read_sheet
from weightgate.store import Store
from weightgate.store.records import measured_key

MEANINGS: Mapping[str, tuple[str, ...]] = {
    "kl": ("kl", "align.kl", "kl_nats", "kl_divergence", "kl_policy_ref"),
    "gold": ("gold", "gold_reward", "gold_score", "align.gold_gain", "gold_gain", "reward_gold"),
}
"""What is read -> column names that mean it."""

_KL, _GOLD = "align.kl", "align.gold_gain"


def alignments_of_table(path: Path) -> tuple[Measured, ...]:
    """Read a table with a column of KL, in nats a completion, and one of gold reward over the reference's.

    Raises `DataError` for a file that is no table, missing columns and what is no number.
    """
    sheet = read_sheet(path)
    names = sheet.find(MEANINGS)
    if missing := [meaning for meaning in MEANINGS if meaning not in names]:
        raise sheet.lacks(missing, tuple(MEANINGS))
    kls, golds = (sheet.numbers(names[meaning], signed=True) for meaning in MEANINGS)
    return tuple(
        Measured(kl=float(kl), gold=float(gold), name=f"line {line}")
        for kl, gold, (line, _) in zip(kls, golds, sheet.rows, strict=True)
    )


def alignments_of_store(root: Path) -> tuple[Measured, ...]:
    """Every alignment of a store whose KL and gold gain were both measured; empty where there is no store."""
    if not root.is_dir():
        return ()
    store, found = Store.open(root), []
    for manifest in store.lineage():
        measured = store.results(measured_key(manifest.id)) if manifest.stage_kind == "align" else []
        if measured:
            kl, gold = (measured[-1].measurements.get(name, {}).get("value") for name in (_KL, _GOLD))
            if kl is not None and gold is not None:
                found.append(Measured(kl=float(kl), gold=float(gold), name=manifest.id))
    return tuple(found)
