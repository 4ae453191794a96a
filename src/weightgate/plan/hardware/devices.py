"""The table of accelerators, and a user's own over it."""

from __future__ import annotations

import datetime
import difflib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from weightgate.errors import UserError
from weightgate.strict_yaml import StrictPart, load_strict, parse_strict

SECONDS_PER_HOUR = 3600.0


class Device(StrictPart):
    """One accelerator."""

    peak: dict[str, float] = Field(description="dense FLOP/s by number format")
    memory_gib: float = Field(gt=0)
    bandwidth: float = Field(gt=0, description="bytes/s of its memory")
    dollars_per_hour: list[float] | float | None = Field(
        None, description="of one device: one price, or lowest, median and highest"
    )

    @field_validator("peak")
    @classmethod
    def _some_positive(cls, peak: dict[str, float]) -> dict[str, float]:
        if not peak or any(value <= 0 for value in peak.values()):
            raise ValueError("a device needs a positive peak for at least one number format")
        return peak

    @field_validator("dollars_per_hour")
    @classmethod
    def _one_or_three(cls, price: list[float] | float | None) -> list[float] | float | None:
        prices = price if isinstance(price, list) else [] if price is None else [price]
        if any(each <= 0 for each in prices) or (
            isinstance(price, list) and (len(price) != 3 or price != sorted(price))
        ):
            raise ValueError("a price is one positive number, or three: lowest, median, highest")
        return price

    @property
    def price(self) -> tuple[float, float, float] | None:
        """Lowest, median and highest dollars an hour; None where nobody said."""
        if self.dollars_per_hour is None:
            return None
        if isinstance(self.dollars_per_hour, list):
            low, middle, high = self.dollars_per_hour
            return low, middle, high
        return (self.dollars_per_hour,) * 3


class Hardware(StrictPart):
    """A table of accelerators with the date of its prices."""

    version: Literal[1]
    price_date: datetime.date
    devices: dict[str, Device]

    def device(self, name: str) -> Device:
        """Return a device by name. Raises `UserError` naming those there are."""
        if name.lower() in self.devices:
            return self.devices[name.lower()]
        near = difflib.get_close_matches(name.lower(), self.devices, n=1, cutoff=0.4)
        raise UserError(
            f"no accelerator is called {name!r}",
            where="--gpu",
            expected="one of " + ", ".join(self.devices),
            mend=f"write {near[0]}" if near else "describe it in a file and give that as --hardware",
        )


def load_hardware(path: Path | None = None) -> Hardware:
    """Read the built-in table; entries of `path`, and its date, go over it. Raises `UserError` where it is none."""
    text = files(__package__).joinpath("table.yaml").read_text(encoding="utf-8")
    ours = parse_strict(text, Hardware, origin="table.yaml", noun="table of accelerators", error=UserError)
    if path is None:
        return ours
    mend = "name a file that is there, or leave out --hardware: the built-in table will do"
    theirs = load_strict(path, Hardware, noun="table of accelerators", error=UserError, mend_missing=mend)
    named = {name.lower(): device for name, device in theirs.devices.items()}
    return ours.model_copy(update={"price_date": theirs.price_date, "devices": {**ours.devices, **named}})
