"""Every operation of a store's life is a place to crash; after each, nothing acknowledged may be lost."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crash_fs import CrashFs, File, Folder, survivors
from samples import checkpoint, publish

from weightgate.errors import StoreError
from weightgate.store import Ages, Result, Store, collect
from weightgate.store.index import Index
from weightgate.store.objects import Shelf

ROOT = Path("/project/.weightgate")
NOW_SECONDS = 1.8e9


@dataclass
class Acknowledged:
    """What the store said it had, each with the number of operations after which it said so."""

    fs: CrashFs
    created_at: int | None = None
    objects: list[tuple[int, str, bytes]] = field(default_factory=list)
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    results: list[tuple[int, str, Result]] = field(default_factory=list)
    refs: list[tuple[int, str | None]] = field(default_factory=lambda: [(0, None)])
    asked_refs: list[str | None] = field(default_factory=lambda: [None])

    @property
    def now(self) -> int:
        return self.fs.operations


def disk(kind: type[CrashFs] = CrashFs, *, keep_history: bool = False) -> CrashFs:
    project = Folder()
    return kind(keep_history=keep_history, root=Folder({"project": project}, {"project": project}))


def store_on(fs: CrashFs, *, create: bool = False) -> Store:
    make = Store.create if create else Store.open
    return make(ROOT, fs=fs, index=Index(path=None), clock=lambda: NOW_SECONDS)


def put(store: Store, said: Acknowledged, data: bytes) -> str:
    digest = store.put_bytes(data)
    said.objects.append((said.now, digest, data))
    return digest


def move(store: Store, said: Acknowledged, new: str, old: str | None) -> None:
    said.asked_refs.append(new)
    store.set_ref("main", new, old=old, why="test")
    said.refs.append((said.now, new))


def life(fs: CrashFs, said: Acknowledged) -> None:
    """Use everything that writes: objects large and small, checkpoints, refs, results, collection and the way back."""
    store = store_on(fs, create=True)
    said.created_at = said.now
    put(store, said, b"a tokenizer")
    put(store, said, bytes(range(256)) * 12)
    base = publish(store, "base", None, 1)
    said.checkpoints.append((said.now, base))
    move(store, said, base, None)
    result = Result(key="k", checkpoint=base, cost={"seconds": 1.5})
    store.add_result("k", result)
    said.results.append((said.now, "k", result))
    tuned = publish(store, "tuned", base, 2)
    said.checkpoints.append((said.now, tuned))
    move(store, said, tuned, base)
    publish(store, "abandoned", publish(store, "abandoned first", tuned, 4), 6)
    # Collecting takes the abandoned checkpoints and the unused objects; the acknowledgements of those end here.
    said.objects.clear()
    store.collect(Ages(grace=0), dry_run=False)
    put(store, said, b"a tokenizer")
    put(store, said, b"last")


def check(fs: CrashFs, said: Acknowledged, crash_at: int) -> None:
    """Assert what must hold on a disk that a crash before operation `crash_at` left behind."""
    try:
        store = store_on(fs)
    except StoreError:
        assert said.created_at is None or crash_at < said.created_at, "the store was acknowledged and is gone"
        store_on(fs, create=True)
        return
    problems = store.verify(contents=True)
    assert problems == []
    for when, digest, data in said.objects:
        assert when > crash_at or store.get_bytes(digest) == data
    for when, digest in said.checkpoints:
        assert when > crash_at or dict(store.read_tensors(store.manifest(digest)))
    for when, key, result in said.results:
        assert when > crash_at or store.results(key) == [result]
    moves = [new for when, new in said.refs if when <= crash_at]
    position = len(moves) - 1
    assert store.refs().get("main") in said.asked_refs[position : position + 2], "the ref is neither old nor new"


def crash_everywhere(
    kind: type[CrashFs] = CrashFs, live: Callable[[CrashFs, Acknowledged], None] = life, num_random: int = 4
) -> int:
    """Live once, then check every disk that a crash before any operation could have left; return how many."""
    fs = disk(kind, keep_history=True)
    said = Acknowledged(fs)
    live(fs, said)
    num_checked = 0
    for crash_at, before in enumerate(fs.history):
        for what, left in survivors(before, num_random=num_random, seed=crash_at):
            try:
                check(left, said, crash_at)
            except (AssertionError, StoreError) as error:
                raise AssertionError(f"crash before operation {crash_at}, {what}: {error}") from error
            num_checked += 1
    return num_checked


def test_no_crash_loses_what_was_acknowledged() -> None:
    assert crash_everywhere() > 1500


def test_collecting_twice_takes_nothing_more() -> None:
    fs = disk(keep_history=True)
    life(fs, Acknowledged(fs))
    for before in fs.history[::5]:
        _, left = next(survivors(before, num_random=0, seed=0))
        try:
            store = store_on(left)
        except StoreError:
            continue
        store.collect(Ages(grace=0), dry_run=False)
        assert store.collect(Ages(grace=0), dry_run=False).trashed == ()
        assert store.verify(contents=True) == []


def life_with_history(fs: CrashFs, said: Acknowledged) -> None:
    """Let go of history, take some of it back, and empty the trash."""
    store = store_on(fs, create=True)
    said.created_at = said.now
    base = publish(store, "base", None, 1)
    move(store, said, base, None)
    given_up = publish(store, "tuned", base, 2)
    child = publish(store, "aligned", given_up, 4)
    for key, made in (("k2", given_up), ("k3", child)):
        store.add_result(key, Result(key=key, checkpoint=made, recorded_at=f"of {key}"))
    said.checkpoints.append((said.now, base))
    store.collect(Ages(grace=0, history=0), dry_run=False)
    assert [manifest.stage for manifest in store.lineage()] == ["base"]
    assert store.take_back_run("k3")
    said.checkpoints += [(said.now, given_up), (said.now, child)]
    move(store, said, child, base)
    assert [each.checkpoint for each in store.results("k2")] == [given_up], "what is known of its parent comes as well"
    loose = store.put_bytes(b"loose")
    store.collect(Ages(grace=0, history=0), dry_run=False)
    store.collect(Ages(trash=0), dry_run=False)
    assert not store.has(loose)


def test_no_crash_while_history_goes_and_comes_back_loses_anything() -> None:
    assert crash_everywhere(live=life_with_history) > 1000


def test_what_is_left_after_a_crash_is_collected_and_can_still_be_taken_back() -> None:
    """At every moment of a collection either the run is still known, or it comes back whole when it is wanted."""
    fs = disk(keep_history=True)
    store = store_on(fs, create=True)
    base = publish(store, "base", None, 1)
    store.set_ref("main", base, old=None, why="test")
    given_up = publish(store, "tuned", base, 2)
    store.add_result("k", Result(key="k", checkpoint=given_up))
    before = len(fs.history)
    store.collect(Ages(grace=0, history=0), dry_run=False)
    for disk_then in fs.history[before:]:
        for _, left in survivors(disk_then, num_random=2, seed=len(fs.history)):
            again = store_on(left)
            assert again.results("k") or again.take_back_run("k")
            assert dict(again.read_tensors(again.manifest(given_up)))
            assert again.verify(contents=True) == []
            again.collect(Ages(grace=0, history=0), dry_run=False)
            assert again.collect(Ages(grace=0, history=0), dry_run=False).trashed == ()
            again.collect(Ages(grace=0, history=0, trash=0), dry_run=False)
            assert not again.take_back_run("k")
            assert again.verify(contents=True) == []


def test_results_after_their_checkpoint_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    order = collect._dead
    monkeypatch.setattr(collect, "_dead", lambda held, marks: reversed(list(order(held, marks))))
    with pytest.raises(AssertionError, match="crash before operation"):
        crash_everywhere(live=life_with_history)


class WithoutFsync(CrashFs):
    def fsync_file(self, file: File) -> None:
        self._operation()


class WithoutFolderFsync(CrashFs):
    def fsync_folder(self, path: Path) -> None:
        self._operation()


class PublishesUnflushed(CrashFs):
    """Gives a file its name before its bytes are sure, as a plain write to the final path does."""

    def link(self, source: Path, target: Path) -> None:
        self._file(source).durable = b""
        super().link(source, target)


@pytest.mark.parametrize("kind", [WithoutFsync, WithoutFolderFsync, PublishesUnflushed])
def test_a_disk_that_skips_a_step_is_caught(kind: type[CrashFs]) -> None:
    with pytest.raises(AssertionError, match="crash before operation"):
        crash_everywhere(kind)


def test_a_ref_before_its_checkpoint_is_caught() -> None:
    def ref_first(fs: CrashFs, said: Acknowledged) -> None:
        store = store_on(fs, create=True)
        said.created_at = said.now
        manifest = checkpoint(store, "base", None, 1)
        said.asked_refs.append(manifest.id)
        store.journal.move("main", manifest.id, old=None, why="too early")
        store.publish(manifest)

    with pytest.raises(AssertionError, match="ref main points to it"):
        crash_everywhere(live=ref_first)


def test_a_checkpoint_before_its_objects_is_caught() -> None:
    def manifest_first(fs: CrashFs, said: Acknowledged) -> None:
        elsewhere = store_on(disk(), create=True)
        store = store_on(fs, create=True)
        said.created_at = said.now
        store.manifests.put(checkpoint(elsewhere, "base", None, 1).to_bytes())
        publish(store, "base", None, 1)

    with pytest.raises(AssertionError, match="missing, though checkpoint"):
        crash_everywhere(live=manifest_first)


def test_collecting_parents_first_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    discard = Shelf.discard
    waiting: list[tuple[Shelf, str, str]] = []

    def backwards(shelf: Shelf, digest: str, day: str) -> None:
        waiting.append((shelf, digest, day))
        if len(waiting) == 2:
            for each in reversed(waiting):
                discard(*each)

    monkeypatch.setattr(Shelf, "discard", backwards)
    with pytest.raises(AssertionError, match="was made from it"):
        crash_everywhere()


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_once_leaves_the_store_whole(failure: int) -> None:
    fs = disk()
    life(fs, Acknowledged(fs))
    for fail_at in range(1, fs.operations + 1):
        failing = disk()
        failing.fail_at, failing.failure = fail_at, failure
        said = Acknowledged(failing)
        with contextlib.suppress(StoreError):  # and nothing else: a user never sees the bare OSError
            life(failing, said)
        check(failing, said, failing.operations)


def test_a_full_disk_says_what_is_missing_and_keeps_what_it_has() -> None:
    fs = disk()
    store = store_on(fs, create=True)
    kept = store.put_bytes(b"kept")
    fs.capacity_bytes = 10_000
    with pytest.raises(StoreError, match="the disk is full") as caught:
        store.put_bytes(bytes(20_000))
    assert caught.value.expected == "20,000 bytes free"
    assert caught.value.found is not None
    assert store.get_bytes(kept) == b"kept"
    assert fs.names(ROOT / "tmp") == []
    assert store.verify(contents=True) == []


def test_of_two_writers_who_move_a_ref_at_once_one_is_told() -> None:
    fs = disk()
    mine, theirs = store_on(fs, create=True), store_on(fs)
    first, second = publish(mine, "one", None, 1), publish(mine, "two", None, 3)

    def they_come_first(target: Path) -> None:
        if target.parent.name == "journal":
            fs.before_link = lambda path: None
            theirs.set_ref("main", second, old=None, why="faster")

    fs.before_link = they_come_first
    with pytest.raises(StoreError, match="does not stand where") as caught:
        mine.set_ref("main", first, old=None, why="slower")
    assert caught.value.found == second
    assert mine.refs() == theirs.refs() == {"main": second}


def test_a_link_that_replaces_is_caught() -> None:
    class Replaces(CrashFs):
        def link(self, source: Path, target: Path) -> None:
            self.before_link(target)
            self._folder(target.parent).names[target.name] = self._file(source)

    fs = disk(Replaces)
    mine, theirs = store_on(fs, create=True), store_on(fs)
    base = publish(mine)

    def they_come_first(target: Path) -> None:
        fs.before_link = lambda path: None
        theirs.set_ref("theirs", base, old=None, why="faster")

    fs.before_link = they_come_first
    mine.set_ref("mine", base, old=None, why="slower")
    assert "theirs" not in store_on(fs).refs(), "a lost update must show, or the tests beside this one prove nothing"


def test_of_two_writers_who_move_different_refs_at_once_both_succeed() -> None:
    fs = disk()
    mine, theirs = store_on(fs, create=True), store_on(fs)
    base = publish(mine)

    def they_come_first(target: Path) -> None:
        if target.parent.name == "journal":
            fs.before_link = lambda path: None
            theirs.set_ref("theirs", base, old=None, why="faster")

    fs.before_link = they_come_first
    mine.set_ref("mine", base, old=None, why="slower")
    assert mine.refs() == {"mine": base, "theirs": base}
    assert [move.sequence for move in mine.journal.moves()] == [1, 2]


def test_an_object_collected_while_it_is_put_again_comes_back() -> None:
    fs = disk()
    store = store_on(fs, create=True)
    digest = store.put_bytes(b"wanted after all")
    store.objects.discard(digest, "2027-01-15")  # the collector moves it just after the put was acknowledged
    assert store.get_bytes(digest) == b"wanted after all"
    assert store.objects.age_seconds(digest) == 0
