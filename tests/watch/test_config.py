"""The configuration of a watch: what is refused, where, and with which mend."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from weightgate.errors import WatchError
from weightgate.strict_yaml import parse_strict
from weightgate.watch import WatchConfig, load_config, write_template
from weightgate.watch.template import TEMPLATE


def _parsed(**changes: Any) -> WatchConfig:
    data = yaml.safe_load(TEMPLATE)
    for dotted, value in changes.items():
        part = data
        *path, last = dotted.split("__")
        for key in path:
            part = part[key]
        part[last] = value
    text = yaml.safe_dump(data)
    return parse_strict(text, WatchConfig, origin="watch.yaml", noun="configuration", error=WatchError)


def test_the_template_is_a_configuration_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "watch.yaml"
    write_template(path)
    assert load_config(path).name == "my-endpoint"
    with pytest.raises(WatchError, match="there is a configuration already"):
        write_template(path)
    with pytest.raises(WatchError) as caught:
        load_config(tmp_path / "none.yaml")
    assert caught.value.mend == f"weightgate watch {tmp_path / 'none.yaml'} --init"


def test_an_unknown_key_names_its_line_and_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "watch.yaml"
    path.write_text(TEMPLATE.replace("  persistence: 2 ", "  persistance: 2 "))
    with pytest.raises(WatchError) as caught:
        load_config(path)
    line = next(at for at, text in enumerate(path.read_text().splitlines(), start=1) if "persistance" in text)
    assert caught.value.where == f"{path}:{line} (alarm.persistance)"
    assert caught.value.mend == "did you mean 'persistence'?"


@given(st.floats(1, 1e6).map(lambda value: round(value, 3)), st.sampled_from([("s", 1), ("min", 60), ("h", 3600)]))
def test_a_duration_is_read_in_its_unit(number: float, unit: tuple[str, int]) -> None:
    assert _parsed(every=f"{number:f}{unit[0]}").interval_seconds == pytest.approx(number * unit[1])


@given(st.text(max_size=8))
def test_what_is_no_duration_is_refused_or_at_least_a_second(text: str) -> None:
    with suppress(WatchError):
        assert _parsed(every=text).interval_seconds >= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"history": {"url": "postgresql://me:secret@host/db"}}, "carries a password"),
        ({"history": {"url": "postgresql://host/db?password=secret"}}, "carries a password"),
        ({"history": {"url": "mysql://host/db"}}, "SQLite file or a postgresql"),
        ({"history": {}}, "needs `url` or `url_variable`"),
        ({"ask": {"suite": "core", "prompts": "my.jsonl"}}, "and not both"),
        ({"alarm__webhooks": [{"url": "http://example.org/hook"}]}, "https://"),
        ({"alarm__webhooks": [{"url": "https://user@example.org/hook"}]}, "no user name"),
        ({"alarm__webhooks": [{"url_variable": "A"}, {"url_variable": "A"}]}, "the same address"),
        ({"budget": {"money_per_day": 1.0}}, "needs target.price"),
        ({"report": "./watch.db"}, "two keys name the file './watch.db'"),
        ({"alarm__file": "alarm.html", "alarm__report": "alarm.html"}, "two keys name the file"),
        ({"every": "0.1s"}, "at least 1s"),
        ({"name": "../other"}, "pattern"),
        ({"alarm__alpha": 0.0}, "greater than 0"),
        ({"baseline": {"snapshots": 1}}, "greater than or equal to 2"),
        ({"version": 2}, "Input should be 1"),
    ],
)
def test_what_makes_no_sense_is_refused_without_showing_a_secret(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WatchError) as caught:
        _parsed(**changes)
    assert said in caught.value.what
    assert "secret" not in str(caught.value)


def test_a_secret_url_is_read_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = _parsed(alarm__webhooks=[{"url_variable": "HOOK_URL"}]).alarm.webhooks[0]
    with pytest.raises(WatchError, match="HOOK_URL is not set"):
        webhook.address()
    monkeypatch.setenv("HOOK_URL", "https://chat.example/T0/SECRET")
    assert webhook.address() == "https://chat.example/T0/SECRET"
    assert webhook.label == "$HOOK_URL"
    monkeypatch.setenv("HOOK_URL", "http://chat.example/T0/SECRET")
    with pytest.raises(WatchError) as caught:
        webhook.address()
    assert "SECRET" not in str(caught.value)
