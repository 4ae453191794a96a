"""The command line itself: help of every verb, exit codes, errors for people and for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from weightgate import __version__, lineage
from weightgate.cli import main
from weightgate.errors import GateFailed, TrainingStopped
from weightgate.recipe import load
from weightgate.recipe_template import template

VERBS = ("build", "chat", "demo", "export", "init", "lock", "log", "plan", "serve", "show", "verify")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would, in a process of its own."""
    command = [sys.executable, "-c", "from weightgate.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_main_help_lists_every_verb_with_one_line() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.strip()]
    assert set(VERBS) <= set(listed)


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_verb_explains_itself(verb: str) -> None:
    command = main.commands[verb]
    result = CliRunner().invoke(main, [verb, "-h"])
    assert result.exit_code == 0
    assert command.help
    assert len(command.help.strip().splitlines()) == 1, "one line; docs/ holds the rest"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in result.output


def test_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_an_unknown_verb_and_a_missing_argument_are_mistakes() -> None:
    assert CliRunner().invoke(main, ["biuld"]).exit_code == 2
    assert CliRunner().invoke(main, ["show"]).exit_code == 2


@pytest.mark.parametrize("verb", ["log", "verify"])
def test_a_missing_recipe_is_told_without_a_traceback(verb: str, tmp_path: Path) -> None:
    done = run(verb, "--recipe", str(tmp_path / "weightgate.yaml"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no recipe here")
    assert "mend: weightgate init" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["log", "verify", "gc"])
def test_what_is_no_store_is_told_without_a_traceback(verb: str, tmp_path: Path) -> None:
    recipe = tmp_path / "weightgate.yaml"
    recipe.write_text(template(name="model", base=None) + "\nstore: taken\n")
    (tmp_path / "taken").write_text("")
    done = CliRunner().invoke(main, [verb, "--recipe", str(recipe)])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: this is no store")
    assert "mend: name the folder that weightgate build made" in done.stderr


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["log", "--recipe", str(tmp_path)])
    assert done.exit_code == 2
    assert f"mend: name {tmp_path / 'weightgate.yaml'}" in done.stderr


def test_errors_for_machines_are_json_on_standard_output(tmp_path: Path) -> None:
    done = run("log", "--json", "--recipe", str(tmp_path / "weightgate.yaml"))
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "recipe"
    assert error["mend"] == "weightgate init"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["biuld", "--json"], "No such command 'biuld'"),
        (["show", "--json"], "Missing argument 'REF'"),
        (["plan", "fit", "--json", "--drows", "30"], "No such option '--drows'"),
        (["plan", "fit", "--draws", "few", "--json"], "Invalid value for '--draws'"),
    ],
)
def test_a_misspelt_command_line_is_an_error_for_machines_too(arguments: list[str], what: str) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="weightgate")
    assert done.exit_code == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "usage"
    assert error["what"].replace(":", "").startswith(what)
    assert error["mend"].startswith("weightgate ")
    assert error["mend"].endswith("--help")


@pytest.mark.parametrize(("error", "code"), [(GateFailed, "gate-failed"), (TrainingStopped, "training-stopped")])
def test_findings_have_a_code_for_machines(error: type[Exception], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(_: Path) -> None:
        raise error("no further")

    monkeypatch.setattr(lineage, "open_store", stops)
    done = CliRunner().invoke(main, ["log", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"error": {"code": code, "what": "no further"}}


def test_a_library_that_is_not_installed_names_the_extra(tmp_path: Path) -> None:
    script = "import sys; sys.modules['torch'] = None; from weightgate.cli import main; main()"
    (tmp_path / "weightgate.yaml").write_text(template(name="model", base=None))
    command = [sys.executable, "-c", script, "lock", "--recipe", str(tmp_path / "weightgate.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'weightgate[train]'" in done.stderr


@pytest.mark.parametrize("base", [None, "Qwen/Qwen3-0.6B-Base"])
def test_init_writes_a_recipe_that_can_be_read(base: str | None, tmp_path: Path) -> None:
    arguments = ["init", str(tmp_path)] + (["--base", base] if base else [])
    assert CliRunner().invoke(main, arguments).exit_code == 0
    path = tmp_path / "weightgate.yaml"
    assert (load(path).base is None) == (base is None)
    assert path.read_text(encoding="utf-8") == template(name=tmp_path.name, base=base)
    assert CliRunner().invoke(main, arguments).exit_code == 2, "a recipe is not replaced unasked"
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0


def test_init_says_what_comes_next_for_the_folder_it_wrote_to(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    done = CliRunner().invoke(main, ["init", str(folder)])
    assert f"weightgate plan --recipe {folder / 'weightgate.yaml'}" in done.output
    again = CliRunner().invoke(main, ["init", str(folder)])
    assert f"mend: weightgate init {folder} --force" in again.stderr, "what mends it is about this folder, no other"


@pytest.mark.parametrize("base", ["", "./nothing", "/nothing/here", "../nothing", "~/nothing"])
def test_init_refuses_a_base_that_is_no_folder_and_no_hub_id(base: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path), "--base", base])
    assert done.exit_code == 2
    assert "there is no base model here" in done.stderr
    assert not (tmp_path / "weightgate.yaml").exists()


def test_a_demo_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the demo builds a model")
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["demo", str(tmp_path / "file")])
    assert done.exit_code == 2
    assert "the disk refused: Not a directory" in done.stderr
