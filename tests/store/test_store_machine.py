"""Any order of operations, on a modelled disk, beside a plain model of what the store must then hold."""

from __future__ import annotations

from pathlib import Path

from crash_fs import CrashFs, Folder, survivors
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from samples import checkpoint

from weightgate.store import Ages, Result, Store
from weightgate.store.index import Index

ROOT = Path("/project/.weightgate")
REF_NAMES = st.sampled_from(["live", "best", "candidate/one"])


class StoreMachine(RuleBasedStateMachine):
    """`objects` are those put and not collected; `reachable` the checkpoints that a ref or result ever kept."""

    checkpoints = Bundle("checkpoints")

    @initialize()
    def create(self) -> None:
        project = Folder()
        self.fs = CrashFs(root=Folder({"project": project}, {"project": project}))
        self.store = Store.create(ROOT, fs=self.fs, index=Index(path=None))
        self.objects: dict[str, bytes] = {}
        self.refs: dict[str, str] = {}
        self.published: dict[str, str | None] = {}
        self.kept: set[str] = set()
        self.results: dict[str, list[str]] = {}

    @rule(data=st.binary(max_size=40))
    def put(self, data: bytes) -> None:
        self.objects[self.store.put_bytes(data)] = data

    @rule(target=checkpoints, fill=st.integers(0, 20))
    def publish_base(self, fill: int) -> str:
        return self._publish(None, fill)

    @rule(target=checkpoints, parent=checkpoints, fill=st.integers(0, 20))
    def publish_child(self, parent: str, fill: int) -> str:
        return self._publish(parent if parent in self.published else None, fill)

    @rule(name=REF_NAMES, new=checkpoints)
    def move_ref(self, name: str, new: str) -> None:
        if new in self.published:
            self.store.set_ref(name, new, old=self.refs.get(name), why="test")
            self.refs[name] = new
            self.kept.add(new)

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def remove_ref(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.refs)))
        self.store.set_ref(name, None, old=self.refs.pop(name), why="test")

    @rule(key=st.sampled_from(["k1", "k2"]), of=checkpoints)
    def add_result(self, key: str, of: str) -> None:
        if of in self.published:
            self.store.add_result(key, Result(key=key, checkpoint=of))
            self.kept.add(of)
            if of not in self.results.setdefault(key, []):
                self.results[key].append(of)

    @rule()
    def collect(self) -> None:
        self._collect(Ages(grace=0), self.kept)

    @rule()
    def collect_history(self) -> None:
        self._collect(Ages(grace=0, history=0), set(self.refs.values()))
        self.kept &= self.published.keys()
        for key, checkpoints in self.results.items():
            self.results[key] = [each for each in checkpoints if each in self.published]

    def _collect(self, ages: Ages, roots: set[str]) -> None:
        self.store.collect(ages, dry_run=False)
        live = set()
        for digest in roots:
            waiting: str | None = digest
            while waiting is not None:
                live.add(waiting)
                waiting = self.published[waiting]
        self.published = {digest: parent for digest, parent in self.published.items() if digest in live}
        self.objects.clear()
        assert self.store.collect(ages, dry_run=False).trashed == ()

    @rule(key=st.sampled_from(["k1", "k2"]))
    def take_back(self, key: str) -> None:
        """What comes back is whole; which of several runs of one key it is does not matter here."""
        before = {manifest.id for manifest in self.store.lineage()}
        self.store.take_back_run(key)
        self.published |= {each.id: each.parent for each in self.store.lineage() if each.id not in before}
        for other in ("k1", "k2"):
            found = sorted({result.checkpoint for result in self.store.results(other)})
            self.kept |= set(found)
            if found:
                self.results[other] = found

    @rule(seed=st.integers(0, 1000))
    def lose_power(self, seed: int) -> None:
        *_, (_, self.fs) = survivors(self.fs.root, num_random=1, seed=seed)
        self.reopen()

    @rule()
    def reopen(self) -> None:
        self.store = Store.open(ROOT, fs=self.fs, index=Index(path=None))

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def damage_and_mend(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.objects)))
        self.store.put_bytes(self.objects[digest])
        self.fs.overwrite(self.store.objects.path(digest), self.objects[digest] + b"x")
        assert digest in {problem.digest for problem in self.store.verify(contents=True)}
        self.store.put_bytes(self.objects[digest])

    @invariant()
    def holds_what_it_must(self) -> None:
        assert self.store.verify(contents=True) == []
        assert self.store.refs() == self.refs
        assert all(self.store.get_bytes(digest) == data for digest, data in self.objects.items())
        assert {manifest.id for manifest in self.store.lineage()} == set(self.published)
        for key, checkpoints in self.results.items():
            assert sorted(result.checkpoint for result in self.store.results(key)) == sorted(checkpoints)

    def _publish(self, parent: str | None, fill: int) -> str:
        digest = self.store.publish(checkpoint(self.store, f"stage {fill}", parent, fill))
        self.published[digest] = parent
        return digest


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(deadline=None, max_examples=25, stateful_step_count=20)
