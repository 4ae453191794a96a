"""Alarms on their way to webhooks.

What is to be sent stands in the history before it is sent, written in the transaction that opens the alarm, and is
crossed off after the receiver has said yes. So every alarm arrives at least once; a process killed in between sends it
again, under the same `Idempotency-Key`, by which the receiver can tell. A receiver that is down or slow costs a look
nothing: attempts are few seconds long and come with growing pauses, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import httpx

from weightgate.errors import WatchError
from weightgate.probe.endpoint import UNUSABLE_ENVIRONMENT
from weightgate.probe.endpoint_config import is_loopback
from weightgate.probe.recording import utc_now
from weightgate.report.text import one_line
from weightgate.watch.config import Webhook
from weightgate.watch.history import History

ATTEMPT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 15.0, 6 * 3600.0
_ERROR_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One alarm for one webhook. `next_at` is in seconds since the epoch."""

    alarm: int
    channel: str
    idempotency_key: str
    attempts: int
    next_at: float
    delivered_at: str | None
    last_error: str | None
    body: str

    def is_due(self, now: float) -> bool:
        """Whether it is time; a pause longer than any that is made comes of a clock that was set back."""
        return self.next_at <= now or self.next_at > now + LONGEST_PAUSE_SECONDS


def letters(history: History, *, pending_only: bool = False) -> tuple[Letter, ...]:
    """What is, or was, to be sent, newest first."""
    pending = " AND o.delivered_at IS NULL" if pending_only else ""
    rows = history.database.rows(
        "SELECT o.alarm, o.channel, o.idempotency_key, o.attempts, o.next_at, o.delivered_at, o.last_error, a.body"
        " FROM watch_outbox o JOIN watch_alarms a ON a.watch = o.watch AND a.alarm = o.alarm"
        f" WHERE o.watch = ?{pending} ORDER BY o.alarm DESC, o.channel LIMIT 200",
        history.watch,
    )
    names = ("alarm", "channel", "idempotency_key", "attempts", "next_at", "delivered_at", "last_error", "body")
    return tuple(Letter(**dict(zip(names, row, strict=True))) for row in rows)


def deliver(history: History, webhooks: tuple[Webhook, ...]) -> int:
    """Send what is due, all at once, and return how many letters still wait for an answer.

    A letter to a webhook that the configuration no longer names is kept and not sent.
    """
    known = {webhook.label: webhook for webhook in webhooks}
    waiting = [letter for letter in letters(history, pending_only=True) if letter.channel in known]
    due = [letter for letter in waiting if letter.is_due(time.time())]
    if not due:
        return len(waiting)
    errors = asyncio.run(_send_all([(letter, known[letter.channel]) for letter in due]))
    for letter, error in zip(due, errors, strict=True):
        _note(history, letter, error)
    return len(waiting) - sum(error is None for error in errors)


def _note(history: History, letter: Letter, error: str | None) -> None:
    pause = min(FIRST_PAUSE_SECONDS * 2**letter.attempts, LONGEST_PAUSE_SECONDS)
    history.database.run(
        "UPDATE watch_outbox SET attempts = attempts + 1, next_at = ?, delivered_at = ?, last_error = ?"
        " WHERE watch = ? AND alarm = ? AND channel = ?",
        *(time.time() + pause, utc_now() if error is None else None, error),
        *(history.watch, letter.alarm, letter.channel),
    )


async def _send_all(letters: list[tuple[Letter, Webhook]]) -> list[str | None]:
    return await asyncio.gather(*(_send(letter, webhook) for letter, webhook in letters))


async def _send(letter: Letter, webhook: Webhook) -> str | None:
    """Post one letter; returns what went wrong, without the address, which may be a secret."""
    try:
        url, token = webhook.address(), webhook.token()
    except WatchError as error:
        return error.what
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": letter.idempotency_key,
        "User-Agent": "weightgate",
    }
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    content = json.dumps(json.loads(letter.body) | {"idempotency_key": letter.idempotency_key}).encode()
    try:
        local = is_loopback(httpx.URL(url).host)
        async with (
            asyncio.timeout(ATTEMPT_SECONDS),
            httpx.AsyncClient(timeout=ATTEMPT_SECONDS, follow_redirects=False, trust_env=not local) as client,
            client.stream("POST", url, content=content, headers=headers) as response,
        ):
            status = response.status_code
    except TimeoutError:
        return f"no answer within {ATTEMPT_SECONDS:g} s"
    except (httpx.HTTPError, *UNUSABLE_ENVIRONMENT) as error:
        return one_line(type(error).__name__)[:_ERROR_CHARACTERS]
    return None if 200 <= status < 300 else f"status {status}"
