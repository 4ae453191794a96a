"""A real browser opens the status page of a watch: what a person on call sees, and what hostile text cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import Scene

from browser import BROWSER, listener, opened

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


def _payload(address: str) -> str:
    """Every way out of an element that would fetch from an address, or change the title."""
    return "".join(
        (
            f"</style><style>@import url('{address}/style');</style>",
            f"</title></svg></table></details><img src={address}/img onerror=\"document.title='owned'\">",
            f"<script src={address}/script></script><script>document.title='owned'</script>",
            f"<link rel=stylesheet href={address}/link><iframe src={address}/frame></iframe>",
            f'<meta http-equiv=refresh content="0;url={address}/refresh"><base href={address}/>',
            f"![x]({address}/markdown) `{address}/code` ' onload='x' \" onmouseover=\"x",
            "\x1b[31m\u202e",
        )
    )


@pytest.fixture
def alarmed(scene: Scene) -> Iterator[Scene]:
    """A watch with an alarm, an outage and a look after it; 19 of 20 instead of 1 of 20 requests are declined."""
    scene.configure(alarm={"alpha": 0.001}, report="status.html")
    scene.behave(refuses=0.05)
    states = [scene.once()["state"] for _ in range(4)]
    scene.behave(status=503)
    states.append(scene.once()["state"])
    scene.behave(refuses=0.95)
    states += [scene.once()["state"] for _ in range(4)]
    assert states[:5] == ["baseline", "quiet", "quiet", "quiet", "outage"]
    assert states[-1] == "alarm"
    return scene


def test_a_person_on_call_sees_what_moved_since_when_and_what_to_do(alarmed: Scene, tmp_path: Path) -> None:
    document, complaints = opened(alarmed.folder / "status.html", tmp_path / "profile")
    assert complaints == []
    standing = document[: document.index('<section class="section"')]
    assert "boundary.should_answer fell from" in standing
    assert "--acknowledge" in standing
    with alarmed.history() as history:
        followed = set(history.state(history.baseline().number).tested)
    charts = re.findall(r"<figcaption><strong>(.*?)</strong>", document)
    assert set(charts) == {*followed, "Evidence of a change"}
    assert document.count('<svg class="area"') == len(charts)
    assert document.count('class="lost"') == len(followed), "the outage is no value of any axis"
    assert "alarm 1" in document
    for heading in ("Alarms", "Axes", "Timeline", "Looks", "Set-up"):
        assert f"<h2>{heading}" in document


def test_hostile_names_and_completions_stay_text_and_fetch_nothing(scene: Scene, tmp_path: Path) -> None:
    with listener() as outside:
        nasty = _payload(outside.url)
        scene.configure(target={"model": nasty}, alarm={"report": "alarm.html"}, report="status.html")
        scene.rename_metric("should_answer", nasty)
        scene.behave(refuses=0.05)
        for _ in range(3):
            scene.once()
        scene.behave(text=nasty, served=nasty)
        assert [scene.once()["state"] for _ in range(3)][-1] == "alarm"
        assert scene.run("--acknowledge", "--reason", nasty).exit_code == 0
        assert scene.run("--report", str(scene.folder / "status.html")).exit_code == 0
        for name in ("status.html", "alarm.html"):
            document, complaints = opened(scene.folder / name, tmp_path / f"profile-{name}")
            assert complaints == []
            assert "owned</title>" not in document
            assert not re.findall(r"<(?:script|img|iframe|link|base)\b|<meta[^>]*refresh|\x1b|\u202e", document)
            assert f"{outside.url}/script" in document, "the text itself is shown"
        assert outside.fetched == []


def test_the_listener_would_notice(tmp_path: Path) -> None:
    """The same text in a page that does not escape it is fetched: the test above can fail."""
    with listener() as outside:
        page = tmp_path / "page.html"
        page.write_text(f"<title>x</title><main>{_payload(outside.url)}</main>", encoding="utf-8")
        opened(page, tmp_path / "profile")
        assert {"/img", "/script", "/link"} <= set(outside.fetched)
