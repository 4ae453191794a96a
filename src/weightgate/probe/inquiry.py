"""What is asked of a target and how: suite, decoding, and what that costs before it is begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weightgate.errors import DataError, ModelError
from weightgate.probe.addresses import Address, EndpointAddress, ModelAddress, RecordingAddress
from weightgate.probe.endpoint import EndpointAsker
from weightgate.probe.endpoint_config import CostEstimate, Spending, estimate_cost
from weightgate.probe.prompts import load_prompts
from weightgate.probe.recording import Decoding, Snapshot
from weightgate.probe.snapshot import Asker, Observer, open_questions, take_snapshot, unobserved
from weightgate.probe.suites import CORE, Suite, core_suite, load_suite

DEFAULT_DECODING = Decoding(samples=2, temperature=0.7, max_tokens=512)
"""Two samples tell what differs between two answers of one and the same target: without that, no alarm is trusted."""

LoadModel = Callable[[ModelAddress, Suite, Decoding], Asker]
"""Makes a checkpoint or folder ready to answer. Given from outside, because it needs torch and this does not."""


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A suite and how each completion of it is drawn."""

    suite: Suite
    suite_name: str
    decoding: Decoding = DEFAULT_DECODING


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a snapshot would still ask: questions that are open, and what they cost at most, retries aside.

    `cost` is None for a model in memory, which costs nothing but time.
    """

    prompts: int
    samples: int
    answered: int
    open_questions: int
    cost: CostEstimate | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "cost": self.cost.model_dump() if self.cost else None}


def named_suite(suite: str | None, prompts: Path | None = None) -> tuple[Suite, str]:
    """Return a suite with its name: of the user's own prompts, the one that ships, or one out of a file.

    Raises `DataError` for a file that is no suite, and where both a suite and prompts are given.
    """
    if prompts is not None:
        if suite is not None:
            raise DataError("a snapshot asks a suite or your own prompts, not both", where=f"{suite}, {prompts}")
        return load_prompts(prompts), prompts.stem
    if suite is None or (suite == CORE and not Path(suite).exists()):
        return core_suite(), CORE
    return load_suite(Path(suite)), Path(suite).stem


def inquiry_like(snapshot: Snapshot, decoding: Decoding) -> Inquiry:
    """Ask what a snapshot was asked, in the same way; `decoding` fills in what a recording does not state.

    A snapshot of our own states all: without a temperature, the endpoint's own was used.
    """
    is_own = snapshot.target.kind != "recording"
    stated = {name: value for name, value in vars(snapshot.decoding).items() if is_own or value is not None}
    return Inquiry(
        suite=Suite(probes=snapshot.probes),
        suite_name=snapshot.header.suite_name,
        decoding=replace(decoding, **stated),
    )


def asker_of(address: Address, inquiry: Inquiry, load_model: LoadModel) -> Asker:
    """Make a target ready to answer.

    Raises `DataError` for a recording, which answers nothing new, `EndpointError` for a key that is not set, and
    `ModelError` for a model that is asked without a temperature.
    """
    if isinstance(address, RecordingAddress):
        raise DataError("a recording cannot be asked", where=str(address.path), mend="name what it is a recording of")
    if isinstance(address, EndpointAddress):
        address.config.headers()  # a key that is missing is told before a file is begun
        return EndpointAsker(config=address.config, spending=Spending(address.config))
    if inquiry.decoding.temperature is None:
        raise ModelError("a model in memory has no temperature of its own", mend="--temperature 0.7, or another number")
    return load_model(address, inquiry.suite, inquiry.decoding)


def snapshot_of(
    address: Address, inquiry: Inquiry, path: Path, *, load_model: LoadModel, observer: Observer = unobserved
) -> Snapshot:
    """Take a snapshot of a target to a file, or go on with the one that is there; see `take_snapshot`."""
    return take_snapshot(
        asker_of(address, inquiry, load_model),
        inquiry.suite,
        path,
        decoding=inquiry.decoding,
        suite_name=inquiry.suite_name,
        observer=observer,
    )


def forecast(address: Address, inquiry: Inquiry, known: Snapshot | None = None) -> Forecast:
    """Say what a snapshot would ask and cost, without asking; `known` is what its file holds already."""
    samples = inquiry.decoding.samples
    answered = {a.key for a in known.answers if a.reply.error is None} if known else set()
    still = open_questions(inquiry.suite, samples, answered)
    config = address.config if isinstance(address, EndpointAddress) else None
    return Forecast(
        prompts=len(inquiry.suite),
        samples=samples,
        answered=len(inquiry.suite) * samples - len(still),
        open_questions=len(still),
        cost=estimate_cost(config, [probe for probe, _ in still], replace(inquiry.decoding, samples=1))
        if config
        else None,
    )
