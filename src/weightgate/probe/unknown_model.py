"""Why an endpoint answers 404: which models it lists, and whether its base URL lacks `/v1`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Awaitable, Callable

from weightgate.errors import EndpointError
from weightgate.probe.endpoint_config import EndpointConfig

LISTED, LISTED_BELOW = "models", "v1/models"
_SHOWN_MODELS = 8
_MAX_NAME_CHARACTERS = 80
WHAT = "the endpoint does not know this model or this route"

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Fetches a route below the base URL; None for whatever is no answer."""


async def explained(config: EndpointConfig, problem: str, fetch: Fetch, clean: Callable[[str], str]) -> EndpointError:
    """Make the error for a 404, with the mend that the endpoint's own list of models suggests."""
    listed = _names(await fetch(LISTED), clean)
    if listed is None and _names(await fetch(LISTED_BELOW), clean) is not None:
        return EndpointError(WHAT, where=config.url, found=problem, mend=f"did you mean the URL {config.url}/v1?")
    if not listed:
        mend = "look at how the model is spelt; the URL is the part before /chat/completions and often ends in /v1"
        return EndpointError(WHAT, where=config.url, found=problem, mend=mend)
    near = difflib.get_close_matches(config.model, listed, n=_SHOWN_MODELS, cutoff=0.4)
    shown = near or listed[:_SHOWN_MODELS]
    more = f" and {len(listed) - len(shown):,} more" if len(listed) > len(shown) else ""
    return EndpointError(
        WHAT,
        where=config.url,
        expected=f"a model that it lists: {', '.join(shown)}{more}",
        found=problem,
        mend=f"did you mean the model {near[0]!r}?" if near and config.model not in listed else None,
    )


def _names(body: bytes | None, clean: Callable[[str], str]) -> list[str] | None:
    """Names out of the list that OpenAI's interface specifies; None for anything else."""
    try:
        data = json.loads(body or b"")["data"]
        return [clean(one["id"])[:_MAX_NAME_CHARACTERS] for one in data if isinstance(one["id"], str)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
