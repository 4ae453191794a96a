"""Builds of the tiny world: one made once and copied, and a command line to refuse what must be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from driven import Driver

import tiny_world
from weightgate.build import open_workspace
from weightgate.build.exporting import export_checkpoint
from weightgate.cli import main

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def _still() -> Iterator[None]:
    """What a build switches for the whole process is switched back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def invoke(*arguments: str | Path) -> Result:
    """Run a verb in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def weightgate(tmp_path: Path) -> Command:
    """Run a verb on the recipe in `tmp_path`."""

    def run(verb: str, *arguments: str | Path) -> Result:
        return invoke(verb, *arguments, "--recipe", tmp_path / "weightgate.yaml")

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole tiny world was built. Copy it; do not touch it."""
    folder = tmp_path_factory.mktemp("finished") / "world"
    recipe = tiny_world.write_world(folder)
    for verb in ("lock", "build"):
        result = invoke(verb, "--recipe", recipe)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The tiny world, not locked yet."""
    tiny_world.write_world(tmp_path)
    return tmp_path


@pytest.fixture
def built(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished build."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="session")
def base_folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's pre-trained model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    export_checkpoint(open_workspace(finished / "weightgate.yaml"), "pretrain", folder, merge=True, force=False)
    return folder
