"""The shape of the source, read as syntax trees: who imports whom, what is never used, how long a function is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from weightgate import recipe

PACKAGE = Path(recipe.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LINES = (
    {"__main__"},
    {"cli"},
    {"plan_cli", "behaviour_cli", "audit_cli"},
    {"options_cli"},
    {"demo"},
    {"build", "watch", "serve", "chat", "incident"},
    {"plan", "preferences", "diff", "lineage", "housekeeping"},
    {"probe"},
    {"train"},
    {"data"},
    {"contract", "store"},
    {"recipe_template"},
    {"recipe"},
    {"report"},
    {"strict_yaml"},
    {"stats", "errors"},
)
"""Rooms from the top to the bottom: a room imports from lines strictly below its own, or from itself."""

HEAVY = {"torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "datasets", "huggingface_hub"}
"""Libraries of the extra `train`, which the light install does not have."""

MAY_USE_HEAVY = ("train/", "data/", "build/", "probe/checkpoint_target.py", "serve/checkpoints.py")
MAX_FUNCTION_LINES = 70


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a module imports, wherever in it the import stands."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_modules(path: Path) -> set[str]:
    """Dotted names of the modules of this package that a module imports."""
    known = {_dotted(other) for other in MODULES}
    found = set()
    for name in _imports(path):
        parts = name.split(".")
        while parts and ".".join(parts) not in known:
            parts.pop()
        if parts:
            found.add(".".join(parts))
    return found - {"weightgate"}


def _dotted(path: Path) -> str:
    parts = ("weightgate", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def _line_of(room: str) -> int:
    return next(index for index, line in enumerate(LINES) if room in line)


def test_every_room_has_its_place() -> None:
    rooms = {_room(path) for path in MODULES} - {"__init__"}
    assert rooms <= set().union(*LINES), "a new room needs a line in LINES, and in CONTRIBUTING.md"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_imports_only_from_lines_below(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not _own_modules(path)
        return
    others = {name.split(".")[1] for name in _own_modules(path)} - {room}
    upward = sorted(other for other in others if _line_of(other) <= _line_of(room))
    assert not upward, f"{room} stands beside or below {', '.join(upward)}"


def test_there_is_no_import_cycle() -> None:
    waiting = {_dotted(path): _own_modules(path) - {_dotted(path)} for path in MODULES}
    while ready := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    # A package that gathers its modules' names is no part of a cycle unless one of them imports it back.
    assert not waiting, f"these import each other: {sorted(waiting)}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_stand_at_the_top(path: Path) -> None:
    if _name(path).endswith("cli.py"):
        return
    functions = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [n.lineno for each in functions for n in ast.walk(each) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not inside, f"imports inside functions at lines {inside}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    heavy = {name.split(".")[0] for name in _imports(path)} & HEAVY
    if not _name(path).startswith(MAY_USE_HEAVY):
        assert not heavy
    assert "torchvision" not in heavy


def _light_modules() -> list[str]:
    light = {
        "plan",
        "report",
        "store",
        "contract",
        "lineage",
        "housekeeping",
        "stats",
        "recipe",
        "recipe_template",
        "errors",
    }
    light.add("preferences")
    return [_dotted(path) for path in MODULES if _room(path) in light]


def test_the_light_rooms_load_without_the_heavy_libraries() -> None:
    assert _loaded_by(f"import {', '.join(_light_modules())}") & HEAVY == set()


def test_help_loads_nothing_heavy() -> None:
    script = "import weightgate.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass"
    heavy = HEAVY | {"numpy", "pyarrow", "pydantic", "rich", "jinja2", "starlette", "uvicorn"}
    assert _loaded_by(script) & heavy == set()


def _loaded_by(script: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after running `script`."""
    marker = "modules: "
    script += f"\nimport sys; print({marker!r} + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.rpartition(marker)[2].split()}


def test_nothing_is_pickled_and_no_foreign_code_is_run() -> None:
    banned_modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in MODULES:
        assert not {name.split(".")[0] for name in _imports(path)} & banned_modules, _name(path)
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "torch.save", "eval", "exec"}, f"{_name(path)}:{node.lineno}"
                for keyword in node.keywords:
                    dangerous = keyword.arg in {"trust_remote_code", "allow_pickle"}
                    assert not dangerous or ast.unparse(keyword.value) == "False", f"{_name(path)}:{node.lineno}"


def test_no_file_is_called_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert not [_name(path) for path in MODULES if path.stem in vague]


def _recipe_parts() -> list[type[BaseModel]]:
    parts = [each for each in vars(recipe).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    return [each for each in parts if each is not BaseModel]


def _attributes_read() -> set[str]:
    """Names of all attributes that some module other than `recipe` reads."""
    others = [path for path in MODULES if _name(path) != "recipe.py"]
    nodes = (node for path in others for node in ast.walk(_tree(path)))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def test_no_two_files_of_the_tests_have_one_name() -> None:
    """The folders are no packages, so pytest would collect one of two modules of a name only."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_every_key_of_the_recipe_is_read_by_some_code() -> None:
    """A key that nothing reads would be accepted, and another model than the wished one trained."""
    read = _attributes_read() | {"version", "kind"}  # a schema number, and the tag that pydantic tells stages apart by
    # `template` is read through the property that knows its default.
    assert "template_choice" in read
    unread = {f"{part.__name__}.{name}" for part in _recipe_parts() for name in part.model_fields if name not in read}
    assert not unread


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_functions_are_short_and_public_names_say_what_they_are(path: Path) -> None:
    tree = _tree(path)
    assert not tree.body or ast.get_docstring(tree), "the module has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"
    missing = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    assert not missing, f"without a docstring: {missing}"


def _public(
    node: ast.Module | ast.ClassDef, *, inherits: bool = False
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes, and the public methods of public classes that do not inherit a description."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            if not inherits:
                yield child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield child
            yield from _public(child, inherits=bool(child.bases))
