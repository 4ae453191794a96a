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
_FOR_MACHINES = "weightgate.json"


class _Group(click.Group):
    """Turns the exceptions of the package into messages and exit codes, for every verb."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
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


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.meta[_FOR_MACHINES] = value  # `meta` is shared with the group, which turns errors into messages
    return value


def _complain(context: click.Context, error: Exception, *, exit_code: int) -> None:
    if context.meta.get(_FOR_MACHINES):
        described = error.to_json() if isinstance(error, UserError) else {"what": str(error)}
        click.echo(json.dumps({"error": described}))
    else:
        from weightgate.report.text import visible

        # What an endpoint or a file says stands in errors too, and must not steer the terminal.
        click.echo(f"error: {visible(str(error))}", err=True)
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
_json_option = click.option("--json", "as_json", is_flag=True, callback=_remember_json, help="Print JSON for machines.")


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


@main.group(invoke_without_command=True)
@_recipe_option
@_json_option
@click.option("--no-probe", is_flag=True, help="Skip the timed training steps on this machine.")
@click.option(
    "--dollars-per-hour", type=click.FloatRange(min=0.0, min_open=True, max=1e6), help="Price of this machine."
)
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write the page, with its plots, to this file."
)
@click.pass_context
def plan(
    context: click.Context,
    recipe_path: Path,
    as_json: bool,
    no_probe: bool,
    dollars_per_hour: float | None,
    html_path: Path | None,
) -> None:
    """Say what a build will cost and what it would rebuild, and why; or, with a command, plan by scaling laws."""
    if context.invoked_subcommand is not None:
        return
    _check_recipe(recipe_path)
    from weightgate.build import open_workspace, plan_build

    page = plan_build(open_workspace(recipe_path), probe=not no_probe, dollars_per_hour=dollars_per_hour)
    _write_html(page, html_path)
    _show_page(page, as_json)


_law_option = click.option(
    "--law", "law_name", default="chinchilla-refit", show_default=True, help="A published law, or a saved fit."
)
_html_option = click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write the page, with its plots, to this file."
)


def _machine_options(command: Any) -> Any:
    """Add the options that say which accelerators a plan is priced on."""
    for option in (
        click.option(
            "--hardware", "hardware_path", type=click.Path(path_type=Path), help="Your table of accelerators."
        ),
        click.option("--utilisation", help="Share of the dense peak you measured, such as 0.4; default: by size."),
        click.option("--format", "number_format", default="bf16", show_default=True, help="Number format of the peak."),
        click.option("--price", help="Dollars an hour of one accelerator; default: the dated table."),
        click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="How many accelerators."),
        click.option("--gpu", help="Kind of accelerator, such as h100."),
    ):
        command = option(command)
    return command


@plan.command()
@click.option("--compute", help="Training FLOPs, such as 1e21.")
@click.option("--dollars", help="A budget in dollars; needs --gpu.")
@click.option("--hours", help="A budget in hours on --gpus of --gpu.")
@click.option("--params", help="Parameters of your own plan, to compare.")
@click.option("--tokens", help="Tokens of your own plan, to compare.")
@_machine_options
@_law_option
@_html_option
@_json_option
def optimal(
    compute: str | None,
    dollars: str | None,
    hours: str | None,
    params: str | None,
    tokens: str | None,
    law_name: str,
    html_path: Path | None,
    as_json: bool,
    **machine: Any,
) -> None:
    """Find the best size and number of tokens for a budget."""
    from weightgate.plan.asked import machines_from, optimal_from

    answer = optimal_from(
        budget={"--compute": compute, "--dollars": dollars, "--hours": hours},
        point=(params, tokens),
        law_name=law_name,
        machines=machines_from(**machine),
    )
    _show_answer(answer, as_json, html_path)


@plan.command()
@click.option("--quality", help="The loss to reach, by --law.")
@click.option("--like", help="Or: as good as a model of so many parameters, trained as is best.")
@click.option("--demand", required=True, help="Tokens read and written over the model's life, such as 2e12.")
@click.option("--utilisation", help="Share of peak in training; with the next one it decides both's price.")
@click.option("--inference-utilisation", help="Share of peak in inference.")
@_law_option
@_html_option
@_json_option
def inference(
    quality: str | None,
    like: str | None,
    demand: str,
    utilisation: str | None,
    inference_utilisation: str | None,
    law_name: str,
    html_path: Path | None,
    as_json: bool,
) -> None:
    """Work back from inference: the cheapest model of a quality over its life."""
    from weightgate.plan.asked import inference_from

    utilisations = (utilisation, inference_utilisation)
    answer = inference_from(quality=quality, like=like, demand=demand, law_name=law_name, utilisations=utilisations)
    _show_answer(answer, as_json, html_path)


@plan.command()
@click.option("--tokens", required=True, help="Tokens to train on.")
@click.option("--unique", required=True, help="How many of them are unique.")
@click.option("--params", help="Parameters; default: what the law wants for so many fresh tokens.")
@_law_option
@_html_option
@_json_option
def data(tokens: str, unique: str, params: str | None, law_name: str, html_path: Path | None, as_json: bool) -> None:
    """Repeat the data, grow the model, or get more data."""
    from weightgate.plan.asked import data_from

    _show_answer(data_from(tokens=tokens, unique=unique, size=params, law_name=law_name), as_json, html_path)


@plan.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[RUNS.csv | STORE...]")
@click.option("--column", "columns", multiple=True, metavar="MEANING=NAME", help="Which column holds it; repeatable.")
@click.option("--where", multiple=True, metavar="NAME=VALUE", help="Read only rows with this value; repeatable.")
@click.option("--least-ratio", default="0.41", show_default=True, help="Leave out runs with fewer tokens a parameter.")
@click.option("--params", help="Parameters of the run to forecast.")
@click.option("--tokens", help="Tokens of the run to forecast.")
@click.option("--check", "checks", multiple=True, metavar="LAW", help="Hold this law against the optimum; repeatable.")
@click.option("--draws", type=click.IntRange(min=20, max=100_000), default=1000, show_default=True, help="Refits.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the law to this file, for --law.")
@_recipe_option
@_html_option
@_json_option
def fit(
    paths: tuple[Path, ...],
    columns: tuple[str, ...],
    where: tuple[str, ...],
    least_ratio: str,
    params: str | None,
    tokens: str | None,
    checks: tuple[str, ...],
    draws: int,
    save: Path | None,
    recipe_path: Path,
    html_path: Path | None,
    as_json: bool,
) -> None:
    """Fit laws to your runs, a table of them or the store's own, and forecast a larger one."""
    from weightgate.plan.asked import fit_from

    answer = fit_from(
        paths=paths,
        columns=columns,
        where=where,
        least_ratio=least_ratio,
        point=(params, tokens),
        checks=checks,
        draws=draws,
        save=save,
        recipe_path=recipe_path,
    )
    _show_answer(answer, as_json, html_path)


@plan.command("next")
@click.option("--params", help="Parameters; default: those of the recipe, as locked.")
@click.option("--tokens", help="Tokens; default: those of the recipe, as locked.")
@click.option("--unique", help="Unique tokens among them; default: all, or the recipe's.")
@click.option("--data-price", help="Dollars of a billion new unique tokens.")
@_machine_options
@_recipe_option
@_law_option
@_html_option
@_json_option
def next_(
    params: str | None,
    tokens: str | None,
    unique: str | None,
    data_price: str | None,
    recipe_path: Path,
    law_name: str,
    html_path: Path | None,
    as_json: bool,
    **machine: Any,
) -> None:
    """Say what the next doubling of compute, data or parameters buys, in loss and in money."""
    from weightgate.plan.asked import machines_from, next_from

    answer = next_from(
        point=(params, tokens),
        unique=unique,
        data_price=data_price,
        law_name=law_name,
        machines=machines_from(**machine),
        recipe_path=recipe_path,
    )
    _show_answer(answer, as_json, html_path)


@main.command()
@_recipe_option
@_json_option
def lock(recipe_path: Path, as_json: bool) -> None:
    """Freeze the contract into weightgate.lock."""
    _check_recipe(recipe_path)
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
@click.argument("ref", required=False)
@_recipe_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
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


def _asking_options(verb: Any) -> Any:
    """Options of every verb that asks a target."""
    kind = click.Path(path_type=Path, dir_okay=False)
    options = (
        click.option("--suite", metavar="NAME|FILE", help="What is asked: a suite file; default: core, which ships."),
        click.option("--prompts", type=kind, help="Ask your own prompts instead: JSONL, one prompt a line."),
        click.option("--samples", type=click.IntRange(1, 100), default=2, show_default=True, help="For each prompt."),
        click.option("--temperature", type=click.FloatRange(0, 5), default=0.7, show_default=True),
        click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Of a completion."),
        click.option("--seed", type=int, help="Sent with each question; not all endpoints know it."),
        click.option("--model", "models", multiple=True, help="Model of a URL; in diff, twice for two models."),
        click.option("--key-variable", "keys", multiple=True, help="Environment variable that holds the key of a URL."),
        click.option("--concurrency", type=click.IntRange(1, 256), help="Most questions open at a time; default: 8."),
        click.option("--budget", multiple=True, metavar="LIMIT", help="calls=N, tokens=N or money=AMOUNT; repeatable."),
        click.option("--price", type=(float, float), metavar="PROMPT COMPLETION", help="Of a million tokens each."),
        click.option("--dry-run", is_flag=True, help="Say what it would cost, and ask nothing."),
        _recipe_option,
        _json_option,
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


@main.command()
@click.argument("target")
@_asking_options
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The snapshot's file.")
def snapshot(target: str, output: Path | None, dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Ask a target a suite and keep every completion; go on where it was."""
    from weightgate.probe.bar import progress_bar
    from weightgate.probe.inquiry import snapshot_of
    from weightgate.probe.summary import summary_json, summary_page

    address, inquiry = _address(target, 0, asked), _inquiry(asked)
    if dry_run:
        _show_forecasts({target: address}, inquiry, output, as_json)
        return
    if output is None:
        raise UserError("a snapshot needs a file", mend="name one with --output FILE")
    with progress_bar(target) as observer:
        taken = snapshot_of(address, inquiry, output, load_model=_load_model, observer=observer)
    if as_json:
        click.echo(json.dumps(summary_json(taken, output), indent=2))
    else:
        _show_page(summary_page(taken, output), as_json=False)
    sys.exit(0 if taken.complete else 1)


@main.command()
@click.argument("before")
@click.argument("after")
@_asking_options
@click.option("--a-a", "repeat", type=click.Path(path_type=Path, exists=True), help="A second recording of one side.")
@click.option("--again", is_flag=True, help="Ask the side that is asked a second time, as the A/A.")
@click.option("--tolerance", type=click.FloatRange(0), default=0.0, show_default=True, help="In standard deviations.")
@click.option("--alpha", type=click.FloatRange(0.0001, 0.5), default=0.05, show_default=True, help="False alarms.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as one HTML file.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--more", type=click.Path(path_type=Path), help="Where to write a suite that would decide.")
@click.option("--keep", type=click.Path(path_type=Path), default=Path("snapshots"), show_default=True, help="Folder.")
def diff(before: str, after: str, as_json: bool, **asked: Any) -> None:
    """Say what changed between two targets, how sure that is, and which stage moved."""
    from weightgate.diff.further import write_further
    from weightgate.diff.page import comparison_page
    from weightgate.diff.sides import write_reports

    sides = (_address(before, 0, asked), _address(after, 1, asked))
    if asked["dry_run"]:
        _show_forecasts(dict(zip((before, after), sides, strict=True)), _inquiry(asked), None, as_json)
        return
    found, before_recorded = _compared(sides, asked)
    if asked["more"]:
        click.echo(write_further(found, before_recorded, asked["more"]), err=True)
    write_reports(found, html=asked["html"], junit=asked["junit"])
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        _show_page(comparison_page(found, brief=True), as_json=False)
    sys.exit(found.exit_code)


@main.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@_json_option
@click.option("--init", "action", flag_value="init", help="Write a commented configuration to CONFIG.")
@click.option("--once", "action", flag_value="once", help="Do one look and end, for cron.")
@click.option("--baseline", "action", flag_value="baseline", help="Take a new baseline; it ends an open alarm.")
@click.option("--acknowledge", "action", flag_value="acknowledge", help="End an open alarm and keep the baseline.")
@click.option("--dry-run", "action", flag_value="dry-run", help="Say what it costs, and ask nothing.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the status page here.")
@click.option("--reason", default="", help="Why there is a new baseline, or why an alarm needs no action.")
def watch(config_path: Path, as_json: bool, action: str | None, report_path: Path | None, reason: str) -> None:
    """Ask an endpoint on a schedule, compare with its baseline, alarm."""
    from weightgate import watch as room

    if action == "init":
        room.write_template(config_path)
        click.echo(f"wrote {config_path}; next: weightgate watch {config_path} --dry-run")
        return
    watched = room.Watch.of(room.load_config(config_path), config_path.parent)
    if action == "dry-run":
        _show_page(room.cost_page(watched), as_json)
    elif action is None and report_path is None:
        room.run_on_schedule(watched, lambda told: _tell_outcome(told, as_json))
    else:
        outcome = room.do(watched, action, reason=reason, report_path=report_path)
        _tell_outcome(outcome, as_json)
        sys.exit(outcome.exit_code)


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
@_json_option
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


def _address(text: str, position: int, asked: dict[str, Any]) -> Any:
    """Find out what a target is; of options that may be given twice, the first belongs to the first target."""
    from weightgate.probe.addresses import address_of

    def own(values: tuple[str, ...]) -> str | None:
        return values[min(position, len(values) - 1)] if values else None

    return address_of(
        text,
        model=own(asked["models"]),
        key_variable=own(asked["keys"]),
        recipe_path=asked["recipe_path"],
        limits={name: asked[name] for name in ("concurrency", "budget", "price")},
    )


def _inquiry(asked: dict[str, Any]) -> Any:
    from weightgate.probe.inquiry import Inquiry, named_suite
    from weightgate.probe.recording import Decoding

    suite, name = named_suite(asked["suite"], asked["prompts"])
    decoding = Decoding(**{key: asked[key] for key in ("samples", "temperature", "max_tokens", "seed")})
    return Inquiry(suite=suite, suite_name=name, decoding=decoding)


def _compared(sides: tuple[Any, Any], asked: dict[str, Any]) -> Any:
    """Record what is no recording yet, and compare."""
    from weightgate.diff.judge import judge
    from weightgate.diff.sides import Recorder, compared_weights
    from weightgate.probe.bar import progress_bar
    from weightgate.probe.snapshot_file import load_snapshot

    with progress_bar("asking") as observer:
        recorder = Recorder(folder=asked["keep"], inquiry=_inquiry(asked), load_model=_load_model, observer=observer)
        before, after = recorder.both(*sides)
        repeat = load_snapshot(asked["repeat"]) if asked["repeat"] else None
        if asked["again"]:
            repeat = recorder.again(sides, (before, after))
    weights = compared_weights(*sides, _read_weights)
    told = {name: asked[name] for name in ("alpha", "tolerance")}
    return judge(before, after, repeat=repeat, weights=weights, **told), before


def _show_forecasts(targets: dict[str, Any], inquiry: Any, file: Path | None, as_json: bool) -> None:
    from weightgate.probe.inquiry import forecast
    from weightgate.probe.snapshot_file import load_snapshot
    from weightgate.probe.summary import forecast_page

    known = load_snapshot(file) if file is not None and file.exists() else None
    forecasts = {name: forecast(address, inquiry, known) for name, address in targets.items()}
    if as_json:
        click.echo(json.dumps({name: one.to_json() for name, one in forecasts.items()}, indent=2))
    else:
        _show_page(forecast_page(forecasts), as_json=False)


class _AuditGroup(click.Group):
    """`audit PREFS` and `audit compare OLD NEW`: whatever is no subcommand is a file to audit."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in context.help_option_names:
            args = ["prefs", *args]
        return super().parse_args(context, args)


@main.group(cls=_AuditGroup)
def audit() -> None:
    """Say what preference votes teach and what is wrong with them; compare two sets of votes."""


@audit.command("prefs")
@click.argument("preferences")
@_json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write the page as one HTML file.")
@click.option("--no-rows", is_flag=True, help="Leave prompts and answers out of the HTML file.")
@click.option("--test", "tests", multiple=True, help="Preferences that must share no prompt with these; repeatable.")
@click.option("--suite", "suites", multiple=True, type=click.Path(path_type=Path), help="Probe suite, likewise.")
@click.option("--split", default="train", show_default=True, help="Split of a hub data set.")
@click.option("--fix", "target", type=click.Path(path_type=Path), help="Write a cleaned file here, and its log.")
@click.option("--fix-noise", is_flag=True, help="With --fix, also leave out likely mislabelled rows.")
@click.option("--reward-model", metavar="REF", help="Measure the same on this reward model of the recipe's store.")
@_recipe_option
def audit_prefs(
    preferences: str,
    as_json: bool,
    html_path: Path | None,
    no_rows: bool,
    tests: tuple[str, ...],
    suites: tuple[Path, ...],
    split: str,
    target: Path | None,
    fix_noise: bool,
    reward_model: str | None,
    recipe_path: Path,
) -> None:
    """Audit one set of votes; exit code 1 when something must be looked at."""
    from weightgate.preferences.audit import audit as audit_votes
    from weightgate.preferences.cleaning import write_cleaned
    from weightgate.preferences.page import audit_page, cleaned_text
    from weightgate.preferences.prompts import prompts_elsewhere
    from weightgate.preferences.reading import read_preferences
    from weightgate.preferences.verdict import audit_json
    from weightgate.report.html import render_html

    found = audit_votes(read_preferences(preferences, split=split), others=prompts_elsewhere(tests, suites))
    view = _view_of_model(found, recipe_path, reward_model) if reward_model is not None else None
    verdict = audit_json(found) | ({"reward_model": view.to_json(found.lines)} if view is not None else {})
    if html_path is not None:
        html_path.write_text(render_html(audit_page(found, view=view, rows=not no_rows)), encoding="utf-8")
    cleaned = write_cleaned(found, Path(preferences), target, noise=fix_noise) if target is not None else None
    if as_json:
        click.echo(json.dumps(verdict | ({"fix": cleaned.to_json()} if cleaned else {}), indent=2))
    else:
        _show_page(audit_page(found, view=view, rows=False), as_json=False)
        click.echo(cleaned_text(cleaned) if cleaned else "", nl=cleaned is not None)
    sys.exit(1 if verdict["verdict"] in ("warn", "fail") else 0)


def _view_of_model(found: Any, recipe_path: Path, ref: str) -> Any:
    """What a reward model of the store prefers on the audited pairs; torch is loaded here and not before."""
    _check_recipe(recipe_path)
    from weightgate.build.reward_scores import reward_signs
    from weightgate.preferences.model_view import model_view

    return model_view(found, ref, lambda votes: reward_signs(recipe_path, ref, votes))


@audit.command("compare")
@click.argument("old")
@click.argument("new")
@_json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write the page as one HTML file.")
@click.option("--no-rows", is_flag=True, help="Leave prompts and answers out of the HTML file.")
@click.option("--split", default="train", show_default=True, help="Split of a hub data set.")
def audit_compare(old: str, new: str, as_json: bool, html_path: Path | None, no_rows: bool, split: str) -> None:
    """Say which boundaries will shift between two sets of votes; exit code 1 when any will."""
    from weightgate.preferences.compare import compare
    from weightgate.preferences.compare_page import comparison_page
    from weightgate.preferences.reading import read_preferences
    from weightgate.report.html import render_html

    found = compare(read_preferences(old, split=split), read_preferences(new, split=split))
    if html_path is not None:
        html_path.write_text(render_html(comparison_page(found, rows=not no_rows)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show_page(comparison_page(found, rows=False), as_json=False)
    sys.exit(1 if found.forecasts else 0)


def _load_model(*arguments: Any) -> Any:
    """Make a checkpoint or folder ready to answer; torch is loaded here and not before."""
    from weightgate.probe.model_targets import load_model

    return load_model(*arguments)


def _read_weights(address: Any) -> Any:
    from weightgate.probe.model_targets import read_weights

    return read_weights(address)


def _tell_outcome(told: Any, as_json: bool) -> None:
    """Print what a look of a watch came to, or the error that kept it from one; one line each."""
    if as_json:
        click.echo(json.dumps(told.to_json()))
    elif isinstance(told, UserError):
        click.echo(f"error: {told}", err=True)
    else:
        from weightgate.report.text import one_line

        click.echo(f"{told.state}: {one_line(told.message)}")


def _check_recipe(recipe_path: Path) -> None:
    """Refuse a mistake in the recipe before torch is imported, which takes seconds."""
    from weightgate import recipe

    recipe.load(recipe_path)


def _show_answer(answer: Any, as_json: bool, html_path: Path | None) -> None:
    """Print a planner's answer, and write its page where asked."""
    _write_html(answer.page, html_path)
    if as_json:
        click.echo(json.dumps(answer.to_json(), indent=2, allow_nan=False))
    else:
        _show_page(answer.page, as_json=False)


def _write_html(page: Any, path: Path | None) -> None:
    """Write a page as one HTML file, where one is asked for."""
    from weightgate.report.html import render_html

    if path is None:
        return
    try:
        path.write_text(render_html(page), encoding="utf-8")
    except OSError as problem:
        raise UserError("the page cannot be written", where=str(path), found=str(problem.strerror)) from None


def _show_page(page: Any, as_json: bool) -> None:
    """Print a report page to the terminal or as JSON."""
    from rich.console import Console

    from weightgate.report.terminal import render_terminal

    if as_json:
        click.echo(json.dumps(page.to_json(), indent=2))
    else:
        render_terminal(page, Console())
