"""Training runs to fit laws to: parameters, tokens and final loss of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightgate.plan.fit.forms import Floats
from weightgate.plan.laws.loss import FLOPS_PER_PARAMETER_AND_TOKEN as SIX


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of one corpus, tokenizer and recipe; arrays of one length.

    Fields:
        loss: in `unit`, at the end of a whole schedule.
        clusters: runs of one cluster (an isoFLOP budget, a size) are resampled together.
        seconds: of training, or NaN where it is not known.
        origin: where they are from, for messages.
    """

    parameters: Floats
    tokens: Floats
    loss: Floats
    clusters: tuple[str, ...]
    seconds: Floats
    unit: str = "nats/token"
    origin: str = "runs"

    @property
    def flops(self) -> Floats:
        """6 N D of each."""
        return np.asarray(SIX * self.parameters * self.tokens)

    def __len__(self) -> int:
        return len(self.loss)

    def where(self, keep: np.ndarray) -> Runs:
        """The runs at which `keep`, booleans or positions, says so."""
        return Runs(
            parameters=self.parameters[keep],
            tokens=self.tokens[keep],
            loss=self.loss[keep],
            clusters=tuple(np.array(self.clusters, dtype=object)[keep]),
            seconds=self.seconds[keep],
            unit=self.unit,
            origin=self.origin,
        )
