"""The store on a real disk: what comes back, what is refused, what verify and collect say."""

from __future__ import annotations

import dataclasses
import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import checkpoint, publish, tensor

from weightgate.errors import CorruptError, StoreError
from weightgate.store import (
    Ages,
    Manifest,
    Result,
    Store,
    TensorData,
    canonical_json,
    digest_bytes,
    digest_file,
    digest_json,
    records,
    require_free_space,
)
from weightgate.store.fs import LocalFs, LocalWriter, host_name, temporary_name
from weightgate.store.index import on_network_filesystem
from weightgate.store.lease import in_use, unused
from weightgate.store.marks import Reason
from weightgate.store.records import recording_time

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    project = tmp_path / "a project, ünïcode"
    project.mkdir()
    return Store.create(project / ".weightgate")


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


# Digests and canonical JSON


def test_the_digest_is_blake3() -> None:
    # The first test vector of the BLAKE3 specification: the empty input.
    assert digest_bytes(b"") == "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@settings(deadline=None)
@given(JSON)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    def reversed_keys(each: object) -> object:
        if isinstance(each, dict):
            return {key: reversed_keys(each[key]) for key in reversed(each)}
        return [reversed_keys(item) for item in each] if isinstance(each, list) else each

    assert canonical_json(value) == canonical_json(reversed_keys(value))


@pytest.mark.parametrize(
    ("value", "place"), [({"a": [1, 0.5]}, r"\$\.a\[1\]"), ({"a": {1: 2}}, r"\$\.a"), (b"x", r"\$")]
)
def test_what_has_no_single_form_is_not_hashed(value: object, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        digest_json(value)


# Objects


@settings(deadline=None, max_examples=25)
@given(data=st.binary(max_size=5000))
def test_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = Store.create(tmp_path_factory.mktemp("store") / ".weightgate")
    digest = store.put_bytes(data)
    assert store.has(digest)
    assert store.get_bytes(digest) == data
    assert store.put_bytes(memoryview(data)) == digest == digest_bytes(data)


def test_a_file_is_copied_and_left_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"t" * 100_000)
    digest = store.put_file(path)
    assert digest == digest_file(path)
    path.write_bytes(b"changed in place")
    assert store.get_bytes(digest) == b"t" * 100_000


def test_a_file_that_is_not_there_is_the_users_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        store.put_file(tmp_path / "absent")


def test_an_object_cannot_be_written_in_place(store: Store) -> None:
    path = store.objects.path(store.put_bytes(b"x"))
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.stat().st_nlink == 1


def test_tensors_come_back_in_parts_and_writable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PART_BYTES", 100)
    monkeypatch.setattr("weightgate.store.store.PART_BYTES", 100)
    data = bytes(range(250)) + bytes(6)
    tensors = {
        "large": TensorData(dtype="U8", shape=(2, 128), data=data),
        "scalar": TensorData(dtype="F32", shape=(), data=b"\x00\x00\x80\x3f"),
        "empty": TensorData(dtype="BF16", shape=(0, 7), data=b""),
    }
    entries = store.put_tensors(tensors)
    assert len(entries["large"].parts) == 3
    manifest = Manifest(stage="s", stage_kind="sft", parent=None, tensors=entries, files={}, inputs={})
    read = dict(store.read_tensors(store.manifest(store.publish(manifest))))
    assert {name: bytes(each.view()) for name, each in read.items()} == {
        name: bytes(each.view()) for name, each in tensors.items()
    }
    assert not read["large"].view().readonly


@pytest.mark.parametrize(("dtype", "shape", "size"), [("F32", (2,), 7), ("F31", (1,), 4), ("U8", (-1,), 0)])
def test_tensor_bytes_must_fill_the_shape(dtype: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError):
        TensorData(dtype=dtype, shape=shape, data=bytes(size))


@pytest.mark.parametrize("name", ["", "b3:", "../../etc/passwd", "b3:" + "g" * 64, "sha256:" + "0" * 64])
def test_only_a_digest_names_an_object(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a digest"):
        store.get_bytes(name)


# Checkpoints, results, refs


def test_publishing_twice_is_publishing_once(store: Store) -> None:
    first, second = publish(store), publish(store)
    assert first == second == store.manifest(first).id
    assert store.lineage() == [store.manifest(first)]


def test_the_id_does_not_depend_on_the_order_of_tensors(store: Store) -> None:
    manifest = checkpoint(store, "base", None, 1)
    turned = dataclasses.replace(manifest, tensors=dict(reversed(manifest.tensors.items())))
    assert turned.id == manifest.id


def test_an_incomplete_checkpoint_is_not_published(store: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other")
    with pytest.raises(StoreError, match="is not in the store"):
        other.publish(checkpoint(store, "base", None, 1))
    with pytest.raises(StoreError, match="is not in the store"):
        store.publish(checkpoint(store, "tuned", "b3:" + "0" * 64, 1))
    assert store.lineage() == other.lineage() == []


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"colour": "red"}, {"schema": "1"}, {"parent": "main"}, {"tensors": []}]
)
def test_a_manifest_of_another_form_is_refused(store: Store, change: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        Manifest.from_json(checkpoint(store, "base", None, 1).to_json() | change)


def test_lineage_lists_ancestors_first(store: Store) -> None:
    base = publish(store, "z base", None, 1)
    reward = publish(store, "reward", base, 2)
    aligned = dataclasses.replace(checkpoint(store, "aligned", base, 3), reward=reward)
    store.publish(aligned)
    assert [manifest.stage for manifest in store.lineage()] == ["z base", "reward", "aligned"]


def test_several_results_of_one_key_are_all_kept(store: Store) -> None:
    one, two = publish(store, fill=1), publish(store, fill=2)
    first = Result(key="k", checkpoint=one, cost={"seconds": 0.1}, recorded_at="2026-01-01T00:00:00Z")
    second = Result(key="k", checkpoint=two, verdicts=({"gate": "kept"},), recorded_at="2026-01-02T00:00:00Z")
    store.add_result("k", second)
    store.add_result("k", first)
    assert store.results("k") == [first, second]
    assert store.results("other") == []
    assert store.result_of(two) == second
    assert store.result_of("b3:" + "0" * 64) is None


def test_a_result_without_its_checkpoint_or_with_nan_is_refused(store: Store) -> None:
    with pytest.raises(StoreError):
        store.add_result("k", Result(key="k", checkpoint="b3:" + "0" * 64))
    with pytest.raises(ValueError):
        store.add_result("k", Result(key="k", checkpoint=publish(store), cost={"loss": float("nan")}))


def test_a_ref_moves_only_from_where_it_stands(store: Store) -> None:
    one, two = publish(store, fill=1), publish(store, fill=2)
    store.set_ref("live", one, old=None, why="first release")
    with pytest.raises(StoreError, match="does not stand") as caught:
        store.set_ref("live", two, old=None, why="careless")
    assert caught.value.found == one
    store.set_ref("live", two, old=one, why="better")
    store.set_ref("live", None, old=two, why="withdrawn")
    assert store.refs() == {}
    assert [(move.old, move.new, move.why) for move in store.ref_history("live")] == [
        (None, one, "first release"),
        (one, two, "better"),
        (two, None, "withdrawn"),
    ]


def test_a_ref_points_to_a_whole_checkpoint(store: Store) -> None:
    with pytest.raises(StoreError):
        store.set_ref("live", "b3:" + "0" * 64, old=None, why="nothing there")
    base = publish(store)
    store.objects.path(store.manifest(base).files["config.json"]).unlink()
    with pytest.raises(StoreError, match="is not in the store"):
        store.set_ref("live", base, old=None, why="half there")
    assert store.refs() == {}


@pytest.mark.parametrize("name", ["", "../x", "a/", "/a", "a b", "a\n", "-x", "x" * 300, "a/../b"])
def test_ref_names_are_plain(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a ref name"):
        store.set_ref(name, publish(store), old=None, why="test")


def test_resolve_takes_refs_ids_and_beginnings(store: Store) -> None:
    base = publish(store)
    store.set_ref("stable/base", base, old=None, why="test")
    assert {store.resolve(text) for text in ("stable/base", base, base[3:9], base[:12])} == {base}
    with pytest.raises(StoreError, match="no checkpoint") as caught:
        store.resolve("stable/bas")
    assert "stable/base" in str(caught.value)
    for text in (base[3:8], "b3:" + "0" * 64, "*", ""):
        with pytest.raises(StoreError):
            store.resolve(text)


def test_an_ambiguous_beginning_lists_what_it_could_mean(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [publish(store, fill=1), publish(store, fill=2)]
    monkeypatch.setattr("weightgate.store.index.Index.ask", lambda *question: both)
    with pytest.raises(StoreError, match="could mean 2 checkpoints") as caught:
        store.resolve("abcdef")
    assert both[0][:12] in str(caught.value)


# Opening


def test_no_store_is_an_error_and_an_old_one_opens_again(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        Store.open(tmp_path)
    base = publish(store)
    assert Store.create(store.root).manifest(base) == Store.open(store.root).manifest(base)


def test_a_store_that_may_only_be_read_is_opened_by_those_who_would_make_one(store: Store) -> None:
    class ReadOnly(LocalFs):
        def create(self, path: Path, mode: int) -> LocalWriter:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    checkpoint = publish(store)
    assert Store.create(store.root, fs=ReadOnly()).manifest(checkpoint).stage == "base"


def test_a_changed_store_file_is_refused(store: Store) -> None:
    damage(store.root / "store.json", lambda data: data.replace(b'"hash":"blake3"', b'"hash":"blake2"'))
    with pytest.raises(CorruptError, match=r"store.json is not what was written"):
        Store.open(store.root)
    (store.root / "store.json").unlink()
    assert Store.create(store.root)


def test_the_newest_result_is_the_newest_though_the_clock_was_set_back(store: Store) -> None:
    checkpoint = publish(store)
    for cost in (1.0, 2.0, 3.0):
        time = "2999-01-01T00:00:00.000000+00:00" if cost == 1.0 else recording_time(store.results("k"))
        store.add_result("k", Result(key="k", checkpoint=checkpoint, cost={"seconds": cost}, recorded_at=time))
    assert [result.cost["seconds"] for result in store.results("k")] == [1.0, 2.0, 3.0]


def test_a_result_that_cannot_be_read_is_put_aside(store: Store) -> None:
    checkpoint = publish(store)
    whole, broken = (
        store.add_result("k", Result(key="k", checkpoint=checkpoint, cost={"seconds": cost})) for cost in (1.0, 2.0)
    )
    assert len(store.results("k")) == 2
    damage(store.result_records.path(broken), flip_a_bit)
    with pytest.raises(CorruptError):
        store.results("k")
    assert store.discard_damaged_results() == [broken]
    assert [result.cost["seconds"] for result in store.results("k")] == [1.0]
    assert store.read_result(whole)
    assert store.verify(contents=True) == []


def test_a_store_of_a_later_format_is_refused(store: Store) -> None:
    damage(store.root / "store.json", lambda data: data.replace(b'"format":1', b'"format":2'))
    with pytest.raises(StoreError, match="another version"):
        Store.open(store.root)


# Verify


def test_verify_finds_a_flipped_bit_and_names_the_stage(store: Store) -> None:
    entry = store.manifest(publish(store, "base")).tensors["embed"]
    damage(store.objects.path(entry.parts[0]), flip_a_bit)
    assert store.verify(contents=False) == []
    (problem,) = store.verify(contents=True)
    assert problem.digest == entry.parts[0]
    assert "base" in problem.what
    with pytest.raises(CorruptError):
        store.get_bytes(entry.parts[0])


def test_verify_finds_what_is_cut_short_or_gone_without_reading(store: Store) -> None:
    manifest = store.manifest(publish(store))
    cut, gone = manifest.tensors["embed"].parts[0], manifest.files["config.json"]
    damage(store.objects.path(cut), lambda data: data[:-1])
    store.objects.path(gone).unlink()
    found = {problem.digest: problem.what for problem in store.verify(contents=False)}
    assert "bytes long" in found[cut]
    assert "missing" in found[gone]


def test_verify_finds_damaged_records_and_history(store: Store) -> None:
    base = publish(store)
    record = store.add_result("k", Result(key="k", checkpoint=base))
    store.set_ref("live", base, old=None, why="test")
    store.set_ref("next", base, old=None, why="test")
    for path in (store.manifests.path(base), store.result_records.path(record)):
        damage(path, flip_a_bit)
    damage(store.root / "journal" / "0000000001.json", lambda data: data.replace(b"test", b"tast"))
    found = {problem.digest for problem in Store.open(store.root).verify(contents=False)}
    assert found == {base, record, "journal"}


@pytest.mark.parametrize("number", [1, 2])
def test_a_changed_move_is_found_the_newest_too(store: Store, number: int) -> None:
    one, two = publish(store, fill=1), publish(store, fill=2)
    store.set_ref("live", one, old=None, why="test")
    store.set_ref("live", two, old=one, why="test")
    damage(store.root / "journal" / f"{number:010d}.json", lambda data: data.replace(two.encode(), one.encode(), 1))
    damage(store.root / "journal" / f"{number:010d}.json", lambda data: data.replace(b'"why":"test"', b'"why":"best"'))
    with pytest.raises(CorruptError, match="history of the refs is broken"):
        Store.open(store.root).refs()


def test_a_gap_in_the_history_is_found(store: Store) -> None:
    base = publish(store)
    for name in ("a", "b", "c"):
        store.set_ref(name, base, old=None, why="test")
    (store.root / "journal" / "0000000002.json").unlink()
    with pytest.raises(CorruptError, match="gap"):
        Store.open(store.root).refs()


@pytest.mark.parametrize("change", [flip_a_bit, lambda data: data[:-3], lambda data: b""])
def test_storing_the_same_bytes_mends_a_damaged_object(store: Store, change: Callable[[bytes], bytes]) -> None:
    manifest = store.manifest(publish(store))
    damage(store.objects.path(manifest.tensors["embed"].parts[0]), change)
    store.put_tensors({"embed": tensor(1)})
    assert store.verify(contents=True) == []


# Collect


def test_collect_takes_only_what_nothing_needs(store: Store) -> None:
    base = publish(store, "base", None, 1)
    tuned = publish(store, "tuned", base, 5)
    given_up = publish(store, "given up", tuned, 9)
    loose = store.put_bytes(b"loose")
    store.set_ref("live", base, old=None, why="test")
    store.set_ref("live", tuned, old=base, why="test")
    store.set_ref("live", None, old=tuned, why="history still counts")
    assert store.collect().trashed == ()
    forecast = store.collect(Ages(grace=0))
    assert {given_up, loose} <= set(forecast.trashed)
    assert store.has(loose), "a dry run takes nothing"
    done = store.collect(Ages(grace=0), dry_run=False)
    assert done.trashed == forecast.trashed
    assert {manifest.stage for manifest in store.lineage()} == {"base", "tuned"}
    assert store.verify(contents=True) == []
    assert store.collect(Ages(grace=0), dry_run=False).trashed == ()


def test_a_result_keeps_its_checkpoint(store: Store) -> None:
    base = publish(store)
    store.add_result("k", Result(key="k", checkpoint=base))
    assert store.collect(Ages(grace=0), dry_run=False).trashed == ()


def test_what_was_collected_by_mistake_comes_back_until_it_is_purged(store: Store) -> None:
    one, two = store.put_bytes(b"one"), store.put_bytes(b"two")
    store.collect(Ages(grace=0), dry_run=False)
    assert store.get_bytes(one) == b"one"
    purged = store.collect(Ages(trash=0), dry_run=False)
    assert (purged.purged, purged.purged_bytes) == (1, 3)
    assert [(each.reason, each.objects) for each in purged.staying] == [(Reason.RECENT, 1)]
    assert not store.has(two)
    assert list((store.root / "trash").iterdir()) == []
    store.collect(Ages(grace=0), dry_run=False)
    assert store.get_bytes(one) == b"one", "the trash works again after it was emptied"


def test_a_young_child_keeps_the_old_checkpoints_it_was_made_from(store: Store) -> None:
    """In a store of several users a parent may belong to another one, and keeps its age when it is used."""
    parent = publish(store, "parent", None, 1)
    child = publish(store, "child", parent, 2)
    for path in (store.manifests.path(parent), *(store.root / "objects").rglob("*")):
        os.utime(path, (0, 0))
    collected = store.collect(Ages(history=0), dry_run=False)
    assert collected.trashed == ()
    assert {manifest.id for manifest in store.lineage()} == {parent, child}


def test_a_whole_id_brings_back_what_it_stands_on(store: Store) -> None:
    parent = publish(store, "parent", None, 1)
    child = publish(store, "child", parent, 2)
    store.collect(Ages(grace=0), dry_run=False)
    assert store.lineage() == []
    assert store.resolve(child) == child
    assert [manifest.id for manifest in store.lineage()] == [parent, child]
    assert store.verify(contents=True) == []
    store.collect(Ages(grace=0, trash=0), dry_run=False)
    with pytest.raises(StoreError, match="no checkpoint is called"):
        store.resolve(child)


def test_a_dry_run_forecasts_and_moves_nothing(store: Store) -> None:
    base = publish(store, "base", None, 1)
    store.set_ref("live", base, old=None, why="test")
    for number in range(3):
        publish(store, "given up", base, 10 + 5 * number)
    store.collect(Ages(grace=0), dry_run=False)
    store.objects.discard(store.manifest(base).files["config.json"], "2026-01-01")  # as a race may do
    before = {path: path.stat().st_mtime for path in store.root.rglob("*") if path.is_file()}
    forecast = store.collect(Ages(grace=0))
    assert {path: path.stat().st_mtime for path in store.root.rglob("*") if path.is_file()} == before
    done = store.collect(Ages(grace=0), dry_run=False)
    assert dataclasses.replace(done, dry_run=True) == forecast
    assert store.has(store.manifest(base).files["config.json"])
    assert store.verify(contents=True) == []


def test_collect_waits_for_nobody_and_builds_wait_for_it(store: Store) -> None:
    order: list[str] = []

    def build() -> None:
        with in_use(store.root):
            order.append("build")

    builder = threading.Thread(target=build)
    with unused(store.root) as has_locks:
        assert has_locks
        with pytest.raises(StoreError, match="in use"), unused(store.root):
            pass
        builder.start()
        order.append("collection")
    builder.join()
    assert order == ["collection", "build"]
    with in_use(store.root), in_use(store.root), pytest.raises(StoreError, match="in use"), unused(store.root):
        pass


def test_collect_refuses_to_guess(store: Store) -> None:
    base = publish(store)
    store.set_ref("live", base, old=None, why="test")
    loose = store.put_bytes(b"loose")
    damage(store.manifests.path(base), flip_a_bit)
    with pytest.raises(CorruptError):
        store.collect(Ages(grace=0), dry_run=False)
    assert store.has(loose)


def test_collect_refuses_to_guess_what_a_damaged_checkpoint_without_a_name_needs(store: Store) -> None:
    nameless = publish(store, "nameless", None, 1)
    damage(store.manifests.path(nameless), flip_a_bit)
    before = sorted(store.objects.digests())
    with pytest.raises(CorruptError, match="nothing was collected") as refusal:
        store.collect(Ages(grace=0, history=0, trash=0), dry_run=False)
    assert refusal.value.where == str(store.manifests.path(nameless))
    assert sorted(store.objects.digests()) == before
    store.manifests.path(nameless).unlink()  # as the message says
    assert store.collect(Ages(grace=0), dry_run=False).trashed == tuple(before)


def test_only_temporaries_of_dead_processes_of_this_host_are_swept(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as finished:
        pass
    folder = store.root / "tmp"
    dead = folder / f"{host_name()}-{finished.pid}-00ff"
    others = [folder / temporary_name(), folder / f"elsewhere-{finished.pid}-00ff", folder / "notes", folder / "a-b-c"]
    for path in (dead, *others):
        path.write_bytes(b"12345")
    assert store.sweep_temporaries() == 5
    assert sorted(folder.iterdir()) == sorted(others)


# Space and index


def test_free_space_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "made yet", 1)
    with pytest.raises(StoreError, match="disk is full") as caught:
        require_free_space(tmp_path, 1 << 60)
    assert caught.value.expected is not None
    assert "bytes free" in caught.value.expected


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"not a database" * 100,
        lambda data: data[:1000],
        lambda data: data[:4096] + bytes([255]) * (len(data) - 4096),
        lambda data: b"",
    ],
)
def test_a_damaged_index_is_built_again(store: Store, change: Callable[[bytes], bytes]) -> None:
    base = publish(store)
    result = Result(key="k", checkpoint=base)
    store.add_result("k", result)
    assert store.results("k") == [result]
    damage(store.root / "index.sqlite", change)
    assert store.results("k") == [result]
    assert store.resolve(base[3:12]) == base


def test_an_index_of_something_else_is_replaced_and_a_missing_one_made(store: Store) -> None:
    base = publish(store)
    with sqlite3.connect(store.root / "index.sqlite") as database:
        database.execute("CREATE TABLE somebody_elses (x)")
    database.close()
    assert store.resolve(base[3:12]) == base
    store.rebuild_index()
    assert (store.root / "index.sqlite").stat().st_size > 0


def test_the_index_follows_files_that_come_and_go(store: Store) -> None:
    kept, gone = publish(store, fill=1), publish(store, fill=5)
    assert store.resolve(gone[3:]) == gone
    store.manifests.path(gone).unlink()
    with pytest.raises(StoreError):
        store.resolve(gone[3:])
    assert store.resolve(kept[3:]) == kept


def test_a_store_whose_index_cannot_be_written_can_be_read(store: Store) -> None:
    base = publish(store)
    (store.root / "index.sqlite").mkdir()
    assert Store.open(store.root).resolve(base[3:12]) == base


def test_network_filesystems_are_told_from_local_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /cluster nfs4 rw 0 0\nc /cluster/scratch xfs rw 0 0\n")
    assert on_network_filesystem(Path("/cluster/home"), mounts)
    assert not on_network_filesystem(Path("/cluster/scratch/x"), mounts)
    assert not on_network_filesystem(Path("/home"), mounts)
    assert not on_network_filesystem(Path("/home"), tmp_path / "absent")
