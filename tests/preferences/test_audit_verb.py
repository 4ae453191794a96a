"""`weightgate audit` as users run it, on made-up votes with something planted and on public sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.planted_votes import Judge, draw_pairs, judge
from written import audited, pair, run, vote, write

from public_data import public_data
from weightgate.preferences.audit import audit
from weightgate.preferences.model_view import Preferred, model_view
from weightgate.preferences.reading import read_preferences
from weightgate.recipe_template import template
from weightgate.stats import Estimate
from weightgate.store import Manifest, Store

HH, LLMBAR = "preferences/hh_harmless_base_test.jsonl.gz", "preferences/llmbar.jsonl"


def planted_file(path: Path, seed: int = 0, **bias: float) -> Path:
    """One vote on each of 800 pairs; `bias` is the share of votes that go by that alone."""
    judges = [Judge(name=f"judge-{number}", **bias) for number in range(4)]
    return write(path, judge(draw_pairs(seed, 800), judges, votes_each=1, seed=seed).rows)


@pytest.mark.parametrize(
    ("bias", "driver"), [("length", "length"), ("position", "position"), ("refusal", "refusal"), ("format", "list")]
)
def test_a_planted_bias_is_found(bias: str, driver: str, tmp_path: Path) -> None:
    """Half of all votes go by the bias: it is missed with odds below 1 in 10^6 (|z| above 8)."""
    told = audited(planted_file(tmp_path / "votes.jsonl", error_rate=0.1, **{bias: 0.5}))
    found = {effect["driver"]: effect for effect in told["style"]["effects"]}
    assert found[driver]["reported"]
    assert found[driver]["equal"]["value"] > 0.6
    assert told["verdict"] in ("warn", "fail")
    assert any(found[driver]["words"] in finding["headline"] for finding in told["findings"])


def test_without_a_bias_no_bias_is_strong(tmp_path: Path) -> None:
    told = audited(planted_file(tmp_path / "votes.jsonl", seed=4, error_rate=0.1))
    assert not [e for e in told["style"]["effects"] if e["reported"] and abs(e["equal"]["value"] - 0.5) > 0.1]


def test_contradictions_circles_and_repetitions_are_named_by_line(tmp_path: Path) -> None:
    rows = [
        vote("q", "one", "two", "a", "ann"),
        vote("q", "two", "one", "a", "ann"),  # the other way round
        vote("r", "a1", "a2", "a", "bob"),
        vote("r", "a2", "a3", "a", "bob"),
        vote("r", "a3", "a1", "a", "bob"),  # closes a circle
        vote("r", "a1", "a2", "a", "cy"),
        vote("s", "x", "y", "a", "cy"),
        vote("s", "x", "y", "a", "cy"),  # repeated
    ]
    found = audited(write(tmp_path / "votes.jsonl", rows))["contradictions"]
    assert [sorted(one["fewer"] + one["more"]) for one in found["opposed"]] == [[1, 2]]
    assert found["opposed"][0]["same_annotator"]
    assert found["duplicates"] == [[7, 8]]
    circle = found["circles"][0]
    assert circle["lines"] == [3, 4, 5, 6]
    assert circle["remove"] in ([4], [5]), "one vote is fewer than the two for the first over the second"
    assert (found["triads"], found["cyclic_share"]) == (1, 1.0)


def test_prompts_of_a_test_set_are_found_exactly_and_nearly(tmp_path: Path) -> None:
    long = "Tell me in a few words how the old mill by the river was built and who paid for all the stones in it"
    ours = [pair("Who  built it?", "a", "b"), pair(long + ".", "a", "b"), pair("Something else", "a", "b")]
    theirs = [pair("who built it?", "c", "d"), pair(long + " really?", "c", "d")]
    test = write(tmp_path / "test.jsonl", theirs)
    told = audited(write(tmp_path / "votes.jsonl", ours), "--test", test)
    assert [(leak["line"], leak["kind"]) for leak in told["coverage"]["leaks"]] == [(1, "exact"), (2, "near")]
    assert told["verdict"] == "fail"


def test_a_gate_prompt_among_the_votes_fails(tmp_path: Path) -> None:
    probe = {"id": "p", "axis": "open", "topic": "t", "form": "chat"}
    probe |= {
        "messages": [{"role": "user", "content": "asked at the gate"}],
        "checks": [{"metric": "m", "type": "refuses"}],
    }
    suite = write(tmp_path / "suite.jsonl", [probe])
    told = audited(write(tmp_path / "votes.jsonl", [pair("Asked at the gate", "a", "b")]), "--suite", suite)
    assert [leak["where"] for leak in told["coverage"]["leaks"]] == [f"{suite}: p"]


def test_drift_and_hurry_need_times(tmp_path: Path) -> None:
    """An annotator who turns round after 100 votes: shuffles reach that sum with odds below 1 in 1,000."""
    rows: list[dict[str, Any]] = []
    for number in range(200):
        for name in ("ann", "bob", "cy"):
            turned = name == "cy" and number >= 100
            shared = {"time": 1_700_000_000 + 60 * number, "seconds": 2.0 if name == "bob" else 30.0}
            rows.append(vote(f"q{number}", f"a{number}", f"b{number}", "b" if turned else "a", name, **shared))
    told = audited(write(tmp_path / "votes.jsonl", rows))
    by_name = {one["name"]: one for one in told["annotators"]}
    assert by_name["cy"]["drift"] <= 0.01 < by_name["ann"]["drift"]
    assert (by_name["bob"]["hurried"], by_name["ann"]["hurried"]) == (True, False)


def test_the_terminal_and_json_hold_no_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", [pair(f"secret prompt {n}", "secret chosen", f"no {n}") for n in range(30)])
    page, bare = tmp_path / "page.html", tmp_path / "bare.html"
    assert "secret" not in run("audit", path, "--html", page).output
    assert "secret" not in run("audit", path, "--json", "--html", bare, "--no-rows").output
    assert "secret chosen" in page.read_text(encoding="utf-8")
    assert "secret" not in bare.read_text(encoding="utf-8")


def test_fix_writes_a_new_file_and_says_why_each_row_went(tmp_path: Path) -> None:
    kept = [json.dumps(pair(f"q{n}", "good", f"bad {n}"), separators=(",", ":")).encode() for n in range(3)]
    rows = [kept[0], b"{broken", kept[1], kept[1], kept[2], b'{"prompt": "q2", "chosen": "bad 2", "rejected": "good"}']
    path, target = write(tmp_path / "votes.jsonl", rows), tmp_path / "clean.jsonl"
    before = path.read_bytes()
    assert "wrote" in run("audit", path, "--fix", target).output
    assert path.read_bytes() == before
    assert target.read_bytes().splitlines() == kept[:2], "a pair judged both ways as often goes altogether"
    log = [json.loads(line) for line in (tmp_path / "clean.jsonl.log.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in log[1:]] == [
        (2, "not-json"),
        (4, "repeated"),
        (5, "judged both ways"),
        (6, "judged both ways"),
    ]
    assert log[0]["kept"] == 2
    again = run("audit", path, "--fix", target)
    assert again.exit_code == 2
    assert "nothing is changed in place" in again.output
    assert "mend: give --fix the name of a file that is not there yet" in again.output
    assert audited(target)["unusable"] == 0


def test_fix_keeps_csv_records_whole(tmp_path: Path) -> None:
    path, target = tmp_path / "votes.csv", tmp_path / "clean.csv"
    path.write_text('prompt,chosen,rejected\nq,"two\nlines",b\nq2,same,same\nq3,a,b\n', encoding="utf-8")
    run("audit", path, "--fix", target)
    assert target.read_text(encoding="utf-8") == 'prompt,chosen,rejected\nq,"two\nlines",b\nq3,a,b\n'


def test_hh_has_the_known_numbers() -> None:
    told = audited(public_data(HH))
    described = told["description"]
    assert (told["rows"], described["equal_lengths"], described["repeated_prompts"]) == (2312, 11, 2)
    assert round(described["longer_wins_of_all"], 4) == 0.4425
    assert round(described["longer_wins"]["value"], 4) == 0.4446
    assert (round(described["mean_chosen"], 1), round(described["mean_rejected"], 1)) == (166.7, 209.8)
    assert described["length_slope"]["value"] == pytest.approx(-0.369, abs=0.002)
    assert (round(described["turns_mean"], 2), described["turns_most"]) == (2.49, 18)
    faults = {kind: [fault["line"] - 1 for fault in rows] for kind, rows in told["faults"].items()}
    assert faults == {"empty-answer": [86, 516, 925, 1103], "different-prompts": [1254, 1688, 1950, 1952, 2036]}
    assert not told["contradictions"]["opposed"]
    assert not told["contradictions"]["duplicates"]
    assert "position" not in {effect["driver"] for effect in told["style"]["effects"]}
    refusal = next(
        line for line in told["specification"] if line["driver"] == "refusal" and line["scope"] == "everything"
    )
    assert refusal["verdict"] == "prefers"
    # A small embedder reaches .647, a reward model of 3 billion parameters .789 (see the benchmark's page).
    assert told["noise"]["auc"]["value"] > 0.65
    assert "unmeasured" in told["noise"]["share"], "too little to accuse anybody"


def test_llmbar_has_the_known_numbers_and_opposite_signs() -> None:
    told = audited(public_data(LLMBAR))
    lines = {line["scope"]: line for line in told["specification"] if line["driver"] == "length"}
    known = {"natural": 0.566, "adversarial_neighbor": 0.119, "adversarial_gptinst": 0.130}
    known |= {"adversarial_manual": 0.178, "adversarial_gptout": 0.447}
    assert {name: round(lines[name]["share"]["value"], 3) for name in known} == known
    assert lines["adversarial_neighbor"]["verdict"] == "prefers not"
    assert (
        lines["natural"]["shift"] * lines["adversarial_neighbor"]["shift"] < 0
        or lines["natural"]["share"]["value"] > 0.5
    )


def _preferring(signs: list[int]) -> Preferred:
    return Preferred(signs=np.array(signs, dtype=np.int32), asked=np.ones(len(signs), dtype=bool))


def test_a_reward_model_departs_where_it_prefers_the_opposite(tmp_path: Path) -> None:
    """The votes take the shorter answer in all of 60 pairs; a model that takes the longer one departs in that line."""
    rows = [pair(f"question {n}", "short", f"rather longer {n}") for n in range(60)]
    found = audit(read_preferences(str(write(tmp_path / "votes.jsonl", rows))))
    view = model_view(found, "backwards", lambda votes: _preferring([-1 for _ in votes]))
    length = next(at for at, line in enumerate(view.votes) if line.driver == "length" and line.kind == "everything")
    assert (view.votes[length].verdict, view.model[length].verdict) == ("prefers not", "prefers")
    assert view.departs[length]
    assert isinstance(view.agreement, Estimate)
    assert view.agreement.value == 0.0
    same = model_view(found, "the votes", lambda votes: _preferring([vote.sign for vote in votes]))
    assert not any(same.departs)
    assert same.votes == same.model


def test_leaving_noise_out_needs_a_file_to_write(tmp_path: Path) -> None:
    done = run("audit", write(tmp_path / "votes.jsonl", [pair("a?", "b", "c")]), "--fix-noise")
    assert (done.exit_code, "mend: --fix OUT --fix-noise" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nosuch.jsonl",), "a data set of the hub is named owner/name"),
        (("folder",), "mend: name the file in it"),
        (("weightgate.yaml",), "a file of this name holds no judgements"),
        (("notes.txt",), "a file of this name holds no judgements"),
        (("votes.jsonl", "--test", "folder"), "mend: name the file in it"),
        (("votes.jsonl", "--html", "folder"), "mend: name a file in a folder that is there"),
        (("votes.jsonl", "--fix", "nosuch/clean.jsonl"), "mend: name a file in a folder that is there"),
        (("votes.jsonl", "--fix", "clean.csv"), "mend: --fix clean.jsonl"),
        (("votes.jsonl", "--reward-model", "folder"), "mend: name the ref that `weightgate log` shows"),
    ],
)
def test_mistakes_say_what_mends_them(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("votes.jsonl"), [pair("a?", "b", "c")])
    Path("folder").mkdir()
    for name in ("weightgate.yaml", "notes.txt"):
        Path(name).write_text("hello\n")
    done = run("audit", *arguments)
    assert (done.exit_code, says in done.stderr) == (2, True), done.output
    assert {path.name for path in tmp_path.iterdir()} == {"votes.jsonl", "folder", "weightgate.yaml", "notes.txt"}


def test_a_checkpoint_that_is_no_reward_model_names_one_that_is(tmp_path: Path) -> None:
    recipe = tmp_path / "weightgate.yaml"
    recipe.write_text(template(name="model", base=None))
    store = Store.create(tmp_path / ".weightgate")
    votes = write(tmp_path / "votes.jsonl", [pair("a?", "b", "c")])

    def refused() -> str:
        done = run("audit", votes, "--reward-model", "finetune", "--recipe", recipe)
        assert done.exit_code == 2
        return done.stderr

    for kind, mend in (("finetune", "add a stage of kind reward"), ("reward", "mend: --reward-model judge")):
        manifest = Manifest(stage=kind, stage_kind=kind, parent=None, tensors={}, files={}, inputs={})
        store.set_ref({"reward": "judge"}.get(kind, kind), store.publish(manifest), old=None, why="test")
        told = refused()
        assert "of stage 'finetune', which is of kind finetune" in told
        assert mend in told
