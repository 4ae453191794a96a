"""Checkpoints that stand in place of the stages that made them: what a build may start from, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass

from weightgate.build.facts import Facts
from weightgate.build.run_key import recorded_inputs, stage_inputs
from weightgate.build.workspace import Workspace
from weightgate.errors import LockError, RecipeError
from weightgate.store import Manifest, Store, digest_json
from weightgate.store.records import measured_key
from weightgate.store.states import differences_of

_SHORT = slice(3, 15)
"""The digits of an id that are shown."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Judges the checkpoints that a build takes from the store instead of making them."""

    workspace: Workspace
    facts: Facts

    @property
    def _store(self) -> Store:
        return self.workspace.store

    def require_policy(self, ref: str, checkpoint: str) -> Manifest:
        """Return the manifest of a checkpoint that `ref` names, if a build of this recipe may start from it.

        Raises `RecipeError` when no stage of the recipe made it or it is a reward model, `LockError` when its tokenizer
        or base model is another one or its own gates did not pass.
        """
        manifest = self._store.manifest(checkpoint)
        names = [stage.name for stage in self.workspace.recipe.stages]
        if manifest.stage not in names:
            raise RecipeError(
                "the checkpoint was made by a stage that this recipe does not have",
                where=ref,
                expected=f"one of {', '.join(names)}",
                found=manifest.stage,
            )
        if manifest.stage_kind == "reward":
            raise RecipeError(
                "a reward model scores text and writes none, so no stage can start from it",
                where=ref,
                expected="a checkpoint of a stage that makes a policy",
                found=f"{checkpoint[_SHORT]}, a reward model of stage {manifest.stage!r}",
                mend=f"weightgate build --from {manifest.parent[_SHORT]}" if manifest.parent else None,
            )
        if manifest.inputs.get("tokenizer") != self.facts.tokenizer.digest:
            raise LockError(
                "the checkpoint was trained with another tokenizer",
                where=ref,
                expected=self.facts.tokenizer.digest,
                found=str(manifest.inputs.get("tokenizer")),
            )
        self._require_same_base(ref, manifest)
        self._require_gates_passed(manifest.stage, checkpoint)
        return manifest

    def reward_model(self, name: str, *, policy: str) -> str:
        """Return the reward model of stage `name` that belongs to a policy which the build started from.

        It must be the one that the recipe would make now from the policy's own ancestor, but for the reproducibility
        class. Raises `RecipeError` when there is none, `LockError` when the one there is was made from anything else
        or did not pass its gates.
        """
        parent = self._ancestor(policy, self.workspace.recipe.parent_name(name))
        wanted = stage_inputs(self.workspace, self.facts, self.workspace.recipe.stage(name), parent, None)
        same = self._store.results(digest_json(wanted))
        checkpoint = same[-1].checkpoint if same else self._store.refs().get(name)
        start = f"--from {parent[_SHORT]} " if parent else ""
        mend = f"weightgate build {start}--until {name}, then this command again"
        if checkpoint is None:
            raise RecipeError("there is no reward model to align with", where=f"stages.{name}", mend=mend)
        recorded = recorded_inputs(self._store.manifest(checkpoint))
        changed = [each for each in differences_of(recorded, wanted) if not each.is_of_class]
        if changed:
            raise LockError(
                "the reward model is not the one that this recipe makes",
                where=f"stages.{name}",
                expected="every input as the recipe has it",
                found=f"{checkpoint[_SHORT]} with other inputs: {'; '.join(map(str, changed))}",
                mend=mend,
            )
        self._require_gates_passed(name, checkpoint)
        return checkpoint

    def _ancestor(self, checkpoint: str, stage: str | None) -> str | None:
        """The checkpoint itself or the nearest before it that a stage of this name made."""
        found: str | None = checkpoint
        while found is not None:
            manifest = self._store.manifest(found)
            if manifest.stage == stage:
                return found
            found = manifest.parent
        return None

    def _require_same_base(self, ref: str, manifest: Manifest) -> None:
        while manifest.parent is not None:
            manifest = self._store.manifest(manifest.parent)
        found = manifest.inputs.get("base")
        if found != self.facts.base_digest:
            raise LockError(
                "the checkpoint descends from another base model",
                where=ref,
                expected=self.facts.base_digest or "a model trained from scratch",
                found=str(found or "a model trained from scratch"),
                mend="name the base it was trained on under base.model, or build without --from",
            )

    def _require_gates_passed(self, stage: str, checkpoint: str) -> None:
        results = self._store.results(measured_key(checkpoint))
        if not results or any(verdict["status"] in ("failed", "not measured") for verdict in results[-1].verdicts):
            raise LockError(
                "no stage may start from a checkpoint whose gates did not pass",
                where=stage,
                found=f"{checkpoint[_SHORT]} " + ("was never judged" if not results else "did not pass"),
                mend=f"weightgate show {checkpoint[_SHORT]}",
            )
