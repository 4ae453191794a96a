"""The pages are true: what they show is run, what they list is complete, and where they point there is something.

Blocks of ```console are run line by line, all pages in one world that starts as a copy of docs/tiny; blocks of
```python are run in that world. What stands below a `$ ` line must occur in the output, in that order, where `...`
stands for anything.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from weightgate import cli, errors

torch = pytest.importorskip("torch", reason="the pages build a model")
import uvicorn  # noqa: E402

from weightgate.serve import Fixed, Served, create_app, generator_of  # noqa: E402
from weightgate.store import Store  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("examples/*/README.md")])
RUN = (
    *("init", "recipe", "plan", "plan-fit", "plan-laws", "lock", "build", "plan-stages"),
    *("log", "show", "verify", "gc", "forget", "export", "chat"),
    *("reproducibility", "gates", "store", "errors", "serve", "snapshot", "diff", "watch", "audit"),
)
"""Pages whose blocks are run, in the order of a first acquaintance; later ones find what earlier ones built."""

SERVED_AT = "http://127.0.0.1:8000"
COLUMNS = "110"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page; `line` is the number of its first line."""

    page: str
    language: str
    line: int
    lines: tuple[str, ...]


def blocks_of(path: Path) -> Iterator[Block]:
    language, start, inside = "", 0, None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if inside is None:
                language, start, inside = line[3:].strip(), number + 1, []
            else:
                yield Block(page=path.name, language=language, line=start, lines=tuple(inside))
                inside = None
        elif inside is not None:
            inside.append(line)


@dataclass
class World:
    """A folder in which pages are run, and the exit code of the last command."""

    folder: Path
    code: int = 0
    runner: CliRunner = field(default_factory=CliRunner)

    def run_console(self, block: Block) -> None:
        """Run each `$ ` line of a block and compare what it prints with what the page shows."""
        commands = [index for index, line in enumerate(block.lines) if line.startswith("$ ")]
        assert commands[:1] == [0], f"{block.page}:{block.line} does not start with a command"
        for index, following in zip(commands, [*commands[1:], len(block.lines)], strict=True):
            shown, where = block.lines[index + 1 : following], f"{block.page}:{block.line + index}"
            command = block.lines[index][2:]
            code_is_shown = following < len(block.lines) and block.lines[following] == "$ echo $?"
            output = self._run(command)
            assert self.code == 0 or code_is_shown, f"{where} ended with {self.code}\n{output}"
            _require_shown(shown, output, where)

    def _run(self, command: str) -> str:
        if command == "echo $?":
            code, self.code = self.code, 0
            return str(code)
        before, pipe, after = command.rpartition("| ")
        after, _, target = after.partition(" > ")
        if not after.startswith("weightgate "):
            return self._shell(command)
        result = self.runner.invoke(cli.main, shlex.split(after)[1:], input=self._shell(before) if pipe else None)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code = result.exit_code
        if target:
            (self.folder / target).write_text(result.stdout, encoding="utf-8")
        return result.stderr if target else result.output

    def _shell(self, command: str) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, capture_output=True, text=True)
        self.code = done.returncode
        return done.stdout + done.stderr


def _require_shown(shown: tuple[str, ...], output: str, where: str) -> None:
    """Each line shown must match a line of the output after the one before it; runs of spaces count as one."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for wanted in shown:
        if not wanted.strip():
            continue
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in wanted.split("..."))
        pattern = pattern.replace(".*", r"\s*.*\s*")
        assert any(re.fullmatch(pattern, line) for line in lines), f"{where}: no line like {wanted!r} in\n{output}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world in which all pages were run, in order."""
    folder = tmp_path_factory.mktemp("docs") / "tiny"
    shutil.copytree(DOCS / "tiny", folder)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    here = World(folder=folder)
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setenv("COLUMNS", COLUMNS)
        for page in RUN:
            _run_page(here, DOCS / f"{page}.md")
        yield here
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def _run_page(world: World, path: Path) -> None:
    if path.stem == "watch":
        _run_watch_page(world, path)
        return
    for block in blocks_of(path):
        if block.language == "console":
            world.run_console(block)
        elif block.language == "python" and path.stem == "serve":
            with _served("align") as address:
                _run_python(block, ("\n".join(block.lines)).replace(SERVED_AT, address))
        elif block.language == "python":
            _run_python(block, "\n".join(block.lines))


def _run_watch_page(world: World, path: Path) -> None:
    """Run the page of a watch against the endpoint that its configuration names, on the port that is free."""
    with _served("align") as address:
        for block in (block for block in blocks_of(path) if block.language == "console"):
            world.run_console(block)
            config = world.folder / "watch.yaml"
            config.write_text(config.read_text(encoding="utf-8").replace(SERVED_AT, address), encoding="utf-8")


def _run_python(block: Block, text: str) -> None:
    """Run a block; what it prints must be what its lines that start with `# ->` say."""
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(text, f"{block.page}:{block.line}", "exec"), {"__name__": "page"})
    shown = tuple(line[4:].strip() for line in block.lines if line.startswith("# ->"))
    _require_shown(shown, output.getvalue(), f"{block.page}:{block.line}")


@contextmanager
def _served(ref: str) -> Iterator[str]:
    """Serve a checkpoint of the world on a free port, in a thread; yields the address."""
    generator = generator_of(Path("weightgate.yaml"), ref)
    app = create_app(Fixed({ref: Served(checkpoint=generator.checkpoint, generator=generator)}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the endpoint did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_every_page_runs_as_written(world: World) -> None:
    assert (world.folder / "report.html").is_file()
    unknown = {path.stem for path in DOCS.glob("*.md") for block in blocks_of(path) if block.language == "console"}
    assert unknown <= set(RUN), "a page with commands that are not run"


def _verbs() -> dict[str, click.Command]:
    return dict(cli.main.commands)


@pytest.mark.parametrize("verb", sorted(_verbs()))
def test_every_verb_has_a_page_that_names_its_options(verb: str) -> None:
    text = (DOCS / f"{verb}.md").read_text(encoding="utf-8")
    for parameter in _verbs()[verb].params:
        if isinstance(parameter, click.Option):
            long = max(parameter.opts, key=len)
            assert f"`{long}" in text, f"docs/{verb}.md does not explain {long}"
    assert f"[`{verb}`](docs/{verb}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def _plan_commands() -> dict[str, click.Command]:
    group = _verbs()["plan"]
    assert isinstance(group, click.Group)
    return dict(group.commands)


@pytest.mark.parametrize("name", sorted(_plan_commands()))
def test_every_command_of_plan_is_shown_with_its_options(name: str) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("plan*.md"))
    assert f"$ weightgate plan {name} " in text
    for parameter in _plan_commands()[name].params:
        if isinstance(parameter, click.Option):
            long = max(parameter.opts, key=len)
            assert f"`{long}" in text, f"no page of plan explains {long}"


def _tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_tables", DOCS / "write_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_page_lists_every_key() -> None:
    text = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert _tables().renewed(text) == text, "run: python docs/write_tables.py"


def _error_classes(base: type[BaseException] = errors.WeightgateError) -> Iterator[type[BaseException]]:
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
        yield from _error_classes(child)


def test_every_error_code_has_its_place() -> None:
    anchors = set(_anchors(DOCS / "errors.md"))
    codes = {child.code for child in _error_classes() if issubclass(child, errors.UserError)}
    codes.add(errors.UserError.code)
    assert codes <= anchors
    named = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [child.__name__ for child in _error_classes() if child.__name__ not in named] == []


def _measurement_rows() -> dict[str, str]:
    """Name, with <placeholders>, -> unit, as gates.md lists them."""
    rows = re.findall(r"^\| `([a-z<][^`]*)` \|[^|]*\| ([^|]*) \|", (DOCS / "gates.md").read_text("utf-8"), re.MULTILINE)
    return {name: unit.strip() for name, unit in rows}


def test_every_measurement_is_listed_with_its_unit(world: World) -> None:
    store, rows, unlisted = Store.open(world.folder / ".weightgate"), _measurement_rows(), set()
    patterns = {re.compile(re.sub(r"<[^>]*>", "[^.]+", re.escape(name))): unit for name, unit in rows.items()}
    for manifest in store.lineage():
        for result in store.results(f"measured:{manifest.id}"):
            for name, data in result.measurements.items():
                units = {unit for pattern, unit in patterns.items() if pattern.fullmatch(name)}
                if not units or ("value" in data and data["unit"] not in units):
                    unlisted.add((name, data.get("unit")))
    assert not unlisted


def test_every_gate_of_a_committed_recipe_names_a_listed_measurement() -> None:
    patterns = [re.compile(re.sub(r"<[^>]*>", "[^.]+", re.escape(name))) for name in _measurement_rows()]
    for path in (*ROOT.glob("examples/*/weightgate.yaml"), DOCS / "tiny" / "weightgate.yaml"):
        for measure in re.findall(r"measure: ([a-z_.0-9]+)", path.read_text(encoding="utf-8")):
            assert any(pattern.fullmatch(measure) for pattern in patterns), f"{path}: {measure}"


def _anchors(path: Path) -> Iterator[str]:
    """What a link may point to inside a page: its headings, as Markdown renderers name them."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            yield words.replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in set(_anchors(file)), f"{path.name}: {target}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCS.glob("*.md") if path.name != "README.md" and f"({path.name})" not in index] == []


def test_pictures_are_whole_and_ask_for_nothing_from_outside() -> None:
    pictures = sorted(DOCS.glob("*.svg"))
    assert pictures
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        assert "<title" in text
        assert not re.search(r"(href|src)\s*=|url\(|<script|@import", text)
