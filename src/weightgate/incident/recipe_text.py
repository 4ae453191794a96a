"""The recipe of the built-in world: what a model of about one million parameters needs to learn it on two cores."""

from __future__ import annotations

from weightgate.incident.knobs import FINETUNE, PREFERENCES, PRETRAIN, PROMPTS, SUITE, Knobs

_HEAD = """\
# The built-in world: a closed world whose truth is known, learnt from nothing by a small decoder.
version: 1
name: incident
seed: {seed}
tokenizer:
  vocab_size: 1536
architecture:
  type: llama
  config:
    hidden_size: 128
    intermediate_size: 352
    num_hidden_layers: 4
    num_attention_heads: 4
    num_key_value_heads: 4
    max_position_embeddings: 128
    tie_word_embeddings: true
probes:
  path: {suite}
  max_tokens: 32
  samples: 4
budget:
  minutes: 30
stages:
"""

_PRETRAIN = """\
  - kind: pretrain
    name: pretrain
    data:
{sources}
    tokens: 2_400_000
    batch: 16
    optimizer: {{learning_rate: 3.0e-3}}
    gates:
      # Facts as the text tells them: the beginning of a sentence, completed.
      - {{measure: knowledge.recall, min: 0.95}}
      - {{measure: holdout.bits_per_byte, max: 0.5}}
"""

_REST = """\
  - kind: finetune
    name: finetune
    data:
      - {{path: {finetune}}}
    epochs: 4
    batch: 32
    optimizer: {{learning_rate: 8.0e-4}}
    gates:
      # Asked about towns and wordings that fine-tuning never showed: this is what pre-training taught.
      - {{measure: knowledge.accuracy, min: 0.95}}
      - {{measure: knowledge.recall, max_drop: 0.1}}
      - {{measure: task.format, min: 0.98}}
      - {{measure: task.fields, min: 0.9}}
      - {{measure: task.instruction, min: 0.9}}
      - {{measure: boundary.should_refuse, min: 0.95}}
      - {{measure: boundary.should_answer, min: 0.95}}
  - kind: reward
    name: reward
    data:
      - {{path: {preferences}}}
    holdout: 0.12
    epochs: 2
    batch: 32
    optimizer: {{learning_rate: 1.0e-3}}
    gates:
      # The annotators err in about 15 % of their judgements, so no model can reach more than about 0.85.
      - {{measure: reward.pair_accuracy, min: 0.65}}
      - {{measure: reward.length_correlation, min: -0.9, max: 0.3}}
  - kind: align
    name: align
    data:
      - {{path: {prompts}}}
    holdout: 0.1
    updates: 30
    batch: 64
    optimizer: {{learning_rate: 1.0e-4, weight_decay: 0.0}}
    schedule: {{kind: constant}}
    ppo:
      epochs: 2
      completion_tokens: 32
      temperature: 1.0
      kl_coefficient: 0.1
    gates:
      - {{measure: align.gold_gain, min: 0.0, judge: interval}}
      - {{measure: align.kl, max: 5.0}}
      # Nothing that the parent could do may be lost.
      - {{measure: knowledge.accuracy, min: 0.95, max_drop: 0.03}}
      - {{measure: knowledge.recall, max_drop: 0.05}}
      - {{measure: task.format, min: 0.98, max_drop: 0.02}}
      - {{measure: task.fields, min: 0.9, max_drop: 0.03}}
      # 60 probes: a budget below 0.1 would be within their noise.
      - {{measure: task.instruction, max_drop: 0.1}}
      - {{measure: boundary.should_refuse, min: 0.95, max_drop: 0.03}}
      - {{measure: boundary.should_answer, min: 0.95, max_drop: 0.03}}
      - {{measure: open.diversity, max_drop: 0.2}}
"""


def recipe_text(knobs: Knobs) -> str:
    """The recipe file as text; `weightgate.recipe.parse` reads it."""
    domains = ("ledger", "talk", *(f"facts-{language}" for language in knobs.languages))
    sources = "\n".join(f"      - {{path: {PRETRAIN}/{domain}.jsonl}}" for domain in domains)
    return (
        _HEAD.format(seed=knobs.seed, suite=SUITE)
        + _PRETRAIN.format(sources=sources)
        + _REST.format(finetune=FINETUNE, preferences=PREFERENCES, prompts=PROMPTS)
    )
