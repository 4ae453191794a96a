"""What an endpoint adds of its own: a frame around the conversation, another decoding, under a name that moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the endpoint serves a model")
pytest.importorskip("starlette", reason="the endpoint needs weightgate[serve]")
from starlette.testclient import TestClient

from tiny_endpoint import load
from weightgate import cli
from weightgate.serve import Alias, Aliases, Manner, create_app, write_aliases

_QUESTION = [{"role": "user", "content": "the quick brown fox"}]


@pytest.fixture
def aliases(tmp_path: Path) -> Path:
    return tmp_path / "aliases.json"


def _ask(aliases: Path, **wanted: object) -> tuple[str, str]:
    """Completion and fingerprint."""
    with TestClient(create_app(Aliases(aliases, load)), base_url="http://127.0.0.1") as client:
        body = {"model": "live", "messages": _QUESTION, "temperature": 0, "max_tokens": 12} | wanted
        answer = client.post("/v1/chat/completions", json=body).json()
    return answer["choices"][0]["message"]["content"], answer["system_fingerprint"]


def test_a_manner_frames_the_conversation_as_a_client_could() -> None:
    manner = Manner(system="be brief", before="Q: ", after=" A:")
    assert manner.framed([("user", "why"), ("assistant", "so"), ("user", "and")]) == [
        ("system", "be brief"),
        ("user", "Q: why A:"),
        ("assistant", "so"),
        ("user", "Q: and A:"),
    ]


def test_a_frame_shows_in_the_answer_and_in_the_fingerprint_only(aliases: Path) -> None:
    write_aliases(aliases, {"live": "seed-1"})
    plain = _ask(aliases)
    write_aliases(aliases, {"live": Alias(checkpoint="seed-1", after=" jumps over")})
    framed = _ask(aliases)
    write_aliases(aliases, {"live": "seed-1"})
    spelt_out = _ask(aliases, messages=[{"role": "user", "content": "the quick brown fox jumps over"}])
    assert framed[0] == spelt_out[0] != plain[0]
    assert framed[1] != plain[1] == spelt_out[1]


def test_an_endpoint_can_insist_on_its_own_temperature(aliases: Path) -> None:
    write_aliases(aliases, {"live": Alias(checkpoint="seed-1", temperature=1.5)})
    drawn = {_ask(aliases, seed=seed)[0] for seed in range(4)}
    assert len(drawn) > 1
    assert _ask(aliases, seed=1) == _ask(aliases, seed=1)
    write_aliases(aliases, {"live": Alias(checkpoint="seed-1", temperature=0.0)})
    assert _ask(aliases, temperature=1.5, seed=1) == _ask(aliases, temperature=1.5, seed=2)


def test_rounded_weights_stand_beside_the_whole_ones_and_show_in_the_fingerprint(aliases: Path) -> None:
    write_aliases(aliases, {"live": "seed-1", "cheap": Alias(checkpoint="seed-1", bits=4)})
    asked = {"prompt": "the quick", "temperature": 0, "max_tokens": 1, "logprobs": 5}
    with TestClient(create_app(Aliases(aliases, load)), base_url="http://127.0.0.1") as client:
        whole, cheap, again = (
            client.post("/v1/completions", json=asked | {"model": name}).json() for name in ("live", "cheap", "live")
        )
    nats = [list(one["choices"][0]["logprobs"]["top_logprobs"][0].values()) for one in (whole, cheap, again)]
    assert nats[0] == nats[2] != pytest.approx(nats[1])
    assert whole["system_fingerprint"] == again["system_fingerprint"] != cheap["system_fingerprint"]


def test_raw_text_has_no_conversation_to_frame(aliases: Path) -> None:
    answers = []
    for alias in ("seed-1", Alias(checkpoint="seed-1", system="be brief")):
        write_aliases(aliases, {"live": alias})
        with TestClient(create_app(Aliases(aliases, load)), base_url="http://127.0.0.1") as client:
            body = {"model": "live", "prompt": "the quick", "temperature": 0, "max_tokens": 8}
            answers.append(client.post("/v1/completions", json=body).json()["choices"][0]["text"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("wrong", [["seed-2"], {"live": 2}, {"live": {"checkpoint": "seed-2", "temprature": 1}}])
def test_a_file_that_cannot_be_followed_changes_nothing(aliases: Path, wrong: object) -> None:
    write_aliases(aliases, {"live": "seed-1"})
    followed = Aliases(aliases, load)
    assert followed.get("live").checkpoint == "seed-1"
    aliases.write_text(json.dumps(wrong), encoding="utf-8")
    assert followed.get("live").checkpoint == "seed-1"


@pytest.mark.parametrize("arguments", [[], ["align", "--aliases", "aliases.json"]])
def test_the_verb_serves_one_checkpoint_or_a_file_of_names(arguments: list[str], tmp_path: Path) -> None:
    runner = CliRunner()
    with runner.isolated_filesystem(tmp_path):
        Path("aliases.json").write_text("{}", encoding="utf-8")
        outcome = runner.invoke(cli.main, ["serve", *arguments])
    assert outcome.exit_code == 2
    assert "REF or --aliases FILE" in outcome.output


def test_a_file_without_a_name_is_not_served(tmp_path: Path) -> None:
    runner = CliRunner()
    with runner.isolated_filesystem(tmp_path):
        assert runner.invoke(cli.main, ["init"]).exit_code == 0
        Path(".weightgate").mkdir()
        Path("aliases.json").write_text("{}", encoding="utf-8")
        outcome = runner.invoke(cli.main, ["serve", "--aliases", "aliases.json"])
    assert outcome.exit_code == 2
