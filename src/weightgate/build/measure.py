"""What is measured at a stage boundary: hold-out loss per domain, probes, and what only rewards and alignment have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from weightgate import stats
from weightgate.data.order import permutation
from weightgate.data.packing import PairLoader, holdout_batches, prompt_batch
from weightgate.data.rows import PairRows, TokenRows
from weightgate.data.tokenizer import Tokenizer
from weightgate.probe.checkpoint_target import CheckpointTarget
from weightgate.probe.measure import gold_gain, measure
from weightgate.probe.suites import Suite
from weightgate.probe.targets import Answers, ask
from weightgate.recipe import PPO, Probes
from weightgate.stats import Measurement, Unmeasured, measurement_from_json
from weightgate.store import Result
from weightgate.train.evaluate import bits_per_byte, document_nats
from weightgate.train.objectives.reward import RewardModel
from weightgate.train.sampling import Completion, generate, sequence_logprobs

ROWS_AT_ONCE = 32
GATE_PROMPTS = 256
"""Held-out prompts on which KL and proxy reward are measured."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything measured on one checkpoint, and the answers it was measured on."""

    measurements: dict[str, Measurement]
    answers: Answers | None = None

    def answers_json(self) -> dict[str, Any] | None:
        """Return the answers as plain data; `of` reads them back."""
        if self.answers is None:
            return None
        return {"greedy": list(self.answers.greedy), "sampled": [list(texts) for texts in self.answers.sampled]}

    @staticmethod
    def of(result: Result) -> Measured:
        """Read what was kept of an earlier measurement."""
        found = {name: measurement_from_json(dict(data)) for name, data in result.measurements.items()}
        told = result.environment.get("answers")
        if told is None:
            return Measured(measurements=found)
        sampled = tuple(tuple(texts) for texts in told["sampled"])
        return Measured(measurements=found, answers=Answers(greedy=tuple(told["greedy"]), sampled=sampled))


@dataclass(frozen=True, kw_only=True)
class Suites:
    """The probe suite with its settings; `chat` when the model has learnt the chat template."""

    suite: Suite
    settings: Probes
    chat: bool

    @property
    def asked(self) -> Suite:
        """The probes this model can be asked: raw text always, chat only after fine-tuning."""
        return self.suite if self.chat else self.suite.of_form("text")


@dataclass(frozen=True, kw_only=True)
class AlignmentSubjects:
    """The models an aligned policy is compared with, and the held-out prompts."""

    reference: Any
    reward: RewardModel
    prompts: TokenRows
    ppo: PPO
    seed: int
    parent_answers: Answers | None


def policy_measurements(
    model: Any,
    tokenizer: Tokenizer,
    device: torch.device,
    *,
    own: str,
    holdouts: Mapping[str, tuple[TokenRows, int]],
    probes: Suites | None,
) -> Measured:
    """Measure a language model on the hold-outs of its own and every earlier stage, and on the probes.

    Args:
        own: name of the stage that made it; its hold-out is also reported as `holdout.bits_per_byte`.
        holdouts: stage name -> held-out rows and their context.
    """
    found: dict[str, Measurement] = {}
    for stage, (rows, context) in holdouts.items():
        found |= _holdout(model, tokenizer, device, stage, rows, context)
    if own in holdouts:
        found["holdout.bits_per_byte"] = found[f"holdout.{own}.bits_per_byte"]
    if probes is None:
        return Measured(measurements=found)
    settings = probes.settings
    target = CheckpointTarget(model=model, tokenizer=tokenizer, max_tokens=settings.max_tokens, batch=settings.batch)
    asked = probes.asked
    answers = ask(target, asked, samples=settings.samples)
    return Measured(measurements=found | measure(asked, answers), answers=answers)


def _holdout(
    model: Any, tokenizer: Tokenizer, device: torch.device, stage: str, rows: TokenRows, context: int
) -> dict[str, Measurement]:
    if len(rows) == 0:
        return {f"holdout.{stage}.bits_per_byte": Unmeasured(reason="no record was held out; raise `holdout`")}
    batches = holdout_batches(rows, context, ROWS_AT_ONCE, tokenizer.pad_id)
    nats = document_nats(model, batches, len(rows), device)
    num_bytes = np.asarray(rows.num_bytes)
    found = {f"holdout.{stage}.bits_per_byte": bits_per_byte(nats, num_bytes)}
    for index, domain in enumerate(rows.domain_names):
        inside = np.asarray(rows.domains) == index
        if len(rows.domain_names) > 1 and inside.any():
            found[f"holdout.{stage}.{domain}.bits_per_byte"] = bits_per_byte(nats[inside], num_bytes[inside])
    return found


def reward_measurements(model: RewardModel, tokenizer: Tokenizer, device: torch.device, holdout: PairRows) -> Measured:
    """Pair accuracy on held-out pairs (a tie counts as wrong), and how far the score follows the length."""
    if len(holdout) == 0:
        nothing = Unmeasured(reason="no pair was held out; raise `holdout`")
        return Measured(measurements={"reward.pair_accuracy": nothing, "reward.length_correlation": nothing})
    loader = PairLoader(rows=holdout, batch=ROWS_AT_ONCE, seed=0, pad_id=tokenizer.pad_id)
    scores: list[float] = []
    lengths: list[float] = []
    wins = 0
    with torch.no_grad():
        for step in range(loader.num_batches(0)):
            batch = loader.batch(step).to(device)
            chosen = model(batch.chosen_ids, batch.chosen_mask)
            rejected = model(batch.rejected_ids, batch.rejected_mask)
            wins += int((chosen > rejected).sum())
            for side, mask in ((chosen, batch.chosen_mask), (rejected, batch.rejected_mask)):
                scores += side.tolist()
                lengths += (mask.sum(dim=1) - batch.prompt_lengths).tolist()
    return Measured(
        measurements={
            "reward.pair_accuracy": stats.proportion(wins, len(holdout)),
            "reward.length_correlation": stats.correlation(scores, lengths),
        }
    )


def alignment_measurements(
    policy: Any,
    answers: Answers | None,
    tokenizer: Tokenizer,
    device: torch.device,
    subjects: AlignmentSubjects,
    suite: Suite | None,
) -> dict[str, Measurement]:
    """KL to the reference and the gains in proxy and gold reward, each paired by prompt.

    Policy and reference complete the same held-out prompts with the temperature that PPO trained at.
    """
    found: dict[str, Measurement] = {}
    if len(subjects.prompts) == 0:
        nothing = Unmeasured(reason="no prompt was held out; raise `holdout`")
        found |= dict.fromkeys(("align.kl", "align.proxy_gain", "align.stopped"), nothing)
    else:
        found |= _on_prompts(policy, tokenizer, device, subjects)
    if suite is None or answers is None or subjects.parent_answers is None:
        found["align.gold_gain"] = Unmeasured(
            reason="there is no gold scorer: the recipe has no probes, or the parent no answers"
        )
    else:
        found["align.gold_gain"] = gold_gain(suite, answers, subjects.parent_answers)
    return found


def _on_prompts(
    policy: Any, tokenizer: Tokenizer, device: torch.device, subjects: AlignmentSubjects
) -> dict[str, Measurement]:
    rows = subjects.prompts
    chosen = permutation(len(rows), subjects.seed, 0)[:GATE_PROMPTS].tolist()
    width = int(rows.lengths[chosen].max())
    prompts = prompt_batch(rows, chosen, width, tokenizer.pad_id).token_lists()
    after = _complete(policy, prompts, tokenizer, subjects)
    before = _complete(subjects.reference, prompts, tokenizer, subjects)
    gains = _scores(subjects.reward, prompts, after, device), _scores(subjects.reward, prompts, before, device)
    kl = _sequence_kl(policy, subjects, prompts, after, device)
    return {
        "align.kl": stats.mean(kl, unit="nats per completion"),
        "align.proxy_gain": stats.paired_difference(*gains, unit="reward model score"),
        "align.stopped": stats.proportion(sum(completion.stopped for completion in after), len(after)),
    }


def _complete(
    model: Any, prompts: list[list[int]], tokenizer: Tokenizer, subjects: AlignmentSubjects
) -> list[Completion]:
    return generate(
        model,
        prompts,
        max_tokens=subjects.ppo.completion_tokens,
        temperature=subjects.ppo.temperature,
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        streams=[(subjects.seed, row) for row in range(len(prompts))],
    )


def _sampled(completion: Completion) -> list[int]:
    return completion.ids + ([] if completion.stop_id is None else [completion.stop_id])


def _padded_rows(
    prompts: Sequence[Sequence[int]], completions: Sequence[Completion], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """Blocks of (ids, mask, prompt lengths), right-padded."""
    blocks = []
    sequences = [list(prompt) + _sampled(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    for start in range(0, len(sequences), ROWS_AT_ONCE):
        part = sequences[start : start + ROWS_AT_ONCE]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, sequence in enumerate(part):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = True
        lengths = [len(prompt) for prompt in prompts[start : start + ROWS_AT_ONCE]]
        blocks.append((ids.to(device), mask.to(device), lengths))
    return blocks


def _scores(
    reward: RewardModel, prompts: Sequence[Sequence[int]], completions: Sequence[Completion], device: torch.device
) -> list[float]:
    with torch.no_grad():
        return [
            score for ids, mask, _ in _padded_rows(prompts, completions, device) for score in reward(ids, mask).tolist()
        ]


def _sequence_kl(
    policy: Any,
    subjects: AlignmentSubjects,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    device: torch.device,
) -> list[float]:
    """k1 per completion: log-probability under the policy minus under the reference, at the sampling temperature."""
    found: list[float] = []
    temperature = subjects.ppo.temperature
    with torch.no_grad():
        for ids, mask, lengths in _padded_rows(prompts, completions, device):
            gap = sequence_logprobs(policy, ids, mask, temperature) - sequence_logprobs(
                subjects.reference, ids, mask, temperature
            )
            for row, length in enumerate(lengths):
                found.append(float(gap[row, length - 1 :].sum()))
    return found
