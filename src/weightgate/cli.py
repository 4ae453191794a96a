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
from weightgate.audit_cli import audit
from weightgate.behaviour_cli import diff, snapshot, watch
from weightgate.errors import GateFailed, TrainingStopped, UsageError, UserError, WeightgateError
from weightgate.options_cli import check_recipe, json_option, recipe_option, show_page
from weightgate.plan_cli import plan

_LIBRARIES_OF_TRAIN = {"torch", "transformers", "tokenizers", "accelerate", "peft", "safetensors", "datasets"}
_LIBRARIES_OF_SERVE = {"starlette", "uvicorn"}
_FOR_MACHINES = "weightgate.json"
"""Where the context of a call keeps whether it was asked for JSON."""


class _Group(click.Group):
    """Turns the exceptions of the package into messages and exit codes, for every verb."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        # Seen here and not by the option, which is not reached where another one is misspelt.
        context.meta[_FOR_MACHINES] = "--json" in args
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except click.UsageError as error:
            if not context.meta[_FOR_MACHINES]:
                raise
            _complain(context, _as_ours(error, context), exit_code=2)
        except UserError as error:
            _complain(context, error, exit_code=2)
        except (GateFailed, TrainingStopped) as error:
            _complain(context, error, exit_code=1)
        except ModuleNotFoundError as error:
            extra = _extra_of(error.name or "")
            if extra is None:
                raise
            missing = UserError(f"this verb needs {error.name}", mend=f"pip install 'weightgate[{extra}]'")
            _complain(context, missing, exit_code=2)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing acknowledged is lost", err=True)
            sys.exit(130)


def _extra_of(module: str) -> str | None:
    name = module.split(".")[0]
    if name in _LIBRARIES_OF_TRAIN:
        return "train"
    return "serve" if name in _LIBRARIES_OF_SERVE else None


def _as_ours(error: click.UsageError, context: click.Context) -> UsageError:
    command = (error.ctx or context).command_path
    return UsageError(error.format_message().rstrip("."), where=command, mend=f"{command} --help")


def _complain(context: click.Context, error: WeightgateError, *, exit_code: int) -> None:
    if context.meta[_FOR_MACHINES]:
        click.echo(json.dumps({"error": error.to_json()}))
    else:
        from weightgate.report.text import visible

        # What an endpoint or a file says stands in errors too, and must not steer the terminal.
        click.echo(f"error: {visible(str(error))}", err=True)
    sys.exit(exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A build system for the weights of language models."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--base", help="Start from this Hugging Face folder or hub id instead of from scratch.")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
@json_option
def init(folder: Path, base: str | None, force: bool, as_json: bool) -> None:
    """Write a commented weightgate.yaml."""
    from weightgate.recipe_template import write_template

    path = write_template(folder, base=base, force=force)
    named = "" if folder == Path() else f" --recipe {path}"
    next_step = f"name your data files in it, then: weightgate plan{named}"
    click.echo(json.dumps({"recipe": str(path)}) if as_json else f"wrote {path}; {next_step}")


@main.command()
@recipe_option
@json_option
def lock(recipe_path: Path, as_json: bool) -> None:
    """Freeze the contract into weightgate.lock."""
    check_recipe(recipe_path)
    from weightgate.build import lock_contract, open_workspace
    from weightgate.plan.asked import lock_warnings

    workspace = open_workspace(recipe_path)
    contract = lock_contract(workspace)
    for warning in lock_warnings(recipe_path):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(contract, indent=2, sort_keys=True))
    else:
        click.echo(f"locked {len(contract['stages'])} stages in {workspace.lock_path}; next: weightgate build")


@main.command()
@recipe_option
@json_option
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--from", "start", metavar="CHECKPOINT", help="Start from this checkpoint, with fresh optimizers.")
@click.option("--restart", is_flag=True, help="Forget resume points, and train damaged stages again.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Where to write the HTML report.")
def build(
    recipe_path: Path, as_json: bool, until: str | None, start: str | None, restart: bool, report_path: Path | None
) -> None:
    """Run the main job: train, store, measure and gate every stage; go on where it was."""
    check_recipe(recipe_path)
    from weightgate.build import build_model, open_workspace, require_place, write_report
    from weightgate.build.progress import observer_for

    workspace = open_workspace(recipe_path)
    require_place(workspace, report_path)
    is_main = workspace.accelerator.is_main_process
    with observer_for(as_json, is_main) as observer:
        outcome = build_model(workspace, until=until, start=start, restart=restart, observer=observer)
    if is_main:
        written = write_report(workspace, outcome, report_path)
        click.echo(json.dumps(outcome.to_json() | {"report": str(written)}) if as_json else f"report: {written}")
    # A process group that is still there when Python ends can abort it after all is done.
    workspace.accelerator.end_training()
    if not outcome.passed and (as_json or not is_main):
        sys.exit(1)
    if not outcome.passed:
        raise GateFailed(outcome.reason)


@main.command()
@recipe_option
@json_option
def log(recipe_path: Path, as_json: bool) -> None:
    """Show the lineage as a tree."""
    from weightgate.lineage import lineage_page, open_store

    page, problems = lineage_page(open_store(recipe_path))
    show_page(page, as_json)
    sys.exit(1 if problems else 0)


@main.command()
@click.argument("ref")
@recipe_option
@json_option
def show(ref: str, recipe_path: Path, as_json: bool) -> None:
    """Show one checkpoint: parent, digests, data, measurements, gate verdicts, cost."""
    from weightgate.lineage import checkpoint_page, open_store

    show_page(checkpoint_page(open_store(recipe_path), ref), as_json)


@main.command()
@recipe_option
@json_option
@click.option("--quick", is_flag=True, help="Check the structure only; do not hash every byte.")
def verify(recipe_path: Path, as_json: bool, quick: bool) -> None:
    """Re-hash everything in the store and say what is wrong."""
    from weightgate.lineage import open_store, verification_page

    page, problems = verification_page(open_store(recipe_path), contents=not quick)
    show_page(page, as_json)
    sys.exit(1 if problems else 0)


@main.command()
@recipe_option
@click.option("--delete", is_flag=True, help="Let go of it; without this, only say what would go.")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Also checkpoints that only history names and that were not used for so long.",
)
@click.option("--empty-trash", is_flag=True, help="Delete for good what lies in the trash, however new.")
@json_option
def gc(recipe_path: Path, delete: bool, days: float | None, empty_trash: bool, as_json: bool) -> None:
    """Say what the store could let go of, and let go of it."""
    from weightgate.housekeeping import Policy, housekeeping_page, keep_house
    from weightgate.lineage import open_store

    policy = Policy(older_than_days=days, empty_trash=empty_trash)
    kept = keep_house(open_store(recipe_path), recipe_path.parent, policy, delete=delete)
    if as_json:
        click.echo(json.dumps(kept.to_json(), indent=2))
    else:
        show_page(housekeeping_page(kept), as_json)


@main.command()
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@recipe_option
@json_option
def forget(refs: tuple[str, ...], recipe_path: Path, as_json: bool) -> None:
    """Remove refs, so that gc may let go of what only they kept."""
    from weightgate.housekeeping import forget_refs
    from weightgate.lineage import open_store

    gone = forget_refs(open_store(recipe_path), refs)
    if as_json:
        click.echo(json.dumps({"forgotten": gone}))
        return
    for name, checkpoint in gone.items():
        click.echo(f"{name} no longer stands at {checkpoint[3:15]}")


@main.command()
@click.argument("ref")
@click.argument("folder", type=click.Path(path_type=Path))
@recipe_option
@click.option("--keep-adapter", is_flag=True, help="Write the adapter apart instead of merging it.")
@click.option("--force", is_flag=True, help="Replace a folder that is not empty.")
@json_option
def export(ref: str, folder: Path, recipe_path: Path, keep_adapter: bool, force: bool, as_json: bool) -> None:
    """Write a Hugging Face folder that transformers loads as it is."""
    check_recipe(recipe_path)
    from weightgate.build import export_checkpoint, open_workspace

    told = export_checkpoint(open_workspace(recipe_path), ref, folder, merge=not keep_adapter, force=force)
    click.echo(json.dumps(told) if as_json else f"wrote {folder}")


@main.command()
@click.argument("ref")
@recipe_option
@click.option("--temperature", type=click.FloatRange(min=0.0), default=0.7, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(min=0, max=2**64 - 1), default=0, show_default=True)
def chat(ref: str, recipe_path: Path, temperature: float, max_tokens: int, seed: int) -> None:
    """Talk to a checkpoint in the terminal."""
    from weightgate.chat import chat_loop
    from weightgate.serve import generator_of

    generator = generator_of(recipe_path, ref)
    chat_loop(generator, temperature=temperature, max_tokens=max_tokens, seed=seed)


@main.command()
@click.argument("ref", required=False)
@recipe_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(min=0, max=65535), default=8000, show_default=True)
@click.option("--alias", help="Model name to answer to; default: the ref.")
@click.option(
    "--aliases", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Follow this JSON file of names."
)
@click.option("--token-variable", help="Environment variable that holds the bearer token clients must send.")
def serve(
    ref: str | None,
    recipe_path: Path,
    host: str,
    port: int,
    alias: str | None,
    aliases: Path | None,
    token_variable: str | None,
) -> None:
    """Answer as an OpenAI-compatible endpoint."""
    if (ref is None) == (aliases is None):
        raise UserError("what is served is either one checkpoint or a file of names", expected="REF or --aliases FILE")
    from weightgate.serve import generator_of, serve_aliases, serve_generator

    if aliases is not None:
        serve_aliases(recipe_path, aliases, host=host, port=port, token_variable=token_variable)
    elif ref is not None:
        generator = generator_of(recipe_path, ref)
        serve_generator(generator, alias=alias or ref, host=host, port=port, token_variable=token_variable)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo"))
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--change",
    type=click.Choice(["pretrain", "finetune", "align", "prompt", "none"]),
    default="align",
    show_default=True,
    help="What the provider ships after the first version.",
)
@json_option
def demo(folder: Path, seed: int, change: str, as_json: bool) -> None:
    """Build the built-in world with every gate, then let its provider ship a change, and find out which."""
    from weightgate.build import write_report
    from weightgate.build.progress import observer_for
    from weightgate.demo import build_world, run_incident
    from weightgate.incident.interventions import DEFAULT
    from weightgate.incident.knobs import Knobs

    with observer_for(as_json, is_main=True) as observer:
        workspace, outcome = build_world(folder, seed, observer)
        report = write_report(workspace, outcome, None).resolve()
        if not outcome.passed:
            click.echo(f"report of the build: {report}", err=as_json)
            raise GateFailed(outcome.reason)
        shipped = outcome.checkpoints[workspace.recipe.stages[-1].name]
        knobs = Knobs(seed=workspace.recipe.seed)
        told = run_incident(workspace, shipped, DEFAULT[change], observer, knobs=knobs)
    if as_json:
        click.echo(json.dumps({"build": outcome.to_json() | {"report": str(report)}, "incident": told.to_json()}))
        return
    for line in told.lines():
        click.echo(line)
    click.echo(f"report of the build: {report}")
    click.echo(f"report of the difference: {told.report.resolve()}")


for verb in (audit, diff, plan, snapshot, watch):
    main.add_command(verb)
