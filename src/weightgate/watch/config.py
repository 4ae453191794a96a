"""The configuration of a watch: YAML, read strictly."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from weightgate.errors import WatchError
from weightgate.probe.endpoint_config import EndpointConfig, is_loopback
from weightgate.probe.prompts import load_prompts
from weightgate.probe.recording import Decoding
from weightgate.probe.suites import CORE, Suite, core_suite, load_suite
from weightgate.strict_yaml import StrictPart, load_strict

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Prompts(StrictPart):
    """What is asked at every look: a suite file, `core` for the one that ships, or a file of the user's own prompts."""

    suite: str | None = Field(None, description=f"a suite file, or {CORE}")
    prompts: str | None = Field(None, description="JSONL, one prompt a line")
    samples: int = Field(1, gt=0, le=64)
    temperature: float | None = Field(0.7, ge=0, description="null: the endpoint's own default")
    max_tokens: int | None = Field(256, gt=0)
    seed: int | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Prompts:
        if (self.suite is None) == (self.prompts is None):
            raise ValueError("`ask` needs `suite` or `prompts`, and not both")
        return self

    @property
    def name(self) -> str:
        """What the questions are called."""
        return self.suite or str(self.prompts)

    @property
    def decoding(self) -> Decoding:
        """How completions are drawn."""
        return Decoding(samples=self.samples, temperature=self.temperature, max_tokens=self.max_tokens, seed=self.seed)

    def load(self, folder: Path) -> Suite:
        """Read the questions; files are found from `folder`, where the configuration is."""
        if self.prompts is not None:
            return load_prompts(folder / self.prompts)
        return core_suite() if self.suite == CORE else load_suite(folder / str(self.suite))


class Baseline(StrictPart):
    """What later looks are compared with; its snapshots compared with each other are the A/A null."""

    snapshots: int = Field(3, ge=2, le=20)


class History(StrictPart):
    """Where the history is kept. A password is never written here; it stands in the environment."""

    url: str | None = Field(None, description="a SQLite file, or postgresql://host/database")
    url_variable: str | None = Field(None, pattern=VARIABLE, description="environment variable that holds the URL")
    password_variable: str | None = Field(None, pattern=VARIABLE)

    @model_validator(mode="after")
    def _one_place(self) -> History:
        if (self.url is None) == (self.url_variable is None):
            raise ValueError("`history` needs `url` or `url_variable`, and not both")
        if self.url is not None and "://" in self.url:
            if not self.url.startswith(("postgresql://", "postgres://")):
                raise ValueError("a history is a SQLite file or a postgresql:// URL")
            if urlsplit(self.url).password is not None or "password=" in self.url:
                raise ValueError("the URL of the history carries a password; use password_variable")
        return self

    def place(self) -> tuple[str, str | None]:
        """Return path or URL, and the password. Raises `WatchError` for a variable that is not set."""
        url = self.url if self.url_variable is None else _from_environment(self.url_variable, "history.url_variable")
        password = self.password_variable and _from_environment(self.password_variable, "history.password_variable")
        return str(url), password


class Webhook(StrictPart):
    """Where an alarm is posted. A URL that is itself a secret, as some chats give out, belongs into the environment."""

    url: str | None = None
    url_variable: str | None = Field(None, pattern=VARIABLE)
    token_variable: str | None = Field(None, pattern=VARIABLE, description="sent as bearer token")

    @model_validator(mode="after")
    def _one_place(self) -> Webhook:
        if (self.url is None) == (self.url_variable is None):
            raise ValueError("a webhook needs `url` or `url_variable`, and not both")
        return self

    @field_validator("url")
    @classmethod
    def _safe_url(cls, url: str | None) -> str | None:
        if url is not None:
            _require_safe_url(url)
        return url

    @property
    def label(self) -> str:
        """A name that holds no secret: the variable, or the URL without its query."""
        if self.url is None:
            return f"${self.url_variable}"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def address(self) -> str:
        """The URL to post to. Raises `WatchError` where the variable is not set or holds no URL that is safe."""
        if self.url is not None:
            return self.url
        url = _from_environment(str(self.url_variable), "alarm.webhooks.url_variable")
        try:
            _require_safe_url(url)
        except ValueError as error:
            raise WatchError(str(error), where=f"environment variable {self.url_variable}") from None
        return url

    def token(self) -> str | None:
        """The bearer token, where one is set up."""
        return self.token_variable and _from_environment(self.token_variable, "alarm.webhooks.token_variable")


class Alarm(StrictPart):
    """When there is an alarm, and where it goes."""

    alpha: float = Field(0.05, gt=0, lt=1, description="chance of ever alarming while nothing changes")
    persistence: int = Field(2, ge=1, le=100, description="looks in a row that must show the shift")
    floor: float = Field(0.02, ge=0, lt=1, description="smaller shifts, as a share of an axis' range, are no alarm")
    tolerance: float = Field(0.0, ge=0, description="the same in standard deviations of the prompts' shifts")
    exit_code: int = Field(1, ge=0, le=125)
    outage_exit_code: int = Field(3, ge=0, le=125)
    file: str | None = Field(None, description="a JSON file that is there as long as the alarm is open")
    report: str | None = Field(None, description="HTML of the comparison that is written with an alarm")
    webhooks: tuple[Webhook, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _webhooks_differ(self) -> Alarm:
        labels = [webhook.label for webhook in self.webhooks]
        if len(set(labels)) < len(labels):
            raise ValueError("two webhooks have the same address")
        return self


class DailyBudget(StrictPart):
    """What all looks of 24 hours may cost together; a look that could cost more is left out."""

    calls_per_day: int | None = Field(None, gt=0)
    tokens_per_day: int | None = Field(None, gt=0)
    money_per_day: float | None = Field(None, gt=0, description="in the currency of target.price")


class WatchConfig(StrictPart):
    """A whole watch."""

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="the watch's name in its history")
    target: EndpointConfig
    ask: Prompts
    every: str = Field("1h", description="time between looks: 30s, 15min, 1h, 1d")
    baseline: Baseline = Baseline()
    history: History
    alarm: Alarm = Alarm()
    budget: DailyBudget = DailyBudget()
    report: str | None = Field(None, description="status page that is written after every look")

    @field_validator("every")
    @classmethod
    def _is_duration(cls, every: str) -> str:
        match = _DURATION.fullmatch(every.strip())
        if match is None or float(match[1]) * _UNITS[match[2]] < 1:
            raise ValueError("`every` is a number with s, min, h or d, at least 1s, such as 15min")
        return every

    @model_validator(mode="after")
    def _money_has_a_price(self) -> WatchConfig:
        if self.budget.money_per_day is not None and self.target.price is None:
            raise ValueError("budget.money_per_day needs target.price")
        return self

    @model_validator(mode="after")
    def _files_differ(self) -> WatchConfig:
        written = {"alarm.report": self.alarm.report, "report": self.report}
        names = [name for name in (*self.kept_names.values(), *written.values()) if name is not None]
        twice = next((name for at, name in enumerate(names) if os.path.normpath(name) in _normal(names[:at])), None)
        if twice is not None:
            raise ValueError(f"two keys name the file {twice!r}: one would be written over the other")
        return self

    @property
    def kept_names(self) -> dict[str, str]:
        """Key -> file that is read or kept, as the configuration names it."""
        is_file = self.history.url is not None and "://" not in self.history.url
        named = {
            "ask.suite": None if self.ask.suite == CORE else self.ask.suite,
            "ask.prompts": self.ask.prompts,
            "history.url": self.history.url if is_file else None,
            "alarm.file": self.alarm.file,
        }
        return {key: name for key, name in named.items() if name is not None}

    @property
    def interval_seconds(self) -> float:
        """Seconds from the start of one look to the start of the next."""
        match = _DURATION.fullmatch(self.every.strip())
        assert match is not None
        return float(match[1]) * _UNITS[match[2]]


def load_config(path: Path) -> WatchConfig:
    """Read a configuration. Raises `WatchError` with file, line and, for an unknown key, the nearest known one."""
    mend = f"weightgate watch {path} --init"
    return load_strict(path, WatchConfig, noun="configuration of the watch", error=WatchError, mend_missing=mend)


def _normal(names: list[str]) -> set[str]:
    return {os.path.normpath(name) for name in names}


def _from_environment(name: str, where: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise WatchError(f"the environment variable {name} is not set", where=where)
    return value


def _require_safe_url(url: str) -> None:
    """Raises `ValueError` where the alarm could be read on the way."""
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not (parts.scheme == "https" or loopback) or not parts.hostname or parts.username is not None:
        raise ValueError("the URL of a webhook begins with https:// and carries no user name")
