"""A watch from the command line, against a real endpoint in a process of its own."""

from __future__ import annotations

from conftest import Scene


def test_a_change_alarms_once_and_a_new_baseline_ends_it(scene: Scene) -> None:
    scene.configure(alarm={"file": "alarm.json", "webhooks": [{"url": f"{scene.address}/hook"}]})
    assert scene.once()["state"] == "baseline"
    for _ in range(3):
        assert scene.once()["state"] == "quiet"
    scene.behave(refuses=0.9)
    outcomes = [scene.once() for _ in range(4)]
    assert [one["state"] for one in outcomes[-2:]] == ["alarm", "alarm"]
    print(outcomes[-1]["message"])
