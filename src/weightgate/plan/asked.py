"""What a user typed, as arguments of the planner; every mistake in it is a `UserError`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightgate.errors import UserError
from weightgate.plan.answer import Answer
from weightgate.plan.budget import Compute, Machines, of_dollars, of_flops, of_hours
from weightgate.plan.hardware.devices import load_hardware
from weightgate.plan.laws.loss import LossLaw
from weightgate.plan.laws.saved import find_law
from weightgate.plan.optimal import optimal
from weightgate.plan.quantities import read_quantity

_LEAST_FLOPS = 1e9


def machines_from(
    *,
    gpu: str | None,
    gpus: int,
    number_format: str,
    price: str | None,
    utilisation: str | None,
    hardware_path: Path | None,
) -> Machines | None:
    """Return the machines asked for; None where no kind was named."""
    if gpu is None:
        return None
    hardware = load_hardware(hardware_path)
    device = hardware.device(gpu)
    if price is not None:
        device = device.model_copy(update={"dollars_per_hour": read_quantity(price, name="--price")})
    share = None if utilisation is None else read_quantity(utilisation, name="--utilisation")
    if share is not None and share > 1:
        raise UserError(
            "more than the dense peak cannot be had",
            where="--utilisation",
            expected="a share between 0 and 1",
            found=utilisation,
        )
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


def point_from(parameters: str | None, tokens: str | None) -> tuple[float, float] | None:
    """Parameters and tokens of the user's plan; None where neither was given."""
    if parameters is None and tokens is None:
        return None
    if parameters is None or tokens is None:
        raise UserError("a plan to compare needs both its parameters and its tokens", where="--params, --tokens")
    return read_quantity(parameters, name="--params", least=1), read_quantity(tokens, name="--tokens", least=1)


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
