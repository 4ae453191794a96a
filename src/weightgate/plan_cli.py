"""`weightgate plan` and the commands below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from weightgate.options_cli import check_recipe, html_option, json_option, recipe_option, show_page, write_html


@click.group(invoke_without_command=True)
@recipe_option
@json_option
@click.option("--no-probe", is_flag=True, help="Skip the timed training steps on this machine.")
@click.option(
    "--dollars-per-hour", type=click.FloatRange(min=0.0, min_open=True, max=1e6), help="Price of this machine."
)
@html_option
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
    check_recipe(recipe_path)
    from weightgate.build import open_workspace, plan_build

    page = plan_build(open_workspace(recipe_path), probe=not no_probe, dollars_per_hour=dollars_per_hour)
    write_html(page, html_path)
    show_page(page, as_json)


_law_option = click.option(
    "--law", "law_name", default="chinchilla-refit", show_default=True, help="A published law, or a saved fit."
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
@html_option
@json_option
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
@html_option
@json_option
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
@html_option
@json_option
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
@recipe_option
@html_option
@json_option
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
@recipe_option
@_law_option
@html_option
@json_option
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


@plan.command()
@click.option("--base-parameters", help="Parameters of the base model; default: those of the recipe, as locked.")
@click.option("--samples", help="Fine-tuning examples; default: those of the recipe, as locked.")
@click.option("--tokens", help="Or their tokens; needs --tokens-per-sample.")
@click.option("--tokens-per-sample", help="Tokens of one example, prompt and answer; needed for FLOPs and prices.")
@click.option("--epochs", help="Passes over the examples, for FLOPs and prices; default: 1, or the recipe's.")
@click.option("--quality", help="Or a loss to reach on the law's task, such as 0.9: how many examples that takes.")
@click.option(
    "--method", type=click.Choice(["full", "lora", "prompt"]), help="Way to tune; default: what the law says."
)
@_machine_options
@recipe_option
@html_option
@json_option
def finetune(
    base_parameters: str | None,
    samples: str | None,
    tokens: str | None,
    tokens_per_sample: str | None,
    epochs: str | None,
    quality: str | None,
    method: str | None,
    recipe_path: Path,
    html_path: Path | None,
    as_json: bool,
    **machine: Any,
) -> None:
    """Say how much fine-tuning data buys what, and which way to tune."""
    from weightgate.plan.asked import machines_from
    from weightgate.plan.asked_stages import finetune_from

    answer = finetune_from(
        base_parameters=base_parameters,
        samples=samples,
        tokens=tokens,
        tokens_per_sample=tokens_per_sample,
        epochs=epochs,
        quality=quality,
        method=method,
        machines=machines_from(**machine),
        recipe_path=recipe_path,
    )
    _show_answer(answer, as_json, html_path)


@plan.command()
@click.option("--reward-model-parameters", help="Parameters of the reward model; default: the recipe's, as locked.")
@click.option("--comparisons", help="Pairs it learns from; default: the recipe's, as locked.")
@click.option("--kl", help="KL in nats a completion to ask about; default: what the recipe's gate lets pass.")
@click.option("--search", type=click.Choice(["ppo", "best-of-n"]), default="ppo", show_default=True, help="How.")
@click.option("--runs", type=click.Path(path_type=Path), help="Your own curve: a table with columns kl and gold.")
@recipe_option
@html_option
@json_option
def align(
    reward_model_parameters: str | None,
    comparisons: str | None,
    kl: str | None,
    search: Any,
    runs: Path | None,
    recipe_path: Path,
    html_path: Path | None,
    as_json: bool,
) -> None:
    """Say how gold reward goes along KL, where it peaks, and which KL to allow."""
    from weightgate.plan.asked_stages import align_from

    answer = align_from(
        reward_parameters=reward_model_parameters,
        comparisons=comparisons,
        kl=kl,
        search=search,
        runs=runs,
        recipe_path=recipe_path,
    )
    _show_answer(answer, as_json, html_path)


def _show_answer(answer: Any, as_json: bool, html_path: Path | None) -> None:
    """Print a planner's answer, and write its page where asked."""
    write_html(answer.page, html_path)
    if as_json:
        click.echo(json.dumps(answer.to_json(), indent=2, allow_nan=False))
    else:
        show_page(answer.page, as_json=False)
