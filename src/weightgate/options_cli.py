"""What the verbs of the command line share: options, and how a page is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from weightgate.errors import file_errors

recipe_option = click.option(
    "--recipe",
    "-r",
    "recipe_path",
    type=click.Path(path_type=Path),
    default=Path("weightgate.yaml"),
    show_default=True,
    help="The recipe.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
html_option = click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write the page, with its plots, to this file."
)


def check_recipe(recipe_path: Path) -> None:
    """Refuse a mistake in the recipe before torch is imported, which takes seconds."""
    from weightgate import recipe

    recipe.load(recipe_path)


def write_html(page: Any, path: Path | None) -> None:
    """Write a page as one HTML file, where one is asked for."""
    from weightgate.report.html import render_html

    if path is None:
        return
    with file_errors("page", path):
        path.write_text(render_html(page), encoding="utf-8")


def show_page(page: Any, as_json: bool) -> None:
    """Print a report page to the terminal or as JSON."""
    from rich.console import Console

    from weightgate.report.terminal import render_terminal

    if as_json:
        click.echo(json.dumps(page.to_json(), indent=2))
    else:
        render_terminal(page, Console())
