"""A disk in memory that remembers what a loss of power would leave of it.

Every operation that changes the disk is counted, and a copy of the disk is kept before each. `survivors` turns a copy
into the disks that a crash at that moment may leave behind:

* the process dies: everything is kept, for the kernel still has it;
* the power goes: of each file only what was written before its last fsync is sure, of each folder only the names it
  had at its last fsync. What came later may be there, whole, torn at 512 bytes or as zeros, or not be there.
"""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512


@dataclass
class File:
    data: bytes = b""
    durable: bytes = b""
    modified: float = 0.0


@dataclass
class Folder:
    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)


class CrashFs:
    """The modelled disk. With `keep_history` a copy of it is kept before each operation, for `survivors`."""

    def __init__(
        self, *, keep_history: bool = False, capacity_bytes: int = 1 << 40, root: Folder | None = None
    ) -> None:
        self.root = root or Folder()
        self.keep_history = keep_history
        self.capacity_bytes = capacity_bytes
        self.history: list[Folder] = []
        self.operations = 0
        self.fail_at: int | None = None
        self.failure = errno.ENOSPC
        self.before_link: Callable[[Path], None] = lambda target: None

    # What the store uses

    def create(self, path: Path, mode: int) -> Writer:
        self._operation()
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        file = folder.names[path.name] = File(modified=1e9)
        return Writer(self, file)

    def link(self, source: Path, target: Path) -> None:
        self.before_link(target)
        self._operation()
        file = self._file(source)
        folder = self._folder(target.parent)
        if target.name in folder.names:
            raise FileExistsError(errno.EEXIST, "exists", str(target))
        folder.names[target.name] = file

    def replace(self, source: Path, target: Path) -> None:
        self._operation()
        self._folder(target.parent).names[target.name] = self._file(source)
        del self._folder(source.parent).names[source.name]

    def unlink(self, path: Path) -> None:
        self._operation()
        self._file(path)
        del self._folder(path.parent).names[path.name]

    def make_folder(self, path: Path) -> None:
        self._operation()
        self._folder(path.parent).names.setdefault(path.name, Folder())

    def remove_folder(self, path: Path) -> None:
        self._operation()
        if self._folder(path).names:
            raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        del self._folder(path.parent).names[path.name]

    def fsync_folder(self, path: Path) -> None:
        self._operation()
        folder = self._folder(path)
        folder.durable = dict(folder.names)

    def read(self, path: Path) -> bytearray:
        return bytearray(self._file(path).data)

    def open(self, path: Path) -> io.BytesIO:
        return io.BytesIO(self._file(path).data)

    def names(self, path: Path) -> list[str]:
        try:
            return sorted(self._folder(path).names)
        except FileNotFoundError:
            return []

    def size_bytes(self, path: Path) -> int:
        return len(self._file(path).data)

    def modified_seconds(self, path: Path) -> float:
        return self._file(path).modified

    def touch(self, path: Path, seconds: float) -> None:
        self._operation()
        self._file(path).modified = seconds

    def free_bytes(self, path: Path) -> int:
        return self.capacity_bytes - sum(len(file.data) for file in _files(self.root))

    # What tests use

    def overwrite(self, path: Path, data: bytes) -> None:
        """Damage a file behind the store's back."""
        file = self._file(path)
        file.data = file.durable = data

    def fsync_file(self, file: File) -> None:
        self._operation()
        file.durable = file.data

    def append(self, file: File, data: bytes) -> None:
        self._operation()
        kept = data[: max(0, self.free_bytes(Path()))]
        file.data += kept
        if len(kept) < len(data):
            raise OSError(errno.ENOSPC, "full")

    def _operation(self) -> None:
        if self.keep_history:
            self.history.append(copy_of(self.root, {}))
        self.operations += 1
        if self.operations == self.fail_at:
            raise OSError(self.failure, "made to fail")

    def _folder(self, path: Path) -> Folder:
        folder: File | Folder = self.root
        for part in path.parts[1:]:
            if not isinstance(folder, Folder) or part not in folder.names:
                raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
            folder = folder.names[part]
        assert isinstance(folder, Folder)
        return folder

    def _file(self, path: Path) -> File:
        file = self._folder(path.parent).names.get(path.name)
        if not isinstance(file, File):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file


class Writer:
    def __init__(self, fs: CrashFs, file: File) -> None:
        self.fs = fs
        self.file = file

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.fs.append(self.file, bytes(data))

    def fsync(self) -> None:
        self.fs.fsync_file(self.file)

    def close(self) -> None:
        pass


def copy_of(entry: Folder, copies: dict[int, File | Folder]) -> Folder:
    """Copy a disk; a file with two names stays one file."""

    def copied(each: File | Folder) -> File | Folder:
        if id(each) not in copies:
            if isinstance(each, File):
                copies[id(each)] = File(each.data, each.durable, each.modified)
            else:
                copies[id(each)] = twin = Folder()
                twin.names = {name: copied(item) for name, item in each.names.items()}
                twin.durable = {name: copied(item) for name, item in each.durable.items()}
        return copies[id(each)]

    result = copied(entry)
    assert isinstance(result, Folder)
    return result


def survivors(disk: Folder, *, num_random: int, seed: int) -> Iterator[tuple[str, CrashFs]]:
    """Yield the disks that a crash may leave: the named extremes, then `num_random` arbitrary legal mixtures."""
    yield "process killed", _survivor(disk, lambda sure, now: now, lambda file: file.data)
    yield "nothing unflushed", _survivor(disk, lambda sure, now: sure, lambda file: file.durable)
    yield "names without data", _survivor(disk, lambda sure, now: now, lambda file: file.durable)
    yield "names with torn data", _survivor(disk, lambda sure, now: now, _torn)
    yield "names with zeros", _survivor(disk, lambda sure, now: now, _zeros)
    for number in range(num_random):
        dice = random.Random(seed * 1000 + number)
        yield f"mixture {number}", _mixture(disk, dice)


def _mixture(disk: Folder, dice: random.Random) -> CrashFs:
    def names(sure: dict[str, File | Folder], now: dict[str, File | Folder]) -> dict[str, File | Folder]:
        kept = {}
        for name in sorted({*sure, *now}):
            entry = dice.choice((sure, now)).get(name)
            if entry is not None:
                kept[name] = entry
        return kept

    def data(file: File) -> bytes:
        return dice.choice((file.data, file.durable, _torn(file), _zeros(file)))

    return _survivor(disk, names, data)


def _survivor(
    disk: Folder,
    choose_names: Callable[[dict[str, File | Folder], dict[str, File | Folder]], dict[str, File | Folder]],
    choose_data: Callable[[File], bytes],
) -> CrashFs:
    files: dict[int, File] = {}

    def left(entry: File | Folder) -> File | Folder:
        if isinstance(entry, Folder):
            names = {name: left(item) for name, item in choose_names(entry.durable, entry.names).items()}
            return Folder(names, dict(names))
        if id(entry) not in files:
            data = choose_data(entry)
            files[id(entry)] = File(data, data, entry.modified)
        return files[id(entry)]

    root = left(disk)
    assert isinstance(root, Folder)
    return CrashFs(root=root)


def _torn(file: File) -> bytes:
    """Return the first half of what was not flushed, in whole sectors as far as it has any."""
    unflushed = len(file.data) - len(file.durable)
    half = unflushed // 2
    kept = half - half % SECTOR_BYTES if half >= SECTOR_BYTES else half
    return file.data[: len(file.durable) + kept]


def _zeros(file: File) -> bytes:
    return file.durable + bytes(len(file.data) - len(file.durable))


def _files(folder: Folder) -> Iterator[File]:
    seen: dict[int, File] = {}
    waiting: list[File | Folder] = [folder]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, File):
            seen[id(entry)] = entry
        else:
            waiting.extend(entry.names.values())
    return iter(seen.values())
