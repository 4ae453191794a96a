"""A budget in FLOPs, dollars or hours, as training compute with its range; and what compute costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weightgate.errors import UserError
from weightgate.plan.doubted import Doubted
from weightgate.plan.hardware.devices import SECONDS_PER_HOUR, Device
from weightgate.plan.hardware.utilisation import Utilisation, stated_utilisation, utilisation_by_size
from weightgate.plan.laws.loss import LossLaw

_SETTLING_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Accelerators of one kind: how many, at which share of peak, in which number format.

    `stated` is the utilisation that the user measured, or None: then it follows from the model's size.
    """

    name: str
    device: Device
    count: int = 1
    number_format: str = "bf16"
    stated: float | None = None

    def utilisation(self, parameters: float) -> Utilisation:
        """Share of peak that training a model of this size gets."""
        return utilisation_by_size(parameters) if self.stated is None else stated_utilisation(self.stated)

    @property
    def peak(self) -> float:
        """Dense FLOP/s of one device. Raises `UserError` where the table does not know the number format."""
        if self.number_format not in self.device.peak:
            raise UserError(
                f"the peak of {self.name} in {self.number_format} is not known",
                where="--format",
                expected="one of " + ", ".join(self.device.peak),
            )
        return self.device.peak[self.number_format]

    @property
    def price(self) -> tuple[float, float, float]:
        """Dollars an hour of one device: lowest, median, highest. Raises `UserError` where nobody said."""
        if self.device.price is None:
            raise UserError(
                f"no price is known for {self.name}",
                where="--gpu",
                expected="dollars_per_hour in the file given as --hardware, or --price",
            )
        return self.device.price


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A budget as training compute. `said` repeats it in words."""

    flops: Doubted
    said: str


def of_flops(flops: float) -> Compute:
    """A budget that was stated in FLOPs."""
    return Compute(flops=Doubted(low=flops, value=flops, high=flops), said=f"{flops:.3g} FLOP")


def of_hours(hours: float, machines: Machines, law: LossLaw) -> Compute:
    """A budget in hours on some machines. Utilisation depends on the size, and the size on the budget: both settle."""
    at_peak = hours * SECONDS_PER_HOUR * machines.count * machines.peak
    said = f"{hours:g} hours on {machines.count} {machines.name}"
    return Compute(flops=_settled(lambda share: at_peak * share, machines, law), said=said)


def of_dollars(dollars: float, machines: Machines, law: LossLaw) -> Compute:
    """A budget in dollars: the cheapest hour at the best utilisation, to the dearest at the worst."""
    low, middle, high = machines.price
    per_hour = SECONDS_PER_HOUR * machines.peak
    settled = _settled(lambda share: dollars / middle * per_hour * share, machines, law)
    flops = Doubted(low=settled.low * middle / high, value=settled.value, high=settled.high * middle / low)
    return Compute(flops=flops, said=f"{dollars:,.10g} dollars of {machines.name}")


def _settled(flops_at: Callable[[float], float], machines: Machines, law: LossLaw) -> Doubted:
    flops = flops_at(0.3)
    for _ in range(_SETTLING_ROUNDS):
        share = machines.utilisation(float(law.constants.optimum(flops)[0]))
        flops = flops_at(share.value)
    return Doubted(low=flops_at(share.low), value=flops, high=flops_at(share.high))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training compute takes: hours of all machines together running side by side, device-hours, dollars."""

    hours: Doubted
    device_hours: Doubted
    dollars: Doubted | None
    utilisation: Utilisation

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "hours": self.hours.to_json(),
            "device_hours": self.device_hours.to_json(),
            "dollars": self.dollars.to_json() if self.dollars else None,
            "utilisation": dict(vars(self.utilisation)),
        }


def cost_of(flops: float, parameters: float, machines: Machines) -> Cost:
    """Time and price of `flops` of training a model of this size; the highest price goes with the worst utilisation."""
    share = machines.utilisation(parameters)
    at_peak = flops / machines.peak / SECONDS_PER_HOUR
    device_hours = Doubted(low=at_peak / share.high, value=at_peak / share.value, high=at_peak / share.low)
    price = machines.device.price
    dollars = (
        Doubted(low=device_hours.low * price[0], value=device_hours.value * price[1], high=device_hours.high * price[2])
        if price
        else None
    )
    return Cost(
        hours=device_hours.times(1 / machines.count), device_hours=device_hours, dollars=dollars, utilisation=share
    )
