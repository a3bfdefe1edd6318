"""Readings of a model for one request: turns on the worker's thread, the client's account, and clients that leave."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request

from gpt2lab.serving.completions import hand_over
from gpt2lab.serving.errors import ApiError, failed, stopping
from gpt2lab.serving.guards import RECORD
from gpt2lab.serving.keys import ACCOUNT
from gpt2lab.serving.streams import unless_left
from gpt2lab.serving.worker import Job, Reading

if TYPE_CHECKING:
    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.service import Service


async def read(
    request: Request,
    service: Service,
    served: ServedModel,
    readings: Sequence[Callable[[Hashable], Reading]],
    n_tokens: int,
) -> list[Any] | None:
    """Return the results of ``readings``, each called with the client's account; None if the client has left.

    ``n_tokens`` are counted as read. Raises :class:`ApiError` if the server is stopping, too busy, or the client at its
    limit.
    """
    if service.draining:
        raise stopping()
    account = request.scope[ACCOUNT]
    job = Job([None], [_begun(reading, account) for reading in readings])
    reserved = account.reserve(n_tokens)
    try:
        hand_over(served, job, n_tokens)
    except ApiError:
        reserved.settle(0)
        raise
    request.scope[RECORD].update(model=served.name, read=n_tokens)
    try:
        done = await unless_left(request.receive, _end_of(job))
    finally:
        served.worker.cancel(job)
    if done is None:
        request.scope[RECORD]["gone"] = True
        return None
    return job.found


def _begun(reading: Callable[[Hashable], Reading], account: Hashable) -> Callable[[], Reading]:
    return lambda: reading(account)


async def _end_of(job: Job) -> bool:
    try:
        while await job.take():
            pass
    except Exception as error:
        raise failed(error) from error
    return True
