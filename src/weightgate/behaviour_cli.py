"""`weightgate snapshot`, `diff` and `watch`: ask, compare, and ask again on a schedule."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from weightgate.errors import UserError
from weightgate.options_cli import json_option, recipe_option, show_page


class _Temperature(click.ParamType[float | None]):
    """A temperature, or None for the word `default`: some models take no other than their own."""

    name = "float|default"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float | None:
        return None if value == "default" else click.FloatRange(0, 5).convert(value, param, context)


def _asking_options(verb: Any) -> Any:
    """Options of every verb that asks a target."""
    kind = click.Path(path_type=Path, dir_okay=False)
    options = (
        click.option("--suite", metavar="NAME|FILE", help="What is asked: a suite file; default: core, which ships."),
        click.option("--prompts", type=kind, help="Ask your own prompts instead: JSONL, one prompt a line."),
        click.option("--samples", type=click.IntRange(1, 100), default=2, show_default=True, help="For each prompt."),
        click.option(
            "--temperature",
            type=_Temperature(),
            default="0.7",
            show_default=True,
            help="Or default: the endpoint's own.",
        ),
        click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Of a completion."),
        click.option("--seed", type=int, help="Sent with each question; not all endpoints know it."),
        click.option("--model", "models", multiple=True, help="Model of a URL; in diff, twice for two models."),
        click.option("--key-variable", "keys", multiple=True, help="Environment variable that holds the key of a URL."),
        click.option("--concurrency", type=click.IntRange(1, 256), help="Most questions open at a time; default: 8."),
        click.option("--budget", multiple=True, metavar="LIMIT", help="calls=N, tokens=N or money=AMOUNT; repeatable."),
        click.option("--price", type=(float, float), metavar="PROMPT COMPLETION", help="Of a million tokens each."),
        click.option("--logprobs", type=click.IntRange(0, 20), help="Ask for so many log-probabilities of each token."),
        click.option("--dry-run", is_flag=True, help="Say what it would cost, and ask nothing."),
        recipe_option,
        json_option,
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


@click.command()
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
        show_page(summary_page(taken, output), as_json=False)
    sys.exit(0 if taken.complete else 1)


@click.command()
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
    _require_outputs(sides, asked)
    found, before_recorded = _compared(sides, asked)
    if asked["more"]:
        click.echo(write_further(found, before_recorded, asked["more"]), err=True)
    write_reports(found, html=asked["html"], junit=asked["junit"])
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        show_page(comparison_page(found, brief=True), as_json=False)
    sys.exit(found.exit_code)


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@json_option
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
    from weightgate.probe.outputs import require_writable

    if action == "init":
        room.write_template(config_path)
        click.echo(f"wrote {config_path}; next: weightgate watch {config_path} --dry-run")
        return
    if action is None and report_path is None:
        room.run_on_schedule(config_path, lambda told: _tell_outcome(told, as_json))
        return
    watched = room.Watch.read(config_path)
    require_writable({"--report": report_path}, (config_path, *watched.kept_files))
    if action == "dry-run":
        show_page(room.cost_page(watched), as_json)
    else:
        outcome = room.do(watched, action, reason=reason, report_path=report_path)
        _tell_outcome(outcome, as_json)
        sys.exit(outcome.exit_code)


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
        find_checkpoint=_find_checkpoint,
        limits={name: asked[name] for name in ("concurrency", "budget", "price", "logprobs")},
    )


def _inquiry(asked: dict[str, Any]) -> Any:
    from weightgate.probe.inquiry import Inquiry, named_suite
    from weightgate.probe.recording import Decoding

    suite, name = named_suite(asked["suite"], asked["prompts"])
    decoding = Decoding(**{key: asked[key] for key in ("samples", "temperature", "max_tokens", "seed")})
    return Inquiry(suite=suite, suite_name=name, decoding=decoding)


def _require_outputs(sides: tuple[Any, Any], asked: dict[str, Any]) -> None:
    """Refuse what `diff` could not write, or would write over a recording, before anything is asked."""
    from weightgate.probe.addresses import RecordingAddress
    from weightgate.probe.outputs import require_writable

    recordings = [side.path for side in sides if isinstance(side, RecordingAddress)]
    recordings += [asked["repeat"]] if asked["repeat"] else []
    require_writable({f"--{name}": asked[name] for name in ("html", "junit", "more")}, recordings)


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
    for recorded in (before, after):
        _warn_of_gaps(recorded)
    weights = compared_weights(*sides, _read_weights)
    told = {name: asked[name] for name in ("alpha", "tolerance")}
    return judge(before, after, repeat=repeat, weights=weights, **told), before


def _warn_of_gaps(recorded: Any) -> None:
    """Say on standard error that a snapshot is not complete: what is missing may be what changed."""
    if not recorded.complete:
        asked = len(recorded.probes) * recorded.decoding.samples
        missing = asked - sum(answer.reply.error is None for answer in recorded.answers)
        target = f"{recorded.target.model} at {recorded.target.place}"
        click.echo(f"warning: {missing:,} of {asked:,} questions to {target} have no answer and are left out", err=True)


def _show_forecasts(targets: dict[str, Any], inquiry: Any, file: Path | None, as_json: bool) -> None:
    from weightgate.probe.inquiry import forecast
    from weightgate.probe.snapshot_file import load_snapshot
    from weightgate.probe.summary import forecast_page

    known = load_snapshot(file) if file is not None and file.exists() else None
    forecasts = {name: forecast(address, inquiry, known) for name, address in targets.items()}
    if as_json:
        click.echo(json.dumps({name: one.to_json() for name, one in forecasts.items()}, indent=2))
    else:
        show_page(forecast_page(forecasts), as_json=False)


def _find_checkpoint(recipe_path: Path, ref: str) -> Any:
    """Resolve a ref of a store; recipe and store are loaded here and not for an endpoint."""
    from weightgate.probe.checkpoint_addresses import checkpoint_address

    return checkpoint_address(recipe_path, ref)


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
        for problem in told.problems:
            click.echo(f"error: {problem}", err=True)
