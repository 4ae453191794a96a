"""The command line: one verb, one function. It parses and prints; the work is done elsewhere.

Heavy imports stand inside the verbs, so that `weightgate --help` answers at once.
Exit codes: 0 fine, 1 a finding such as a failed gate, 2 a user's mistake, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from weightgate import __version__
from weightgate.errors import GateFailed, TrainingStopped, UserError

_LIBRARIES_OF_TRAIN = {"torch", "transformers", "tokenizers", "accelerate", "peft", "safetensors", "datasets"}
_LIBRARIES_OF_SERVE = {"starlette", "uvicorn"}


class _Group(click.Group):
    """Turns the exceptions of the package into messages and exit codes, for every verb."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            _complain(error, exit_code=2)
        except (GateFailed, TrainingStopped) as error:
            _complain(error, exit_code=1)
        except ModuleNotFoundError as error:
            extra = _extra_of(error.name or "")
            if extra is None:
                raise
            _complain(
                UserError(f"this verb needs {error.name}", mend=f"pip install 'weightgate[{extra}]'"), exit_code=2
            )
        except KeyboardInterrupt:
            click.echo("interrupted; nothing acknowledged is lost", err=True)
            sys.exit(130)


def _extra_of(module: str) -> str | None:
    name = module.split(".")[0]
    if name in _LIBRARIES_OF_TRAIN:
        return "train"
    return "serve" if name in _LIBRARIES_OF_SERVE else None


def _complain(error: Exception, *, exit_code: int) -> None:
    if "--json" in sys.argv:
        described = error.to_json() if isinstance(error, UserError) else {"what": str(error)}
        click.echo(json.dumps({"error": described}))
    else:
        click.echo(f"error: {error}", err=True)
    sys.exit(exit_code)


_recipe_option = click.option(
    "--recipe",
    "-r",
    "recipe_path",
    type=click.Path(path_type=Path),
    default=Path("weightgate.yaml"),
    show_default=True,
    help="The recipe.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A build system for the weights of language models."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--base", help="Start from this Hugging Face folder or hub id instead of from scratch.")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
def init(folder: Path, base: str | None, force: bool) -> None:
    """Write a commented weightgate.yaml."""
    from weightgate.recipe_template import write_template

    click.echo(f"wrote {write_template(folder, base=base, force=force)}; next: weightgate plan")


@main.command()
@_recipe_option
@_json_option
@click.option("--no-probe", is_flag=True, help="Skip the timed training steps on this machine.")
def plan(recipe_path: Path, as_json: bool, no_probe: bool) -> None:
    """Say what a build will cost and what it would rebuild, and why."""
    _check_recipe(recipe_path)
    from weightgate.build import open_workspace, plan_build

    _show_page(plan_build(open_workspace(recipe_path), probe=not no_probe), as_json)


@main.command()
@_recipe_option
@_json_option
def lock(recipe_path: Path, as_json: bool) -> None:
    """Freeze the contract into weightgate.lock."""
    _check_recipe(recipe_path)
    from weightgate.build import lock_contract, open_workspace

    workspace = open_workspace(recipe_path)
    contract = lock_contract(workspace)
    if as_json:
        click.echo(json.dumps(contract, indent=2, sort_keys=True))
    else:
        click.echo(f"locked {len(contract['stages'])} stages in {workspace.lock_path}; next: weightgate build")


@main.command()
@_recipe_option
@_json_option
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--from", "start", metavar="CHECKPOINT", help="Start from this checkpoint, with fresh optimizers.")
@click.option("--restart", is_flag=True, help="Forget resume points, and train damaged stages again.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Where to write the HTML report.")
def build(
    recipe_path: Path, as_json: bool, until: str | None, start: str | None, restart: bool, report_path: Path | None
) -> None:
    """Run the main job: train, store, measure and gate every stage; go on where it was."""
    _check_recipe(recipe_path)
    from weightgate.build import build_model, open_workspace, write_report
    from weightgate.build.progress import observer_for

    workspace = open_workspace(recipe_path)
    is_main = workspace.accelerator.is_main_process
    with observer_for(as_json, is_main) as observer:
        outcome = build_model(workspace, until=until, start=start, restart=restart, observer=observer)
    if is_main:
        written = write_report(workspace, outcome, report_path)
        click.echo(json.dumps(outcome.to_json() | {"report": str(written)}) if as_json else f"report: {written}")
    if not outcome.passed and (as_json or not is_main):
        sys.exit(1)
    if not outcome.passed:
        raise GateFailed(outcome.reason)


@main.command()
@_recipe_option
@_json_option
def log(recipe_path: Path, as_json: bool) -> None:
    """Show the lineage as a tree."""
    from weightgate.lineage import lineage_page, open_store

    _show_page(lineage_page(open_store(recipe_path)), as_json)


@main.command()
@click.argument("ref")
@_recipe_option
@_json_option
def show(ref: str, recipe_path: Path, as_json: bool) -> None:
    """Show one checkpoint: parent, digests, data, measurements, gate verdicts, cost."""
    from weightgate.lineage import checkpoint_page, open_store

    _show_page(checkpoint_page(open_store(recipe_path), ref), as_json)


@main.command()
@_recipe_option
@_json_option
@click.option("--quick", is_flag=True, help="Check the structure only; do not hash every byte.")
def verify(recipe_path: Path, as_json: bool, quick: bool) -> None:
    """Re-hash everything in the store and say what is wrong."""
    from weightgate.lineage import open_store, verification_page

    page, problems = verification_page(open_store(recipe_path), contents=not quick)
    _show_page(page, as_json)
    sys.exit(1 if problems else 0)


@main.command()
@click.argument("ref")
@click.argument("folder", type=click.Path(path_type=Path))
@_recipe_option
@click.option("--keep-adapter", is_flag=True, help="Write the adapter apart instead of merging it.")
@click.option("--force", is_flag=True, help="Replace a folder that is not empty.")
def export(ref: str, folder: Path, recipe_path: Path, keep_adapter: bool, force: bool) -> None:
    """Write a Hugging Face folder that transformers loads as it is."""
    _check_recipe(recipe_path)
    from weightgate.build import export_checkpoint, open_workspace

    export_checkpoint(open_workspace(recipe_path), ref, folder, merge=not keep_adapter, force=force)
    click.echo(f"wrote {folder}")


@main.command()
@click.argument("ref")
@_recipe_option
@click.option("--temperature", default=0.7, show_default=True)
@click.option("--max-tokens", default=128, show_default=True)
@click.option("--seed", default=0, show_default=True)
def chat(ref: str, recipe_path: Path, temperature: float, max_tokens: int, seed: int) -> None:
    """Talk to a checkpoint in the terminal."""
    from weightgate.chat import chat_loop
    from weightgate.serve import generator_of

    generator = generator_of(recipe_path, ref)
    chat_loop(generator, temperature=temperature, max_tokens=max_tokens, seed=seed)


@main.command()
@click.argument("ref")
@_recipe_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
@click.option("--alias", help="Model name to answer to; default: the ref.")
@click.option("--token-variable", help="Environment variable that holds the bearer token clients must send.")
def serve(ref: str, recipe_path: Path, host: str, port: int, alias: str | None, token_variable: str | None) -> None:
    """Answer as an OpenAI-compatible endpoint."""
    from weightgate.serve import generator_of, serve_generator

    serve_generator(
        generator_of(recipe_path, ref), alias=alias or ref, host=host, port=port, token_variable=token_variable
    )


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo"))
@click.option("--seed", default=0, show_default=True)
def demo(folder: Path, seed: int) -> None:
    """Build the built-in world: pre-training, fine-tuning, reward model and PPO, with every gate."""
    from weightgate.build import build_model, lock_contract, open_workspace, write_report
    from weightgate.build.progress import observer_for
    from weightgate.incident.knobs import Knobs
    from weightgate.incident.world import generate

    if not (folder / "weightgate.yaml").exists():
        generate(folder, Knobs(seed=seed))
    workspace = open_workspace(folder / "weightgate.yaml")
    with observer_for(as_json=False, is_main=workspace.accelerator.is_main_process) as observer:
        if not workspace.lock_path.exists():
            observer.note("locking the contract")
            lock_contract(workspace)
        outcome = build_model(workspace, until=None, start=None, restart=False, observer=observer)
    click.echo(f"report: {write_report(workspace, outcome, None).resolve()}")
    if not outcome.passed:
        raise GateFailed(outcome.reason)


def _check_recipe(recipe_path: Path) -> None:
    """Refuse a mistake in the recipe before torch is imported, which takes seconds."""
    from weightgate import recipe

    recipe.load(recipe_path)


def _show_page(page: Any, as_json: bool) -> None:
    """Print a report page to the terminal or as JSON."""
    from rich.console import Console

    from weightgate.report.terminal import render_terminal

    if as_json:
        click.echo(json.dumps(page.to_json(), indent=2))
    else:
        render_terminal(page, Console())
