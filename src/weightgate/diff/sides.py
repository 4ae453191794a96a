"""Two targets compared: what is no recording yet is asked, its answers are kept, then `judge` compares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from weightgate.diff.compare import Comparison
from weightgate.diff.junit import comparison_junit
from weightgate.diff.page import comparison_page
from weightgate.diff.weights import WeightEvidence, weight_evidence
from weightgate.errors import DataError, UserError
from weightgate.probe.addresses import Address, ModelAddress, RecordingAddress
from weightgate.probe.inquiry import Inquiry, LoadModel, asker_of, inquiry_like
from weightgate.probe.recording import Snapshot
from weightgate.probe.snapshot import Asker, Observer, take_snapshot, unobserved
from weightgate.probe.snapshot_file import is_finished, load_snapshot
from weightgate.probe.suites import suite_digest
from weightgate.report.html import render_html
from weightgate.store.digest import digest_bytes
from weightgate.store.records import TensorData

ReadWeights = Callable[[ModelAddress], Iterable[tuple[str, TensorData]]]
"""Reads the tensors of a checkpoint or folder. Given from outside, because it needs torch and this does not."""

_NAME_DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Turns targets into recordings: loads those that are, asks the others and keeps their answers in `folder`."""

    folder: Path
    inquiry: Inquiry
    load_model: LoadModel
    observer: Observer = unobserved

    def both(self, before: Address, after: Address) -> tuple[Snapshot, Snapshot]:
        """Return the recordings of two targets.

        What is asked is what the other side was asked, where that is a recording, else the inquiry. Raises whatever
        reading or asking raises; answers that came before an error are kept, and the same call goes on with them.
        """
        loaded = [load_snapshot(side.path) if isinstance(side, RecordingAddress) else None for side in (before, after)]
        for silent in (one for one in loaded if one is not None and not one.completions):
            raise DataError("not one question was answered", where=silent.target.place, found=_first_error(silent))
        known = next((snapshot for snapshot in loaded if snapshot is not None), None)
        inquiry = self.inquiry if known is None else inquiry_like(known, self.inquiry.decoding)
        first = loaded[0] or self.asked(before, "before", inquiry)
        return first, loaded[1] or self.asked(after, "after", inquiry)

    def again(self, sides: Sequence[Address], recorded: Sequence[Snapshot]) -> Snapshot:
        """Ask the last side that is no recording once more, in the same way: the A/A. Raises `DataError` for none."""
        for address, snapshot in zip(reversed(sides), reversed(recorded), strict=True):
            if not isinstance(address, RecordingAddress):
                return self.asked(address, "again", inquiry_like(snapshot, self.inquiry.decoding))
        raise DataError("both sides are recordings, so there is nobody to ask again", mend="--a-a FILE")

    def asked(self, address: Address, name: str, inquiry: Inquiry) -> Snapshot:
        """Ask a target everything, into a new file of the folder or one that was begun. `name` begins the file's."""
        asker = asker_of(address, inquiry, self.load_model)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                "no folder can be made here", where=str(self.folder), found=error.strerror, mend="--keep FOLDER"
            ) from None
        taken = take_snapshot(
            asker,
            inquiry.suite,
            _open_file(self.folder, name, asker, inquiry),
            decoding=inquiry.decoding,
            suite_name=inquiry.suite_name,
            observer=self.observer,
        )
        if not taken.completions:
            raise DataError("not one question was answered", where=taken.target.place, found=_first_error(taken))
        return taken


def compared_weights(before: Address, after: Address, read_weights: ReadWeights) -> WeightEvidence | None:
    """Return what the tensors of both sides show, where both are checkpoints or folders."""
    if isinstance(before, ModelAddress) and isinstance(after, ModelAddress):
        return weight_evidence(dict(read_weights(before)), read_weights(after))
    return None


def write_reports(found: Comparison, *, html: Path | None, junit: Path | None) -> None:
    """Write the reports that are wanted. Raises `UserError` where a file cannot be written."""
    if html is not None:
        _write(html, render_html(comparison_page(found)))
    if junit is not None:
        _write(junit, comparison_junit(found))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError("the report cannot be written", where=str(path), found=error.strerror) from None


def _open_file(folder: Path, name: str, asker: Asker, inquiry: Inquiry) -> Path:
    """First file for these questions that is not finished: a finished one holds how the target was, not how it is."""
    asked = [asdict(asker.description), suite_digest(inquiry.suite.probes), asdict(asker.decoding(inquiry.decoding))]
    told = digest_bytes(json.dumps(asked, sort_keys=True).encode()).partition(":")[2][:_NAME_DIGITS]
    model = re.sub(r"[^A-Za-z0-9._]+", "-", asker.description.model).strip("-.")[:40] or "model"
    number = 1
    while (path := folder / f"{name}-{model}-{told}-{number}.jsonl").exists() and is_finished(path):
        number += 1
    return path


def _first_error(snapshot: Snapshot) -> str | None:
    return next((answer.reply.error for answer in snapshot.answers if answer.reply.error is not None), None)
