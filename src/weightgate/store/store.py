"""The store: checkpoints, results and refs in one folder, safe against crashes and against other writers.

.weightgate/
  store.json      format, hash and id of the store; written last, so a half-made folder is no store
  objects/        tensors and files
  manifests/      checkpoints
  results/        what each run of a stage gave
  journal/        every move of every ref
  claims/         what each recipe that builds here stands on
  tmp/  trash/    never read; what garbage collection took, kept for a while
  index.sqlite    can be rebuilt from the rest
  damage.json     what the last verification found
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weightgate.errors import CorruptError, StoreError
from weightgate.store.claims import Claims
from weightgate.store.collect import Ages, Collected, collect, sweep_temporaries, take_back, take_back_run
from weightgate.store.damage import recall_damage, remember_damage
from weightgate.store.digest import ALGORITHM, Buffer, canonical_json, digest_json, file_chunks, is_digest
from weightgate.store.fs import Fs, LocalFs, disk_errors, make_durable_folder, publish_temporary, write_temporary
from weightgate.store.holdings import Holdings
from weightgate.store.index import CHECKPOINTS_LIKE, RESULTS_BY_CHECKPOINT, RESULTS_BY_KEY, Index
from weightgate.store.journal import Journal, RefMove, history
from weightgate.store.objects import Clock, Shelf
from weightgate.store.records import PART_BYTES, Manifest, Result, TensorData, TensorEntry, tensor_bytes
from weightgate.store.unfinished import UnfinishedRun, clear_run, unfinished_runs
from weightgate.store.verify import Flaws, Problem, damaged_records, flaws_of, verify

FORMAT = 1
_FOLDERS = ("objects", "manifests", "results", "journal", "tmp", "trash")
_MEND_FORMAT = "remove it: the next weightgate build writes a new one"
_PREFIX = re.compile(rf"(?:{ALGORITHM}:)?([0-9a-f]{{6,64}})")


class Store:
    """A store at `root`. Make one with `Store.create` or `Store.open`; this constructor touches nothing."""

    def __init__(self, root: Path, *, fs: Fs, index: Index, clock: Clock) -> None:
        self.root = root
        self.fs = fs
        self.clock = clock
        self.objects = Shelf(fs=fs, root=root, name="objects", fan_out=True, clock=clock)
        self.manifests = Shelf(fs=fs, root=root, name="manifests", fan_out=False, clock=clock)
        self.result_records = Shelf(fs=fs, root=root, name="results", fan_out=False, clock=clock)
        self.journal = Journal(fs=fs, root=root, clock=clock)
        self.claims = Claims(fs=fs, root=root)
        self._index = index
        self._records = _Records(self)

    @classmethod
    def create(cls, root: Path, *, fs: Fs | None = None, index: Index | None = None, clock: Clock = time.time) -> Store:
        """Make a store at `root`, or open the one that is there. The folder above must exist.

        Raises `StoreError` where the disk refuses.
        """
        disk = fs or LocalFs()
        for folder in (root, *(root / name for name in _FOLDERS)):
            make_durable_folder(disk, folder)
        for name in ("objects", "manifests", "results"):
            make_durable_folder(disk, root / name / ALGORITHM)
        if "store.json" not in disk.names(root):  # a store that may only be read can be opened all the same
            about = {"format": FORMAT, "hash": "blake3", "id": secrets.token_hex(16)}
            about["digest"] = digest_json(about)
            temporary = write_temporary(disk, root / "tmp", (canonical_json(about),))
            publish_temporary(disk, temporary, root / "store.json")
        return cls.open(root, fs=fs, index=index, clock=clock)

    @classmethod
    def open(cls, root: Path, *, fs: Fs | None = None, index: Index | None = None, clock: Clock = time.time) -> Store:
        """Open the store at `root`. Raises `StoreError` where there is none, or one of a later format."""
        disk = fs or LocalFs()
        _check_format(disk, root / "store.json")
        return cls(root, fs=disk, index=index or Index(path=root / "index.sqlite"), clock=clock)

    # Objects

    def put_bytes(self, data: Buffer) -> str:
        """Keep bytes durably and return their digest. Raises `StoreError` when the disk is full."""
        return self.objects.put(data)

    def put_file(self, path: Path) -> str:
        """Keep a copy of a file durably and return its digest; the file itself is left alone.

        Raises `StoreError` when it cannot be read or the disk is full.
        """
        try:
            with path.open("rb") as file:
                return self.objects.put_chunks(file_chunks(file))
        except OSError as error:
            raise StoreError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error

    def get_bytes(self, digest: str) -> bytes:
        """Return an object's bytes, hashed again. Raises `CorruptError`, or `StoreError` where it is missing."""
        return bytes(self.objects.read(digest))

    def has(self, digest: str) -> bool:
        """Say whether an object is there. Its bytes are checked when they are read."""
        return self.objects.contains(digest)

    def put_tensors(self, tensors: Mapping[str, TensorData]) -> dict[str, TensorEntry]:
        """Keep tensors durably, each in parts of at most `PART_BYTES`, and return where they are."""
        return {name: self._put_tensor(tensor) for name, tensor in tensors.items()}

    def read_tensors(self, manifest: Manifest) -> Iterator[tuple[str, TensorData]]:
        """Yield each tensor's name and data, one in memory at a time, hashed again, in writable buffers.

        Raises `CorruptError` at the first that does not hash to its name, `StoreError` at the first that is missing.
        """
        for name, entry in manifest.tensors.items():
            yield name, TensorData(dtype=entry.dtype, shape=entry.shape, data=self._read_parts(entry))

    # Checkpoints and results

    def publish(self, manifest: Manifest) -> str:
        """Keep a checkpoint and return its id. Doing it twice is the same as once.

        Raises `StoreError` when an object, the parent or the reward model is not in the store: a manifest that can
        be seen is complete.
        """
        for digest, size_bytes in manifest.objects().items():
            self._require_object(digest, size_bytes)
        for ancestor in manifest.ancestors():
            self._require_checkpoint(ancestor)
        return self.manifests.put(manifest.to_bytes())

    def manifest(self, checkpoint: str) -> Manifest:
        """Return a checkpoint's manifest by its whole id. Raises `StoreError` or `CorruptError`."""
        return Manifest.from_json(json.loads(self.manifests.read(checkpoint)))

    def add_result(self, key: str, result: Result) -> str:
        """Keep what a run of the stage with this key gave, beside any earlier ones, and return the record's digest.

        Raises `StoreError` when the result's checkpoint is not in the store, `ValueError` when the keys differ.
        """
        if result.key != key:
            raise ValueError(f"a result of key {result.key} cannot be kept under {key}")
        self._require_checkpoint(result.checkpoint)
        return self.result_records.put(result.to_bytes())

    def results(self, key: str) -> list[Result]:
        """Return every result of one key, oldest first. Two that name different checkpoints are a finding."""
        return [self.read_result(digest) for digest in self._index.ask(RESULTS_BY_KEY, key, self._records)]

    def result_of(self, checkpoint: str) -> Result | None:
        """Return the newest result that names a checkpoint, or None."""
        digests = self._index.ask(RESULTS_BY_CHECKPOINT, checkpoint, self._records)
        return self.read_result(digests[-1]) if digests else None

    def lineage(self) -> list[Manifest]:
        """Return the manifests of all checkpoints, ancestors first, then by stage name and id."""
        return _ancestors_first({digest: self.manifest(digest) for digest in self.manifests.digests()})

    def readable_lineage(self) -> list[Manifest]:
        """Return what `lineage` does, manifests that are damaged left out; `damaged_records` names them."""
        found = {digest: self._records.manifest_or_none(digest) for digest in self.manifests.digests()}
        return _ancestors_first({digest: manifest for digest, manifest in found.items() if manifest is not None})

    def damaged_records(self) -> list[Problem]:
        """Return the records that cannot be read: of checkpoints, of results, and of the refs' history."""
        return damaged_records(self.holdings)

    # Refs

    def set_ref(self, name: str, new: str | None, *, old: str | None, why: str) -> None:
        """Move a ref from `old` (None: it is new) to the checkpoint `new` (None: remove it), durably.

        Raises `StoreError` when it does not stand at `old`, or `new` is not a whole checkpoint.
        """
        if new is not None:
            for digest, size_bytes in self._require_checkpoint(new).objects().items():
                self._require_object(digest, size_bytes)
        self.journal.move(name, new, old=old, why=why)

    def refs(self) -> dict[str, str]:
        """Return where every ref points. Raises `CorruptError` when their history is damaged."""
        return self.journal.refs()

    def ref_history(self, name: str) -> list[RefMove]:
        """Return every move of one ref, oldest first."""
        return list(history(self.journal.moves(), name))

    def resolve(self, text: str) -> str:
        """Return the checkpoint id that `text` means: a ref, a whole id, or a unique beginning of six digits or more.

        Raises `StoreError` naming what comes near.
        """
        refs = self.refs()
        if text in refs:
            return refs[text]
        if is_digest(text) and (self._is_listed(text) or take_back(self.holdings, text)):
            return text
        prefix = _PREFIX.fullmatch(text)
        found = self._index.ask(CHECKPOINTS_LIKE, f"{ALGORITHM}:{prefix[1]}*", self._records) if prefix else []
        if len(found) == 1:
            return found[0]
        raise _unresolved(text, found, list(refs))

    # Care

    @property
    def holdings(self) -> Holdings:
        """Everything that is worth checking or collecting."""
        return Holdings(
            objects=self.objects,
            manifests=self.manifests,
            results=self.result_records,
            journal=self.journal,
            claims=self.claims,
        )

    def is_empty(self) -> bool:
        """Say whether nothing has been kept here yet: no object, checkpoint, result or move of a ref."""
        shelves = (self.objects, self.manifests, self.result_records)
        return not self.journal.moves() and not any(any(shelf.digests()) for shelf in shelves)

    def verify(self, *, contents: bool) -> list[Problem]:
        """Return what is wrong with the store; with `contents`, every byte is read and hashed again.

        Damaged objects that reading everything brings to light are remembered for `flaws`.
        """
        problems = verify(self.holdings, contents=contents)
        if contents:
            remember_damage(self.fs, self.root, (each.digest for each in problems if is_digest(each.digest)))
        damage = self._index.damage(self._records) if contents else None
        if damage is not None:
            mend = "remove index.sqlite: the next question builds it again"
            problems.append(Problem(digest="index", what=f"the index is damaged: {damage}", mend=mend))
        return problems

    def flaws(self, checkpoint: str, *, contents: bool = False) -> Flaws:
        """Return what is missing or damaged in one checkpoint, what it was made from left aside.

        Without `contents` only lengths are compared, and what the last verification found damaged is hashed again.
        """
        return flaws_of(self.holdings, checkpoint, contents=contents, suspects=recall_damage(self.fs, self.root))

    def collect(self, ages: Ages | None = None, *, dry_run: bool = True) -> Collected:
        """Move to the trash what nothing needs, and empty old trash. See `collect.collect`."""
        with disk_errors(self.fs, self.root):
            return collect(self.holdings, ages or Ages(), dry_run=dry_run)

    def unfinished_runs(self, *, grace_seconds: float) -> list[UnfinishedRun]:
        """Return every run that has resume points, and whether they must stay. See `unfinished.unfinished_runs`."""
        return unfinished_runs(self.holdings, self._has_given, grace_seconds=grace_seconds)

    def clear_run(self, key: str) -> None:
        """Remove the resume points of one run. Raises `StoreError` where the disk refuses."""
        with disk_errors(self.fs, self.root):
            clear_run(self.holdings, key)

    def take_back_run(self, key: str) -> bool:
        """Bring back from the trash what a run with this key gave; say whether there was anything."""
        with disk_errors(self.fs, self.root):
            return take_back_run(self.holdings, key)

    def sweep_temporaries(self) -> int:
        """Remove the temporaries of processes of this host that are gone; return how many bytes that freed."""
        return sweep_temporaries(self.fs, self.root, dry_run=False)

    def discard_damaged_results(self) -> list[str]:
        """Move results whose bytes changed to the trash, and return their digests; what they told must be found again.

        Nothing can give them back: times and costs are never the same twice.
        """
        damaged = [each for each in self.result_records.digests() if not self._is_readable(each)]
        today = datetime.fromtimestamp(self.clock(), UTC).date().isoformat()
        for digest in damaged:
            self.result_records.discard(digest, today)
        return damaged

    def _is_readable(self, result: str) -> bool:
        try:
            self.read_result(result)
        except (CorruptError, ValueError):
            return False
        return True

    def _has_given(self, key: str) -> bool:
        """Say whether a run has given a checkpoint that is there."""
        return any(self.manifests.locate(result.checkpoint) is not None for result in self.results(key))

    def _is_listed(self, checkpoint: str) -> bool:
        return self.manifests.locate(checkpoint) == self.manifests.path(checkpoint)

    def rebuild_index(self) -> None:
        """Throw the index away and build it again from the files."""
        self._index.clear()
        self._index.ask(RESULTS_BY_KEY, "", self._records)

    def _put_tensor(self, tensor: TensorData) -> TensorEntry:
        view = tensor.view()
        starts = range(0, max(1, view.nbytes), PART_BYTES)
        parts = tuple(self.objects.put(view[start : start + PART_BYTES]) for start in starts)
        return TensorEntry(dtype=tensor.dtype, shape=tensor.shape, parts=parts)

    def _read_parts(self, entry: TensorEntry) -> bytearray:
        if len(entry.parts) == 1:
            return self.objects.read(entry.parts[0])
        whole = bytearray(tensor_bytes(entry.dtype, entry.shape))
        for number, part in enumerate(entry.parts):
            start = number * PART_BYTES
            whole[start : start + PART_BYTES] = self.objects.read(part)
        return whole

    def _require_object(self, digest: str, size_bytes: int | None) -> None:
        found = self.objects.size_bytes(digest)
        if size_bytes is not None and found != size_bytes:
            raise CorruptError(
                "an object does not have the length that its tensor needs",
                where=str(self.objects.path(digest)),
                expected=f"{size_bytes} bytes",
                found=f"{found} bytes",
                mend="store the tensor again: the damaged copy is replaced",
            )
        self.objects.confirm(digest)

    def _require_checkpoint(self, checkpoint: str) -> Manifest:
        manifest = self.manifest(checkpoint)
        self.manifests.confirm(checkpoint)
        return manifest

    def read_result(self, digest: str) -> Result:
        """Return one result by the digest that `add_result` gave. Raises `StoreError` or `CorruptError`."""
        return Result.from_json(json.loads(self.result_records.read(digest)))


class _Records:
    """A store as its index sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def manifest_names(self) -> Iterator[str]:
        return self._store.manifests.digests()

    def result_names(self) -> Iterator[str]:
        return self._store.result_records.digests()

    def manifest_or_none(self, name: str) -> Manifest | None:
        with contextlib.suppress(StoreError, ValueError):
            return self._store.manifest(name)
        return None

    def result_or_none(self, name: str) -> Result | None:
        with contextlib.suppress(StoreError, ValueError):
            return self._store.read_result(name)
        return None


def _check_format(fs: Fs, path: Path) -> None:
    try:
        about = json.loads(fs.read(path))
    except FileNotFoundError:
        raise StoreError("there is no store here", where=str(path.parent), mend="build something first") from None
    except OSError as error:
        raise StoreError(
            "this is no store",
            where=str(path.parent),
            found=error.strerror or str(error),
            mend="name the folder that weightgate build made",
        ) from None
    except ValueError as error:
        raise CorruptError("store.json cannot be read", where=str(path), found=str(error), mend=_MEND_FORMAT) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise StoreError(
            "this store was made by another version",
            where=str(path),
            expected=f"format {FORMAT}",
            found=f"format {about.get('format') if isinstance(about, dict) else about!r}",
            mend="update weightgate",
        )
    _check_unchanged(about, path)


def _check_unchanged(about: dict[str, Any], path: Path) -> None:
    """Raise `CorruptError` where store.json is not what was written. The first stores had no digest in theirs."""
    claimed = about.get("digest")
    if claimed is not None and claimed != digest_json({name: about[name] for name in about if name != "digest"}):
        raise CorruptError(
            "store.json is not what was written",
            where=str(path),
            mend=_MEND_FORMAT,
        )


def _ancestors_first(manifests: dict[str, Manifest]) -> list[Manifest]:
    ordered: dict[str, Manifest] = {}
    for digest in sorted(manifests, key=lambda each: (manifests[each].stage, each)):
        _add_with_ancestors(digest, manifests, ordered)
    return list(ordered.values())


def _add_with_ancestors(digest: str, manifests: dict[str, Manifest], ordered: dict[str, Manifest]) -> None:
    """Add a checkpoint after its ancestors. A lineage can be long, so no recursion."""
    waiting = [digest]
    while waiting:
        missing = [each for each in manifests[waiting[-1]].ancestors() if each in manifests and each not in ordered]
        if missing:
            waiting.extend(missing)
        else:
            done = waiting.pop()
            ordered[done] = manifests[done]


def _unresolved(text: str, found: list[str], refs: list[str]) -> StoreError:
    if found:
        listed = ", ".join(each[: len(ALGORITHM) + 13] for each in found[:5])
        return StoreError(f"{text!r} could mean {len(found)} checkpoints", found=listed, mend="give more digits")
    near = difflib.get_close_matches(text, refs, n=3, cutoff=0.4) or refs[:5]
    return StoreError(
        f"no checkpoint is called {text!r}",
        expected="a ref, a checkpoint id, or at least six digits of one",
        found=f"refs: {', '.join(near)}" if near else "the store has no refs yet",
        mend="give one of these, or the digits that `weightgate log` shows",
    )
