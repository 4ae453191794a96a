"""The loop stops where its time budget ends, and keeps what it has done."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from accelerate import Accelerator  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from weightgate import recipe  # noqa: E402
from weightgate.errors import TrainingStopped  # noqa: E402
from weightgate.train.loop import ResumeState, Settings, run  # noqa: E402


class Line(nn.Module):
    """One weight, pulled towards 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def updates(self, step: int):  # type: ignore[no-untyped-def]
        yield [step]

    def counts(self, batch: int) -> dict[str, float]:
        return {"tokens": 1.0}

    def forward(self, batch: int, norms: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.weight - 1).square().sum()
        return loss, {"loss": loss.detach()}

    def invariants(self, batch: int) -> list[str]:
        return []

    def records(self, step: int) -> list[int]:
        return [step]

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        return {}, {}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, object]) -> None:
        return None


def _settings(budget_seconds: float) -> Settings:
    return Settings(
        steps=5,
        optimizer=recipe.Optimizer(),
        schedule=recipe.Schedule(),
        precision="fp32",
        resume_seconds=1e9,
        budget_seconds=budget_seconds,
    )


def test_a_spent_budget_stops_after_a_saved_step() -> None:
    saved: list[ResumeState] = []
    with pytest.raises(TrainingStopped, match=r"time budget is spent after step 1 of 5.*budget\.minutes"):
        run(Line(), _settings(0.0), Accelerator(cpu=True), save=saved.append)
    assert [state.step for state in saved] == [1]
    trained = run(Line(), _settings(1e9), Accelerator(cpu=True), resume=saved[0])
    assert trained.updates == 5
