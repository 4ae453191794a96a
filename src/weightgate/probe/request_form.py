"""How a request is put to an endpoint that does not know all of the interface, without asking anything else.

Some servers know only one of the two names of the bound of a completion, some answer as a stream only, some offer no
log-probabilities. What they refuse is put otherwise. What cannot be put otherwise, such as a temperature, is the user's
to decide: a snapshot states how it was asked, and that must be true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

TOKEN_KEYS = ("max_completion_tokens", "max_tokens")
"""Two names of one bound; OpenAI's newer models refuse the second."""

_LOGPROBS = ("top_logprobs", "logprobs")
MENDS = {
    "temperature": "a value that it takes, or its own: --temperature default; in a watch, `ask.temperature: null`",
    "seed": "leave the seed out: no --seed; in a watch, no `ask.seed`",
    "top_p": "leave it out",
}
"""What a user can do about a parameter that cannot be put otherwise."""

_NAMES = (*TOKEN_KEYS, *_LOGPROBS, *MENDS, "stream")
_NAMED = re.compile(rf"(?<![\w-])({'|'.join(_NAMES)})(?![\w-])")
_UNSUPPORTED = re.compile(
    r"unsupported|not support|only support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra_forbidden"
    r"|extra inputs|deprecated|must be set to true|please enable",
    re.IGNORECASE,
)
_OUT_OF_RANGE = re.compile(r"must be|should be|has to be|between|range|less than|greater than|at most", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RequestForm:
    """The form that requests have; `refused` are the parameters that the endpoint has refused so far."""

    max_tokens_key: str
    logprobs: bool = True
    stream: bool = False
    refused: frozenset[str] = frozenset()

    def without(self, parameter: str) -> RequestForm | None:
        """The same question without a parameter, or with its other name; None where it cannot be put otherwise."""
        known = replace(self, refused=self.refused | {parameter})
        if parameter in TOKEN_KEYS:
            other = next(key for key in TOKEN_KEYS if key != parameter)
            return None if other in self.refused else replace(known, max_tokens_key=other)
        if parameter in _LOGPROBS:
            return replace(known, logprobs=False) if self.logprobs else None
        if parameter == "stream":
            return replace(known, stream=True) if not self.stream else None
        return None


def refused_parameter(error: Mapping[str, Any] | None, message: str) -> str | None:
    """Which of our parameters an error refuses, by its field `param` or by its words; None for another complaint.

    A bound that is too large, or a prompt too long for the context, is about one question; a temperature out of range
    is about all.
    """
    named = (error or {}).get("param")
    found = _NAMED.search(message)
    parameter = named if named in _NAMES else found[1] if found else None
    if parameter is None:
        return None
    says = f"{(error or {}).get('code')} {message}"
    if _UNSUPPORTED.search(says) or (parameter in MENDS and _OUT_OF_RANGE.search(says)):
        return str(parameter)
    return None
