"""Proximal policy optimisation of a language model against a reward model (arXiv 2403.17031).

A step samples one completion for each prompt of its batch, judges them once, and makes `epochs * minibatches` updates
from them. Shapes: N completions, C columns of prompt (padded on the left), W columns of completion; see `ppo_math`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from weightgate import recipe
from weightgate.data.packing import PromptLoader
from weightgate.errors import RecipeError
from weightgate.train import ppo_math
from weightgate.train.logprobs import sampled_logprobs
from weightgate.train.objectives.reward import RewardModel, disable_dropout
from weightgate.train.ragged import scored_logits
from weightgate.train.sampling import Completion, evaluating, generate

RATIO_TOLERANCE = {torch.float32: 1e-5}
"""Largest distance from 1 of the mean ratio before the first update, and of a KL per token from 0, by weight dtype."""
SAMPLER_TOLERANCE = {torch.float32: 1e-4}
"""Largest mean distance in nats between what the sampler and a second pass say of the same tokens."""
COARSE_TOLERANCE = 5e-2
"""Both, for bf16 and fp16, whose matrix products round differently for other shapes."""
_COLUMN_FIELDS = ("logprobs", "values", "advantages", "returns")


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The four models. `reference` is None where it is the policy with its adapter switched off."""

    policy: nn.Module
    value: RewardModel
    reference: nn.Module | None
    reward: RewardModel


@dataclass(frozen=True, kw_only=True)
class Process:
    """This process among all: its rank, its device, and the sum over processes.

    Prompt i of a process is prompt rank + i * processes of the step, so that completions do not depend on the number
    of processes.
    """

    device: torch.device
    rank: int = 0
    processes: int = 1
    reduce: ppo_math.Reduce = ppo_math.alone


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What policy and value model say of completions.

    Fields:
        logprobs, values: (N, W), of the sampled tokens and of the states they were chosen in.
        entropies: (M), in the M columns that hold a sampled token; they carry no gradient.
    """

    logprobs: Tensor
    values: Tensor
    entropies: Tensor


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Judged completions.

    Fields:
        context: C, the columns that belong to prompts.
        ids, mask: (N, C + W); prompt padded on the left, completion with its stop token padded on the right.
        last: (N), column of the last token of each completion.
        logprobs: (N, W) of the policy that sampled; values, advantages, returns: (N, W).
        facts: (N) each, per completion: kl (nats), score, rlhf_reward, completion_tokens, eos_share.
        start_weight: updates of the step where these rows are in the first one, 0 in the later ones.
        scored: `logprobs` and `values` with their graph, where the next update learns from just these; None elsewhere.
    """

    context: int
    ids: Tensor
    mask: Tensor
    last: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    facts: dict[str, Tensor]
    start_weight: float = 0.0
    scored: Scored | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def acted(self) -> Tensor:
        """Columns that hold a sampled token, bool (N, W)."""
        return ppo_math.column_masks(self.last, self.logprobs.shape[1])[0]

    @property
    def valued(self) -> Tensor:
        """Columns that hold the value of a state, bool (N, W)."""
        return ppo_math.column_masks(self.last, self.logprobs.shape[1])[1]

    def select(self, rows: Tensor, start_weight: float) -> Rollouts:
        """These rows, without the columns that are padding in all of them."""
        chosen = {name: getattr(self, name)[rows] for name in ("ids", "mask", "last", *_COLUMN_FIELDS)}
        begin = int(chosen["mask"].int().argmax(dim=1).min())
        width = min(self.logprobs.shape[1], int(chosen["last"].max()) + 2)
        for name in ("ids", "mask"):
            chosen[name] = chosen[name][:, begin : self.context + width]
        for name in _COLUMN_FIELDS:
            chosen[name] = chosen[name][:, :width]
        facts = {name: fact[rows] for name, fact in self.facts.items()}
        return replace(
            self, context=self.context - begin, facts=facts, start_weight=start_weight, scored=None, **chosen
        )


def new_value_model(start: Literal["reward", "zero"], policy: Any, reward: RewardModel) -> RewardModel:
    """The value model before the first update: a copy of the reward model, or of the policy under a head of zeros.

    `policy` is the causal language model itself, without an adapter.
    """
    if start == "reward":
        value = copy.deepcopy(reward)
    else:
        value = copy.deepcopy(RewardModel.from_causal(policy, seed=0))
        nn.init.zeros_(value.score.weight)
    return value.requires_grad_(True)


class PPOObjective(nn.Module):
    """Clipped policy and value losses over the sampled tokens of an update, over micro-batches and processes."""

    def __init__(
        self,
        roles: Roles,
        loader: PromptLoader,
        settings: recipe.PPO,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        micro_batch: int,
        seed: int,
        process: Process,
    ) -> None:
        super().__init__()
        self.model = roles.policy
        self.value = roles.value
        self.reward = roles.reward.requires_grad_(False)
        self.reference = None if roles.reference is None else roles.reference.requires_grad_(False)
        disable_dropout(self)
        self.loader = loader
        self.settings = settings
        self.stop_ids = tuple(stop_ids)
        self.pad_id = pad_id
        self.micro_batch = micro_batch
        self.seed = seed
        self.process = process
        self.kl_coefficient = settings.kl_coefficient
        self.sampler_gap_nats = 0.0

    def updates(self, step: int) -> Iterator[list[Rollouts]]:
        """Sample and judge completions, then yield the micro-batches of each update.

        Raises `RecipeError` if there are more mini-batches than completions.
        """
        rollouts = self.roll_out(step)
        parts = self.settings.minibatches
        if parts > len(rollouts):
            raise RecipeError(
                "there are more mini-batches than completions on a process",
                where="ppo.minibatches",
                expected=f"at most {len(rollouts)}",
                found=str(parts),
            )
        weight = float(self.settings.epochs * parts)
        first_epoch = 0
        if rollouts.scored is not None:
            yield [replace(rollouts, start_weight=weight)]
            weight, first_epoch = 0.0, 1
        for epoch in range(first_epoch, self.settings.epochs):
            for rows in self._permutation(step, epoch, len(rollouts)).tensor_split(parts):
                yield [rollouts.select(some, weight) for some in rows.split(self.micro_batch)]
                weight = 0.0
        self._adapt(rollouts.facts["kl"])

    def roll_out(self, step: int) -> Rollouts:
        """Complete the prompts of a step and judge the completions. What is drawn follows from seed and step."""
        prompts, key = self.loader.batch(step).token_lists(), self._key(step)
        completions = generate(
            self.model,
            prompts,
            max_tokens=self.settings.completion_tokens,
            temperature=self.settings.temperature,
            stop_ids=self.stop_ids,
            pad_id=self.pad_id,
            streams=[(key, self.process.rank + row * self.process.processes) for row in range(len(prompts))],
            logprobs=step == 0,
        )
        ids, mask, last = self._assembled(prompts, completions)
        stopped = torch.tensor([completion.stopped for completion in completions], device=self.process.device)
        at_once = step > 0 and self._learns_at_once(len(ids))
        rollouts = self.judge(ids, mask, max(map(len, prompts)), last, stopped, learn=at_once)
        if step == 0:
            self.sampler_gap_nats = _sampler_gap(completions, rollouts)
        return rollouts

    def _learns_at_once(self, completions: int) -> bool:
        """Whether the first update is of all completions in one micro-batch, so that judging them is its forward pass.

        Not asked for step 0, where a second pass must find the ratio to be 1. Not with several processes either: their
        wrapper writes to buffers before its own forward pass, which a graph made earlier does not survive.
        """
        together = self.settings.minibatches == 1 and completions <= self.micro_batch
        return together and self.process.processes == 1

    def _assembled(self, prompts: list[list[int]], completions: list[Completion]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask (N, C + W), and the last column (N) of each completion.

        There is one column beyond the longest completion, up to the limit: whether a completion has a state after its
        last token must not depend on its batch mates.
        """
        sampled = [c.ids + ([] if c.stop_id is None else [c.stop_id]) for c in completions]
        context = max(map(len, prompts))
        width = min(max(map(len, sampled)) + 1, self.settings.completion_tokens)
        ids = torch.full((len(prompts), context + width), self.pad_id)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (prompt, tokens) in enumerate(zip(prompts, sampled, strict=True)):
            own = slice(context - len(prompt), context + len(tokens))
            ids[row, own], mask[row, own] = torch.tensor(prompt + tokens), True
        last = torch.tensor([len(tokens) - 1 for tokens in sampled])
        return ids.to(self.process.device), mask.to(self.process.device), last.to(self.process.device)

    def judge(
        self, ids: Tensor, mask: Tensor, context: int, last: Tensor, stopped: Tensor, *, learn: bool = False
    ) -> Rollouts:
        """Score completions and turn the scores into advantages and returns.

        Args:
            ids, mask, context: (N, C + W) and C, as in `Rollouts`.
            last, stopped: (N), column of the last token; whether it is a stop token.
            learn: whether to keep the graph of what policy and value model say, in `scored`.
        """
        acted, valued = ppo_math.column_masks(last, ids.shape[1] - context)
        scored = self._scored(ids, mask, context, acted, valued) if learn else None
        logprobs, ref_logprobs, values, scores = self._passes(ids, mask, context, acted, valued, scored)
        settings, reduce = self.settings, self.process.reduce
        kl = ppo_math.kl_estimate(logprobs, ref_logprobs, settings.kl_estimator)
        judged = ppo_math.judged_scores(scores, stopped, settings.missing_eos_penalty, settings.missing_eos)
        rewards = ppo_math.token_rewards(kl, judged, last, self.kl_coefficient)
        if settings.whiten_rewards:
            rewards = ppo_math.whiten(rewards, valued, shift_mean=False, reduce=reduce)
        advantages = ppo_math.advantages(rewards, values, settings.gamma, settings.gae_lambda)
        returns = advantages + values
        if settings.whiten_advantages:
            advantages = ppo_math.whiten(advantages, acted, reduce=reduce)
        facts = {
            "kl": ppo_math.kl_estimate(logprobs, ref_logprobs, "k1").sum(dim=1),
            "score": scores,
            "rlhf_reward": judged - self.kl_coefficient * kl.sum(dim=1),
            "completion_tokens": (last + 1).float(),
            "eos_share": stopped.float(),
        }
        return Rollouts(
            context=context,
            ids=ids,
            mask=mask,
            last=last,
            logprobs=logprobs,
            values=values,
            advantages=advantages.masked_fill(~acted, 0.0),
            returns=returns,
            facts=facts,
            scored=scored,
        )

    def _passes(
        self, ids: Tensor, mask: Tensor, context: int, acted: Tensor, valued: Tensor, scored: Scored | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities of policy and reference and values (N, W), and scores (N), without gradients.

        `scored` is what policy and value model said, if they were asked before.
        """
        parts = []
        with evaluating(self):
            for rows in torch.arange(len(ids), device=ids.device).split(self.micro_batch):
                own = ids[rows], mask[rows], context
                said = scored or self._scored(*own, acted[rows], valued[rows])
                with self._reference_adapter():
                    ref_logprobs, _ = self._logprobs(self.reference or self.model, *own, acted[rows])
                scores = self.reward(ids[rows], mask[rows])
                parts.append((said.logprobs.detach(), ref_logprobs, said.values.detach(), scores))
        logprobs, ref_logprobs, values, scores = (torch.cat(part) for part in zip(*parts, strict=True))
        return logprobs, ref_logprobs, values, scores

    def _scored(self, ids: Tensor, mask: Tensor, context: int, acted: Tensor, valued: Tensor) -> Scored:
        """What policy and value model say of the completions."""
        logprobs, entropies = self._logprobs(self.model, ids, mask, context, acted)
        values = self.value.values(ids, mask, context).masked_fill(~valued, 0.0)
        return Scored(logprobs=logprobs, values=values, entropies=entropies)

    def _reference_adapter(self) -> contextlib.AbstractContextManager[Any]:
        """Switch the policy's adapter off where the policy without it is the reference."""
        if self.reference is not None:
            return contextlib.nullcontext()
        policy: Any = self.model
        switched_off: contextlib.AbstractContextManager[Any] = policy.disable_adapter()
        return switched_off

    def _logprobs(
        self, model: nn.Module, ids: Tensor, mask: Tensor, context: int, acted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Nats (N, W) of the sampled tokens, a constant on padding; and entropies (M) in the M acted columns."""
        scored = nn.functional.pad(acted, (context, 0))
        logits = scored_logits(model, ids, mask, scored)
        nats, entropies = sampled_logprobs(logits, ids[scored], self.settings.temperature)
        padded = torch.full(acted.shape, ppo_math.PADDING_LOGPROB, device=nats.device)
        return padded.masked_scatter(acted, nats), entropies

    def counts(self, batch: Rollouts) -> dict[str, float]:
        """Sampled tokens, valued states, completions and micro-batches; and positions seen, for the speed."""
        return {
            "tokens": float(batch.acted.sum()),
            "states": float(batch.valued.sum()),
            "completions": float(len(batch)),
            "micro_batches": 1.0,
            "positions": float(batch.mask.sum()),
        }

    def forward(self, batch: Rollouts, norms: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss plus weighted value loss, and what is worth watching; KLs and entropy in nats."""
        settings, acted, valued = self.settings, batch.acted, batch.valued
        scored = batch.scored or self._scored(batch.ids, batch.mask, batch.context, acted, valued)
        logprobs, values = scored.logprobs, scored.values
        policy, clipped = ppo_math.policy_losses(logprobs, batch.logprobs, batch.advantages, settings.clip_range)
        value = ppo_math.value_losses(values, batch.values, batch.returns, settings.clip_range_value)
        policy_loss = self._averaged(policy, acted, norms, "tokens")
        value_loss = self._averaged(value, valued, norms, "states")
        loss = policy_loss + settings.value_coefficient * value_loss
        changes = (logprobs.detach() - batch.logprobs)[acted]
        ratios = changes.exp().sum() / norms["tokens"]
        metrics = {
            "loss": loss.detach(),
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "clip_share": clipped[acted].sum() / norms["tokens"],
            "approx_kl": 0.5 * changes.square().sum() / norms["tokens"],
            "entropy": scored.entropies.sum() / norms["tokens"],
            "ratio": ratios,
            "ratio_at_start": ratios * batch.start_weight,
            "kl_per_token": batch.facts["kl"].sum() / norms["tokens"],
        }
        return loss, metrics | {name: fact.sum() / norms["completions"] for name, fact in batch.facts.items()}

    def _averaged(self, losses: Tensor, mask: Tensor, norms: dict[str, float], normaliser: str) -> Tensor:
        """This micro-batch's share of the mean over the whole update, or of the mean of micro-batch means."""
        if self.settings.normaliser == "trl":
            return ppo_math.masked_mean(losses, mask) / norms["micro_batches"]
        return (losses * mask).sum() / norms[normaliser]

    def invariants(self, batch: Rollouts) -> list[str]:
        """What must hold before the first update, when the policy is still what sampled and what is referred to."""
        coarse = torch.is_autocast_enabled(batch.ids.device.type)
        dtype = torch.bfloat16 if coarse else next(self.model.parameters()).dtype
        close, sampler_close = (limit.get(dtype, COARSE_TOLERANCE) for limit in (RATIO_TOLERANCE, SAMPLER_TOLERANCE))
        with evaluating(self):
            _, metrics = self(batch, self.counts(batch))
        gaps = (
            ("the mean ratio of new to old probabilities differs from 1", float(metrics["ratio"]) - 1, close),
            ("the share of clipped tokens", float(metrics["clip_share"]), 0.0 if close < COARSE_TOLERANCE else close),
            ("the KL between updates per token", float(metrics["approx_kl"]), close),
            ("the KL to the reference per token", float(metrics["kl_per_token"]), close),
            ("log-probabilities of sampler and trainer differ", self.sampler_gap_nats, sampler_close),
        )
        return [f"{what}: {gap:.3g}, allowed {most:g}" for what, gap, most in gaps if not abs(gap) <= most]

    def records(self, step: int) -> list[int]:
        """The records of this process's prompts, as `TokenRows.records` counts them."""
        return self.loader.rows.records[self.loader.batch(step).prompt_ids.numpy()].tolist()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The KL coefficient; weights and optimizer are the loop's, and what is drawn follows from the step."""
        return {}, {"kl_coefficient": self.kl_coefficient}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.kl_coefficient = plain["kl_coefficient"]

    def _adapt(self, kl: Tensor) -> None:
        """Move the KL coefficient by the mean KL (N) of all processes' completions."""
        if self.settings.adaptive_kl is None:
            return
        total, count = self.process.reduce(torch.stack([kl.sum(), kl.new_tensor(len(kl))])).tolist()
        self.kl_coefficient = ppo_math.adapted_coefficient(
            self.kl_coefficient, total / count, self.settings.adaptive_kl, int(count)
        )

    def _key(self, step: int) -> int:
        """Seed of everything drawn in a step: the run's seed in the low 64 bits, the step in the next ones."""
        return (self.seed % 2**64) + (step << 64)

    def _permutation(self, step: int, epoch: int, count: int) -> Tensor:
        """Order of the completions in an epoch; word 2 of the counter keeps it apart from the sampler's streams."""
        stream = np.random.Philox(key=self._key(step), counter=[0, 0, 1 + self.process.rank, epoch])
        return torch.from_numpy(np.random.Generator(stream).permutation(count)).to(self.process.device)


def _sampler_gap(completions: Sequence[Completion], rollouts: Rollouts) -> float:
    """Mean distance in nats between the sampler's log-probabilities and those of the training pass."""
    sampled = [value for completion in completions for value in completion.logprobs or ()]
    return float((rollouts.logprobs[rollouts.acted].cpu() - torch.tensor(sampled)).abs().mean())
