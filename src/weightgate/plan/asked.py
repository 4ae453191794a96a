"""What a user typed, as arguments of the planner; every mistake in it is a `UserError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from weightgate.contract.lock import FILE_NAME as LOCK_NAME
from weightgate.contract.lock import read_lock
from weightgate.errors import UserError
from weightgate.plan.advice import DEFAULT_LAW, data_advice, planned_run, pretraining
from weightgate.plan.answer import Answer
from weightgate.plan.budget import Compute, Machines, of_dollars, of_flops, of_hours
from weightgate.plan.data_limit import data_limit
from weightgate.plan.fit.builds import runs_of_stores
from weightgate.plan.fit.report import fit_answer, fit_runs
from weightgate.plan.fit.runs import Runs, usable
from weightgate.plan.fit.table import MEANINGS, read_runs
from weightgate.plan.hardware.devices import load_hardware
from weightgate.plan.inference import inference, quality_of_loss, quality_of_size
from weightgate.plan.laws.loss import LossLaw
from weightgate.plan.laws.saved import find_law, write_law
from weightgate.plan.next_doubling import Run, next_doubling
from weightgate.plan.optimal import optimal
from weightgate.plan.quantities import read_quantity
from weightgate.recipe import FILE_NAME, load

_LEAST_FLOPS = 1e9
_BILLION = 1e9


def machines_from(
    *,
    gpu: str | None,
    gpus: int,
    number_format: str,
    price: str | None,
    utilisation: str | None,
    hardware_path: Path | None,
) -> Machines | None:
    """Return the machines asked for; None where no kind was named, and nothing that only makes sense with one."""
    if gpu is None:
        idle = {"--price": price, "--utilisation": utilisation, "--hardware": hardware_path}
        named = [name for name, given in idle.items() if given is not None] + (["--gpus"] if gpus > 1 else [])
        if named:
            raise UserError("this says nothing without a kind of accelerator", where=named[0], mend="add --gpu h100")
        return None
    hardware = load_hardware(hardware_path)
    device = hardware.device(gpu)
    if price is not None:
        device = device.model_copy(update={"dollars_per_hour": read_quantity(price, name="--price")})
    share = None if utilisation is None else _share(utilisation, "--utilisation")
    return Machines(name=gpu.lower(), device=device, count=gpus, number_format=number_format, stated=share)


def optimal_from(
    *,
    budget: Mapping[str, str | None],
    point: tuple[str | None, str | None],
    law_name: str,
    machines: Machines | None,
) -> Answer:
    """Answer `weightgate plan optimal`; `budget` maps each option to what was typed."""
    law = find_law(law_name)
    return optimal(_budget(budget, machines, law), law, machines=machines, point=point_from(*point))


def inference_from(
    *,
    quality: str | None,
    like: str | None,
    demand: str,
    law_name: str,
    utilisations: tuple[str | None, str | None],
) -> Answer:
    """Answer `weightgate plan inference`; `utilisations` are of training and of inference, and decide both's price."""
    law = find_law(law_name)
    if (quality is None) == (like is None):
        raise UserError("say the quality in one way", expected="exactly one of --quality, --like")
    wanted = (
        quality_of_loss(read_quantity(quality, name="--quality"), law)
        if quality is not None
        else quality_of_size(read_quantity(str(like), name="--like", least=1), law)
    )
    return inference(
        wanted,
        read_quantity(demand, name="--demand", least=1),
        law,
        inference_price=_share(utilisations[0], "--utilisation") / _share(utilisations[1], "--inference-utilisation"),
    )


def data_from(*, tokens: str, unique: str, size: str | None, law_name: str) -> Answer:
    """Answer `weightgate plan data`."""
    return data_limit(
        read_quantity(tokens, name="--tokens", least=1),
        read_quantity(unique, name="--unique", least=1),
        find_law(law_name),
        parameters=None if size is None else read_quantity(size, name="--params", least=1),
    )


def next_from(
    *,
    point: tuple[str | None, str | None],
    unique: str | None,
    data_price: str | None,
    law_name: str,
    machines: Machines | None,
    recipe_path: Path,
) -> Answer:
    """Answer `weightgate plan next`, for the point that was typed or, without one, for the recipe's pre-training."""
    stated = point_from(*point)
    if stated is None and not recipe_path.exists():
        raise UserError("there is no recipe here", where=str(recipe_path), mend="give --params and --tokens")
    run = locked_run(recipe_path) if stated is None else Run(parameters=stated[0], tokens=stated[1], unique=stated[1])
    if unique is not None:
        distinct = min(read_quantity(unique, name="--unique", least=1), run.tokens)
        run = Run(parameters=run.parameters, tokens=run.tokens, unique=distinct)
    price = None if data_price is None else read_quantity(data_price, name="--data-price") / _BILLION
    return next_doubling(run, find_law(law_name), machines=machines, dollars_per_token=price)


def fit_from(
    *,
    paths: Sequence[Path],
    columns: Sequence[str],
    where: Sequence[str],
    least_ratio: str,
    point: tuple[str | None, str | None],
    checks: Sequence[str],
    draws: int,
    save: Path | None,
    recipe_path: Path,
) -> Answer:
    """Answer `weightgate plan fit`, and save the law where asked."""
    runs = usable(
        _runs_at(paths, columns, where, recipe_path), least_ratio=read_quantity(least_ratio, name="--least-ratio")
    )
    fitted = fit_runs(runs, draws=draws)
    if save is not None:
        write_law(fitted.law, save)
    return fit_answer(fitted, point=point_from(*point), claims=[find_law(name) for name in checks])


def _runs_at(paths: Sequence[Path], columns: Sequence[str], where: Sequence[str], recipe_path: Path) -> Runs:
    if not paths and not recipe_path.exists():
        raise UserError("there is no recipe here, so no store of builds", where=str(recipe_path), mend="name a table")
    if not paths:
        return runs_of_stores([recipe_path.parent / load(recipe_path).store])
    if all(path.is_dir() for path in paths):
        stores = {store.resolve(): store for store in map(_store_at, paths)}  # projects may share one
        return runs_of_stores(list(stores.values()))
    if len(paths) > 1:
        raise UserError(
            "give one table of runs, or any number of stores",
            found=", ".join(map(str, paths)),
            mend="write the runs into one table",
        )
    named = dict(_pair(text, "--column") for text in columns)
    unknown = next((name for name in named if name not in MEANINGS), None)
    if unknown is not None:
        raise UserError(f"no column is read as {unknown!r}", where="--column", expected="one of " + ", ".join(MEANINGS))
    return read_runs(paths[0], named=named, where=dict(_pair(text, "--where") for text in where))


def _store_at(folder: Path) -> Path:
    """The store that a project folder's recipe names, or the folder itself."""
    recipe_path = folder / FILE_NAME
    return folder / load(recipe_path).store if recipe_path.exists() else folder


def _pair(text: str, name: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals or not left:
        raise UserError("this is no pair", where=name, expected="NAME=VALUE", found=text, mend=f"{name} NAME=VALUE")
    return left, right


def locked_run(recipe_path: Path) -> Run:
    """The recipe's pre-training as its lock states it. Raises `UserError` where there is none to read."""
    recipe = load(recipe_path)
    run = planned_run(recipe, read_lock(recipe_path.parent / LOCK_NAME)["stages"]) if pretraining(recipe) else None
    if run is None:
        raise UserError(
            "the recipe does no pre-training from scratch", where=str(recipe_path), mend="give --params and --tokens"
        )
    return run


def lock_warnings(recipe_path: Path) -> list[str]:
    """What `weightgate lock` says beside its result."""
    run = planned_run(load(recipe_path), read_lock(recipe_path.parent / LOCK_NAME)["stages"])
    advice = data_advice(run, find_law(DEFAULT_LAW)) if run else None
    return [advice] if advice else []


def _share(text: str | None, name: str) -> float:
    """A share between 0 and 1; 1 where nothing was typed."""
    if text is None:
        return 1.0
    try:
        value = read_quantity(text, name=name)
    except UserError:
        raise UserError(
            "this is no share", where=name, expected="a number above 0 and up to 1, such as 0.4", found=text[:40]
        ) from None
    if value > 1:
        raise UserError(
            "more than the dense peak cannot be had", where=name, expected="a share between 0 and 1", found=text
        )
    return value


def point_from(size: str | None, tokens: str | None) -> tuple[float, float] | None:
    """Parameters and tokens of the user's plan; None where neither was given."""
    if size is None and tokens is None:
        return None
    if size is None or tokens is None:
        missing = "--params" if size is None else "--tokens"
        raise UserError(
            "a plan needs both its parameters and its tokens", mend=f"add {missing}, or leave out the other"
        )
    return read_quantity(size, name="--params", least=1), read_quantity(tokens, name="--tokens", least=1)


def _budget(budget: Mapping[str, str | None], machines: Machines | None, law: LossLaw) -> Compute:
    stated = {name: text for name, text in budget.items() if text is not None}
    if len(stated) != 1:
        raise UserError(
            "say the budget in one way",
            expected="exactly one of " + ", ".join(budget),
            found=", ".join(stated) or "none of them",
        )
    name, text = next(iter(stated.items()))
    if name == "--compute":
        return of_flops(read_quantity(text, name=name, least=_LEAST_FLOPS))
    amount = read_quantity(text, name=name)
    if machines is None:
        raise UserError("a budget in dollars or hours needs a kind of accelerator", where="--gpu", mend="--gpu h100")
    return of_dollars(amount, machines, law) if name == "--dollars" else of_hours(amount, machines, law)
