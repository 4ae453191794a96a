"""A Bradley-Terry reward model: one scalar, read at the last real token, by the same code in training and in PPO.

Shapes: N rows, T positions, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from weightgate.data.batches import FILLER, PairBatch
from weightgate.data.packing import PairLoader
from weightgate.train.ragged import position_ids, read_states
from weightgate.train.sampling import evaluating

PADDING_TOLERANCE = {torch.float32: 1e-4}
"""Largest change of a score, relative to 1 + |score|, that more padding may cause, by weight dtype."""
COARSE_PADDING_TOLERANCE = 0.1
"""The same for bf16 and fp16, whose matrix products round differently for other shapes."""
_PROBED_ROWS = 8
_PROBED_PADDING = 3


class RewardModel(nn.Module):
    """The decoder of a causal language model under a linear head with one output.

    Its tensors carry the names of the architecture's `...ForSequenceClassification`: the decoder under the
    architecture's own prefix and the head as `score.weight`. `score_offset` is subtracted from every score; see
    `calibrate`.
    """

    def __init__(self, decoder: nn.Module, *, prefix: str, hidden_size: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.add_module(prefix, decoder)
        like = next(decoder.parameters())
        self.score = nn.Linear(hidden_size, 1, bias=False, device=like.device, dtype=like.dtype)
        self.score_offset: Tensor
        self.register_buffer("score_offset", torch.zeros((), device=like.device))

    @classmethod
    def from_causal(cls, model: Any, *, seed: int) -> RewardModel:
        """Put a fresh head on the decoder of `model`, which is shared, not copied.

        The head is drawn from N(0, 1 / (H + 1)) with its own seed, as in arXiv 2403.17031. An adapter around `model`
        stays in the decoder until its own `merge_and_unload` folds it in.
        """
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden_size = core.config.get_text_config(decoder=True).hidden_size
        reward = cls(core.base_model, prefix=core.base_model_prefix, hidden_size=hidden_size)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(1, hidden_size, generator=generator) / math.sqrt(hidden_size + 1)
        with torch.no_grad():
            reward.score.weight.copy_(drawn)
        return reward

    @property
    def decoder(self) -> Any:
        """The network below the head."""
        return self.get_submodule(self.prefix)

    @property
    def config(self) -> Any:
        """The configuration of the decoder."""
        return self.decoder.config

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores (N) in fp32, read at the last True of each row of `mask` (N, T). Padding on either side."""
        last = mask & (position_ids(mask) == mask.sum(dim=1, keepdim=True) - 1)
        return self._head(read_states(self.decoder, ids, mask, last))

    def values(self, ids: Tensor, mask: Tensor, first: int) -> Tensor:
        """Values (N, T - first) in fp32 of the states from which ids[:, first:] were chosen; `first` >= 1.

        0 where that state is padding.
        """
        states = mask[:, :-1]
        read = states & (torch.arange(states.shape[1], device=ids.device) >= first - 1)
        values = self._head(read_states(self.decoder, ids[:, :-1], states, read))
        return values.new_zeros(read.shape).masked_scatter(read, values)[:, first - 1 :]

    def _head(self, hidden: Tensor) -> Tensor:
        """Score hidden states (..., H) in fp32 even under autocast: differences of scores are what counts."""
        with torch.autocast(hidden.device.type, enabled=False):
            scores = nn.functional.linear(hidden.float(), self.score.weight.float()).squeeze(-1)
        return scores - self.score_offset.float()


def classification_config(config: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` with which `AutoModelForSequenceClassification` loads a `RewardModel`'s tensors."""
    name = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config["model_type"])
    named = {} if name is None else {"architectures": [name]}
    return config | named | {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}


def disable_dropout(model: nn.Module) -> None:
    """Make training mode compute what evaluation mode does; preference losses compare passes with each other."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if "attention_dropout" in vars(module):
            vars(module)["attention_dropout"] = 0.0


def pair_loss(margins: Tensor, sums: Tensor, center: float) -> Tensor:
    """Sum over pairs of -log sigmoid(margin) + center * sum**2.

    Args:
        margins: r_chosen - r_rejected; Bradley & Terry 1952 as a loss.
        sums: r_chosen + r_rejected; the term that keeps rewards near 0 (Eisenstein et al. 2023, section 2).
        center: weight of that term.
    """
    return -nn.functional.logsigmoid(margins).sum() + center * sums.square().sum()


class RewardObjective(nn.Module):
    """Pairwise loss over the pairs of the whole optimizer step, over micro-batches and processes."""

    def __init__(
        self, model: RewardModel, loader: PairLoader, *, center: float, micro_batch: int, device: torch.device
    ) -> None:
        super().__init__()
        disable_dropout(model)
        self.model = model
        self.loader = loader
        self.center = center
        self.micro_batch = micro_batch
        self.device = device

    def updates(self, step: int) -> Iterator[list[PairBatch]]:
        """One update a step: this process's pairs in micro-batches."""
        batch = self.loader.batch(step)
        rows = len(batch)
        yield [
            batch.rows(start, min(start + self.micro_batch, rows)).to(self.device)
            for start in range(0, rows, self.micro_batch)
        ]

    def counts(self, batch: PairBatch) -> dict[str, float]:
        """Pairs, the normaliser; and positions seen, for the speed."""
        positions = batch.chosen_mask.sum() + batch.rejected_mask.sum()
        return {"pairs": float((batch.pair_ids != FILLER).sum()), "positions": float(positions)}

    def forward(self, batch: PairBatch, norms: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per pair; share of pairs ranked right, a tie counting as wrong; mean margin."""
        counted = batch.pair_ids != FILLER
        chosen, rejected = (scores[counted] for scores in self.scores(batch))
        margins, pairs = chosen - rejected, norms["pairs"]
        loss = pair_loss(margins, chosen + rejected, self.center) / pairs
        metrics = {
            "loss": loss.detach(),
            "accuracy": (margins > 0).sum() / pairs,
            "margin": margins.detach().sum() / pairs,
        }
        return loss, metrics

    def scores(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Scores (N) of the chosen and (N) of the rejected rows, from one pass over both."""
        ids, mask = _stacked(batch)
        chosen, rejected = self.model(ids, mask).chunk(2)
        return chosen, rejected

    def invariants(self, batch: PairBatch) -> list[str]:
        """What must hold before the first step: padding on either side leaves a score as it is."""
        ids, mask = (tensor[: 2 * _PROBED_ROWS] for tensor in _stacked(batch))
        tolerance = PADDING_TOLERANCE.get(self.model.score.weight.dtype, COARSE_PADDING_TOLERANCE)
        if torch.is_autocast_enabled(ids.device.type):
            tolerance = COARSE_PADDING_TOLERANCE
        broken = []
        with evaluating(self.model):
            plain = self.model(ids, mask)
            for side, amount in (("left", (_PROBED_PADDING, 0)), ("right", (0, _PROBED_PADDING))):
                padded = self.model(*(nn.functional.pad(tensor, amount) for tensor in (ids, mask)))
                change = float(((padded - plain).abs() / (1 + plain.abs())).max())
                if not change <= tolerance:
                    broken.append(f"padding on the {side} changes the reward model's scores by {change:.2g}")
        return broken

    def records(self, step: int) -> list[int]:
        """The records of this process's pairs, as `TokenRows.records` counts them."""
        pairs = [index for index in self.loader.batch(step).pair_ids.tolist() if index != FILLER]
        return self.loader.rows.prompt.records[pairs].tolist()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Nothing beyond the step number: batches are addressed by it."""
        return {}, {}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Accept what `state` returned."""


def _stacked(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Ids and mask (2N, T): the chosen rows, then the rejected ones, padded on the right to one width."""
    width = max(batch.chosen_ids.shape[1], batch.rejected_ids.shape[1])
    ids = [nn.functional.pad(rows, (0, width - rows.shape[1])) for rows in (batch.chosen_ids, batch.rejected_ids)]
    mask = [nn.functional.pad(rows, (0, width - rows.shape[1])) for rows in (batch.chosen_mask, batch.rejected_mask)]
    return torch.cat(ids), torch.cat(mask)


def calibrate(model: RewardModel, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Set the model's offset so that the mean score over demonstrations is 0, and return the offset.

    A pair loss fixes rewards up to a constant only; PPO's value function and missing-EOS penalty need the constant.

    Args:
        batches: ids and mask (N, T) of prompts with demonstrated completions.

    Raises `ValueError` without demonstrations.
    """
    total, rows = 0.0, 0
    with evaluating(model):
        for ids, mask in batches:
            total += float(model(ids, mask).double().sum())
            rows += len(ids)
        if rows == 0:
            raise ValueError("a reward model cannot be calibrated without demonstrations")
        model.score_offset += total / rows
    return float(model.score_offset)
