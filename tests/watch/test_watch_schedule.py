"""A watch on a schedule: it ends with a signal, outlives what goes wrong, and notices a changed configuration."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from scene import CALM, Scene, calm

from eventually import LIMIT_SECONDS
from weightgate.errors import UserError, WatchError
from weightgate.watch import Outcome, Watch, run_on_schedule, schedule

Told = list[Outcome | UserError]


def test_the_schedule_ends_with_a_signal_and_goes_on_afterwards(scene: Scene) -> None:
    calm(scene, looks=0)
    scene.configure(every="1s")
    for number in (signal.SIGTERM, signal.SIGINT):
        process = scene.process("--json")
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]  # type: ignore[union-attr]
        process.send_signal(number)
        _, err = process.communicate(timeout=LIMIT_SECONDS)
        assert (process.returncode, err) == (0, "")
        assert [line["state"] for line in lines] == ["quiet", "quiet"]
    with scene.history() as history:
        assert len(history.looks(state="done", kind="look")) >= 4


def test_the_schedule_outlives_an_outage(scene: Scene) -> None:
    calm(scene, looks=0)
    scene.configure(every="1s")
    scene.behave(status=503)
    process = scene.process("--json")
    assert json.loads(process.stdout.readline())["state"] == "outage"  # type: ignore[union-attr]
    scene.behave(**CALM)
    # Whoever is held up before the line above reads of some more outages first.
    states = (json.loads(line)["state"] for line in process.stdout)  # type: ignore[union-attr]
    assert next(state for state in states if state != "outage") == "quiet"
    process.terminate()
    process.communicate(timeout=LIMIT_SECONDS)


class _Impatient(threading.Event):
    """Does not wait."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_after_a_mistake_the_schedule_asks_no_sooner_than_the_next_look_is_due(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what goes wrong behind a look would make it look every minute, and pay for it."""
    calm(scene, looks=1)
    scene.configure(every="1h")
    waits: list[float] = []
    outcomes = iter([Outcome(state="quiet", message="", exit_code=0), WatchError("later"), KeyboardInterrupt()])

    def look(*_: object) -> Outcome:
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(schedule, "Event", _Impatient)
    monkeypatch.setattr(schedule, "look_once", look)
    monkeypatch.setattr(schedule, "_wait", lambda *arguments: waits.append(arguments[-1]) or True)
    told: list[object] = []
    run_on_schedule(scene.path, told.append)
    assert len(told) == 2
    assert [wait > 3_000 for wait in waits] == [True, True, True]  # before each of the three looks


def _run(scene: Scene, *acts: Callable[[], object]) -> Told:
    """Run the schedule here; each act follows when something was told, in turn, and then it is stopped."""
    told: Told = []
    todo: Iterator[Callable[[], object]] = iter(acts)

    def tell(one: Outcome | UserError) -> None:
        told.append(one)
        next(todo, lambda: signal.raise_signal(signal.SIGTERM))()

    run_on_schedule(scene.path, tell)
    return told


@pytest.fixture
def impatient(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A watch that looks once an hour, and between looks sees at once that its file was changed."""
    monkeypatch.setattr(schedule, "WAKE_SECONDS", 0.01)
    calm(scene, looks=0)
    scene.configure(every="1h")
    return scene


def test_a_changed_configuration_is_in_force_from_the_next_look_on(impatient: Scene) -> None:
    scene = impatient
    told = _run(
        scene,
        lambda: scene.configure(every="1s", report="status.html"),
        lambda: None,
        lambda: None,
    )
    assert [one.state for one in told if isinstance(one, Outcome)] == ["quiet", "configured", "quiet", "quiet"]
    assert "every, report changed" in str(told[1])
    assert (scene.folder / "status.html").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda scene: scene.path.write_text("version: 1\nname: mo", encoding="utf-8"), "Field required"),
        (lambda scene: scene.path.unlink(), "there is no configuration of the watch here"),
        (lambda scene: scene.configure(ask={"max_tokens": 8}), "another target or other decoding"),
        (lambda scene: scene.configure(ask={"suite": "none.jsonl"}), "none.jsonl"),
        (lambda scene: scene.configure(target={"api_key_variable": "KEY_OF_NOBODY"}), "KEY_OF_NOBODY"),
        (lambda scene: scene.configure(history={"url": "missing/watch.db"}), "the history cannot be used"),
    ],
)
def test_a_changed_configuration_that_cannot_be_used_is_told_and_not_used(
    impatient: Scene, spoil: Callable[[Scene], object], said: str
) -> None:
    scene, good = impatient, dict(impatient.config)

    def mend() -> None:
        scene.config = dict(good)
        scene.configure(every="2h")

    quiet, refused, configured = _run(scene, lambda: spoil(scene), mend)
    assert isinstance(quiet, Outcome)
    assert isinstance(refused, WatchError)
    assert refused.what == "the changed configuration is not used; the one before it stays in force"
    assert said in str(refused)
    assert isinstance(configured, Outcome)
    assert configured.message == "the configuration was read again: every changed"


def test_a_watch_may_move_to_another_history_and_takes_its_baseline_there(impatient: Scene) -> None:
    scene = impatient
    told = _run(scene, lambda: scene.configure(history={"url": "other.db"}), lambda: None)
    assert [one.state for one in told if isinstance(one, Outcome)] == ["quiet", "configured", "baseline"]
    assert (scene.folder / "other.db").exists()


def test_the_same_mistake_is_told_once_and_again_after_it_was_mended(scene: Scene) -> None:
    told: Told = []
    in_force = schedule.InForce(path=scene.path, tell=told.append, watch=Watch.read(scene.path))
    right = scene.path.read_text(encoding="utf-8")
    for text, so_far in ((right, 0), ("evry: 1h", 1), ("evry: 1h", 1), (right, 1), ("evry: 1h", 2), ("evr: 1h", 3)):
        scene.path.write_text(text, encoding="utf-8")
        in_force.read_again(None)
        assert len(told) == so_far
