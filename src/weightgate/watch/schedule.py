"""A watch on a schedule: look when it is due, and notice between looks that the configuration was changed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType

from weightgate.errors import UserError, WatchError
from weightgate.watch.config import WatchConfig
from weightgate.watch.history import History
from weightgate.watch.outbox import deliver
from weightgate.watch.run import Outcome, Watch, age_seconds, look_once, opened, require_same_questions

WAKE_SECONDS = 15.0
"""Between looks it wakes so often: for letters that are due, a changed configuration, and clocks that were set."""

Tell = Callable[[Outcome | UserError], None]


def run_on_schedule(path: Path, tell: Tell) -> None:
    """Look again and again until a signal to stop. A look under way is left open and gone on with at the next start.

    A mistake at the first look is raised; later ones are told, and the look is tried again: in a minute where it was
    not finished, else when the next one is due. A configuration that was changed is in force from the next look on,
    unless it cannot be used: then that is told once, and the one before it stays in force.
    """
    in_force, stop, looked = InForce(path=path, tell=tell, watch=Watch.read(path)), Event(), False
    with _stopping(stop):
        while not stop.is_set():
            try:
                with opened(in_force.watch) as history:
                    for outcome in _looks(in_force, history, stop):
                        tell(outcome)
                        looked = True
            except UserError as error:
                if not looked:
                    raise
                tell(error)
                stop.wait(min(in_force.watch.config.interval_seconds, 60.0))
                in_force.read_again(None)
            except KeyboardInterrupt:
                return


@dataclass(kw_only=True)
class InForce:
    """The configuration by which looks are taken, its file, and what is wrong with the file by now, where it is."""

    path: Path
    tell: Tell
    watch: Watch
    wrong: str = ""

    def read_again(self, history: History | None) -> None:
        """Put a file that was changed in force, and tell it; one that cannot be used is told once and left alone.

        `history` is the one that is open, if any.
        """
        wrong = ""
        try:
            fresh = Watch.read(self.path)
            if fresh != self.watch:
                self._require_usable(fresh, history)
                changed, self.watch = _changed(self.watch, fresh), fresh
                self.tell(
                    Outcome(state="configured", message=f"the configuration was read again: {changed}", exit_code=0)
                )
        except UserError as error:
            wrong = str(error)
            if wrong != self.wrong:
                self.tell(_refusal(error))
        self.wrong = wrong

    def _require_usable(self, fresh: Watch, history: History | None) -> None:
        fresh.config.target.headers()
        old, new = self.watch.config, fresh.config
        if history is not None and (old.name, old.history) == (new.name, new.history):
            _require_same_baseline(fresh, history)
        else:
            with opened(fresh) as other:
                _require_same_baseline(fresh, other)


def _require_same_baseline(watch: Watch, history: History) -> None:
    baseline = history.baseline()
    if baseline is not None:
        require_same_questions(watch, baseline)


def _changed(old: Watch, new: Watch) -> str:
    """Which keys of the configuration differ, in words; where none does, the questions do."""
    keys = [key for key in WatchConfig.model_fields if getattr(old.config, key) != getattr(new.config, key)]
    return f"{', '.join(keys) or 'the questions'} changed"


def _refusal(error: UserError) -> WatchError:
    return WatchError(
        "the changed configuration is not used; the one before it stays in force",
        where=error.where,
        expected=error.expected,
        found=error.what if error.found is None else f"{error.what}: {error.found}",
        mend=error.mend,
    )


def _looks(in_force: InForce, history: History, stop: Event) -> Iterator[Outcome]:
    """Take a look whenever one is due, until it is stopped or another configuration is in force."""
    watch = in_force.watch
    seconds = _seconds_until_due(watch, history)
    while _wait(in_force, history, stop, seconds) and in_force.watch is watch:
        started = time.monotonic()
        yield look_once(watch, history)
        seconds = watch.config.interval_seconds - (time.monotonic() - started)


@contextmanager
def _stopping(stop: Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the watch: between looks at once, within a look as an interrupt."""

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        stop.set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(in_force: InForce, history: History, stop: Event, seconds: float) -> bool:
    """Wait on a clock that nobody can set, or until the wall clock says that the time is over (after a suspend).

    Another configuration ends it too. Returns whether the watch goes on.
    """
    watch = in_force.watch
    until, wall_until = time.monotonic() + seconds, time.time() + seconds
    in_force.read_again(history)
    while in_force.watch is watch and not stop.is_set():
        left = min(until - time.monotonic(), wall_until - time.time())
        if left <= 0:
            break
        stop.wait(min(left, WAKE_SECONDS))
        if not stop.is_set():
            deliver(history, watch.config.alarm.webhooks)
            in_force.read_again(history)
    return not stop.is_set()


def _seconds_until_due(watch: Watch, history: History) -> float:
    """Rest of the pause after the newest look; none where the clock was set since, or a look is open."""
    newest = history.looks(limit=1)
    if not newest or newest[0].state in ("open", "abandoned") or newest[0].kind == "baseline":
        return 0.0
    age = age_seconds(newest[0])
    return watch.config.interval_seconds - age if 0 <= age < watch.config.interval_seconds else 0.0
