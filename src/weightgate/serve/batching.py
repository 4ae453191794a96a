"""Requests that arrive together are completed together; one thread runs the model, so it never runs twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from weightgate.serve.requests import RequestError
from weightgate.train.generator import Answer, Generator, Piece, Settings

_T = TypeVar("_T")
_Key = tuple[int, Settings, int | None]


@dataclass(frozen=True)
class _Waiting:
    """A prompt in the queue, with the seed that came with it, and where its answers go."""

    prompt: Sequence[int]
    seed: int | None
    answers: asyncio.Future[list[Answer]]


class Batcher:
    """Collects prompts for the same model with equal settings for `wait_seconds`, then completes them in one call.

    Their seeds may differ; but where batch mates would change what a seed gives, a prompt with a seed is completed in a
    call of its own. While the model is busy more of them gather, so batches grow with the load. `max_batch`
    bounds the prompts in one call, `max_waiting` those in the queue: beyond it a request is refused at once rather than
    kept for long.
    """

    def __init__(self, *, wait_seconds: float, max_batch: int, max_waiting: int) -> None:
        self._wait_seconds = wait_seconds
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queues: dict[_Key, list[_Waiting]] = {}
        self._apart = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in the thread of the model."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def answer(
        self, generator: Generator, prompt: Sequence[int], settings: Settings, seed: int | None
    ) -> list[Answer]:
        """Complete one prompt, together with others that want the same. Raises `RequestError` when overloaded."""
        if sum(map(len, self._queues.values())) >= self._max_waiting:
            raise RequestError(503, "too many requests are waiting; try again later", code="overloaded")
        waiting = _Waiting(prompt, seed, asyncio.get_running_loop().create_future())
        alone = seed is not None and not generator.batch_invariant
        key = (id(generator), settings, next(self._apart) if alone else None)
        if key in self._queues:  # somebody is working it off, perhaps with the model right now
            self._queues[key].append(waiting)
        else:
            self._queues[key] = [waiting]
            task = asyncio.create_task(self._work_off(key, generator, settings))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answers

    async def _work_off(self, key: _Key, generator: Generator, settings: Settings) -> None:
        """Complete what gathers under one key until nothing is left of it."""
        await asyncio.sleep(self._wait_seconds)
        while self._queues[key]:
            await self.call(_nothing)  # until the model is free; meanwhile the queue fills
            batch, self._queues[key] = self._queues[key][: self._max_batch], self._queues[key][self._max_batch :]
            await self._complete([each for each in batch if not each.answers.done()], generator, settings)
        del self._queues[key]

    async def _complete(self, batch: list[_Waiting], generator: Generator, settings: Settings) -> None:
        """Complete a batch; whatever goes wrong is told to everybody in it. A client that left is skipped."""
        if not batch:
            return
        try:
            prompts, seeds = [each.prompt for each in batch], [each.seed for each in batch]
            answers = await self.call(generator.answer, prompts, settings, seeds)
        except Exception as error:
            for each in batch:
                if not each.answers.done():
                    each.answers.set_exception(error)
            return
        for each, answer in zip(batch, answers, strict=True):
            if not each.answers.done():
                each.answers.set_result(answer)

    async def stream(
        self, generator: Generator, prompt: Sequence[int], settings: Settings, seed: int | None
    ) -> AsyncIterator[Piece]:
        """Complete one prompt piece by piece. Between two pieces the model is free for others."""
        pieces = await self.call(generator.stream, prompt, settings, seed)
        while (piece := await self.call(_next, pieces)) is not None:
            yield piece

    def close(self) -> None:
        """Give the thread back."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    """Take a turn in the thread of the model."""


def _next(pieces: Iterator[Piece]) -> Piece | None:
    return next(pieces, None)
