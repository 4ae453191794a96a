"""The same specification measured on a trained reward model, and where it departs from the votes it learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightgate import recipe
from weightgate.errors import UserError
from weightgate.preferences.audit import Audit
from weightgate.preferences.logistic import Ints
from weightgate.preferences.specification import Line, scopes_of, specification_of
from weightgate.preferences.votes import Vote
from weightgate.probe.addresses import CheckpointAddress, FolderAddress, ModelAddress
from weightgate.report.page import Cell, Column, Section, Table, measurement_cell
from weightgate.stats import Estimate, Measurement, proportion
from weightgate.store import Store

REWARD = "reward"
"""Kind of the stages that make reward models."""

MOST_VOTES = 5_000
"""Votes that the model is asked about; of more, the first so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Preferred:
    """What a reward model prefers, for each vote.

    `signs` is 1 where it scores the first answer higher, -1 the second, 0 neither; `asked` is False where the pair
    could not be put to it, and then the sign is 0.
    """

    signs: Ints
    asked: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """Lines of the votes and of the model on the same pairs, in the same order.

    `agreement` is the share of decided votes that the model sides with; `departs` says for each line whether the two
    intervals do not meet; `unasked` counts pairs that could not be put to it.
    """

    ref: str
    votes: tuple[Line, ...]
    model: tuple[Line, ...]
    departs: tuple[bool, ...]
    agreement: Measurement
    unasked: int

    def to_json(self, lines: Sequence[int]) -> dict[str, Any]:
        """Return plain data with lines of the file in the place of rows."""
        both = zip(self.votes, self.model, self.departs, strict=True)
        told = [{"votes": a.to_json(lines), "model": b.to_json(lines), "departs": departs} for a, b, departs in both]
        return {"ref": self.ref, "agreement": self.agreement.to_json(), "unasked": self.unasked, "lines": told}


def reward_address(text: str, recipe_path: Path) -> ModelAddress:
    """Find out which reward model a text names: a folder with a config.json, or a ref in the store of a recipe.

    Nothing is loaded. Raises `UserError` for what is none, and `RecipeError` or `StoreError` for a ref that does not
    resolve.
    """
    path = Path(text)
    if (path / "config.json").is_file():
        return FolderAddress(path=path)
    if path.exists() or "://" in text or not recipe_path.exists():
        raise UserError(
            f"{text!r} is no reward model",
            expected="a folder with a config.json, or a ref in the store of a recipe",
            found="neither" if recipe_path.exists() else f"neither, and there is no recipe at {recipe_path}",
            mend="name the ref that `weightgate log` shows for a reward stage, with --recipe where that is elsewhere",
        )
    store = Store.open(recipe_path.parent / recipe.load(recipe_path).store)
    checkpoint = store.resolve(text)
    _require_reward(store, text, checkpoint)
    return CheckpointAddress(recipe_path=recipe_path, ref=text, checkpoint=checkpoint)


def _require_reward(store: Store, text: str, checkpoint: str) -> None:
    manifest = store.manifest(checkpoint)
    if manifest.stage_kind == REWARD:
        return
    others = [name for name, each in store.refs().items() if store.manifest(each).stage_kind == REWARD]
    raise UserError(
        f"{text!r} is no reward model",
        expected="a checkpoint of a reward stage",
        found=f"{checkpoint[3:15]} of stage {manifest.stage!r}, which is of kind {manifest.stage_kind}",
        mend=f"--reward-model {others[0]}" if others else "add a stage of kind reward to the recipe, and build it",
    )


def model_view(audit: Audit, ref: str, preferred_by: Callable[[Sequence[Vote]], Preferred]) -> ModelView:
    """Ask the model which answer it prefers, and make both specifications of the same votes: those it was asked."""
    kept = min(len(audit.table), MOST_VOTES)
    table = audit.table.first(kept)
    found = preferred_by(table.votes)
    signs, given = found.signs, np.where(found.asked, table.sign, 0)
    scopes = scopes_of(table, audit.coverage.topic[:kept], audit.coverage.names)
    votes, model = specification_of(table, scopes, given), specification_of(table, scopes, signs)
    decided = given != 0
    return ModelView(
        ref=ref,
        votes=votes,
        model=model,
        departs=tuple(_apart(one.share, other.share) for one, other in zip(votes, model, strict=True)),
        agreement=proportion(int((signs == given)[decided].sum()), int(decided.sum())),
        unasked=int((~found.asked).sum()),
    )


def _apart(one: Measurement, other: Measurement) -> bool:
    if not isinstance(one, Estimate) or not isinstance(other, Estimate):
        return False
    return one.low > other.high or other.low > one.high


def model_section(view: ModelView) -> Section:
    """The lines about which somebody has something to say, those that depart first."""
    both = sorted(zip(view.departs, view.votes, view.model, strict=True), key=lambda one: (not one[0], -one[1].pairs))
    rows = tuple(
        (
            Cell(text=f"{votes.driver} on {votes.scope}", severity="warn" if departs else None),
            measurement_cell(votes.share),
            measurement_cell(model.share),
            Cell(text="departs" if departs else "", detail=model.words if departs else ""),
        )
        for departs, votes, model in both
        if votes.verdict != "no evidence" or model.verdict != "no evidence"
    )
    columns = (Column(name="line"), Column(name="votes"), Column(name=view.ref), Column(name=""))
    caption = f"On the same pairs. The model sides with the votes in {view.agreement}."
    if view.unasked:
        caption += (
            f" {view.unasked:,} pairs could not be put to it: too long for its context, or refused by its template."
        )
    return Section(title="What the reward model prefers", blocks=(Table(columns=columns, rows=rows, caption=caption),))
