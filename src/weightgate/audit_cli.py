"""`weightgate audit` and the commands below it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from weightgate.errors import UserError
from weightgate.options_cli import json_option, recipe_option, show_page, write_html


class _AuditGroup(click.Group):
    """`audit PREFS` and `audit compare OLD NEW`: whatever is no subcommand is a file to audit."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in context.help_option_names:
            args = ["prefs", *args]
        return super().parse_args(context, args)


@click.group(cls=_AuditGroup)
def audit() -> None:
    """Say what preference votes teach and what is wrong with them; compare two sets of votes."""


@audit.command("prefs")
@click.argument("preferences")
@json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write the page as one HTML file.")
@click.option("--no-rows", is_flag=True, help="Leave prompts and answers out of the HTML file.")
@click.option("--test", "tests", multiple=True, help="Preferences that must share no prompt with these; repeatable.")
@click.option("--suite", "suites", multiple=True, type=click.Path(path_type=Path), help="Probe suite, likewise.")
@click.option("--split", default="train", show_default=True, help="Split of a hub data set.")
@click.option("--fix", "target", type=click.Path(path_type=Path), help="Write a cleaned file here, and its log.")
@click.option("--fix-noise", is_flag=True, help="With --fix, also leave out likely mislabelled rows.")
@click.option("--reward-model", metavar="REF|FOLDER", help="Measure the same on this reward model.")
@recipe_option
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
    from weightgate.preferences.cleaning import require_new, write_cleaned
    from weightgate.preferences.model_view import reward_address
    from weightgate.preferences.page import audit_page, cleaned_text
    from weightgate.preferences.prompts import prompts_elsewhere
    from weightgate.preferences.reading import read_preferences
    from weightgate.preferences.verdict import audit_json

    if fix_noise and target is None:
        raise UserError("--fix-noise says what --fix leaves out, and there is no --fix", mend="--fix OUT --fix-noise")
    if target is not None:
        require_new(Path(preferences), target)  # before minutes are spent
    address = reward_address(reward_model, recipe_path) if reward_model is not None else None
    found = audit_votes(read_preferences(preferences, split=split), others=prompts_elsewhere(tests, suites))
    view = _view_of_model(found, str(reward_model), address) if address is not None else None
    verdict = audit_json(found) | ({"reward_model": view.to_json(found.lines)} if view is not None else {})
    if html_path is not None:
        write_html(audit_page(found, view=view, rows=not no_rows), html_path)
    cleaned = write_cleaned(found, Path(preferences), target, noise=fix_noise) if target is not None else None
    if as_json:
        click.echo(json.dumps(verdict | ({"fix": cleaned.to_json()} if cleaned else {}), indent=2))
    else:
        show_page(audit_page(found, view=view, rows=False), as_json=False)
        click.echo(cleaned_text(cleaned) if cleaned else "", nl=cleaned is not None)
    sys.exit(1 if verdict["verdict"] in ("warn", "fail") else 0)


@audit.command("compare")
@click.argument("old")
@click.argument("new")
@json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write the page as one HTML file.")
@click.option("--no-rows", is_flag=True, help="Leave prompts and answers out of the HTML file.")
@click.option("--split", default="train", show_default=True, help="Split of a hub data set.")
def audit_compare(old: str, new: str, as_json: bool, html_path: Path | None, no_rows: bool, split: str) -> None:
    """Say which boundaries will shift between two sets of votes; exit code 1 when any will."""
    from weightgate.preferences.compare import compare
    from weightgate.preferences.compare_page import comparison_page
    from weightgate.preferences.reading import read_preferences

    found = compare(read_preferences(old, split=split), read_preferences(new, split=split))
    if html_path is not None:
        write_html(comparison_page(found, rows=not no_rows), html_path)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        show_page(comparison_page(found, rows=False), as_json=False)
    sys.exit(1 if found.forecasts else 0)


def _view_of_model(found: Any, name: str, address: Any) -> Any:
    """What a reward model prefers on the audited pairs; torch is loaded here and not before."""
    from weightgate.build.reward_scores import preferred_by
    from weightgate.preferences.model_view import model_view

    return model_view(found, name, lambda votes: preferred_by(address, votes))
