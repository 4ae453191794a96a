"""Which of two answers a reward model of the store prefers, for votes that an audit has read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weightgate import recipe
from weightgate.data.records import Message
from weightgate.preferences.votes import Vote, prompt_turns
from weightgate.store import Store
from weightgate.train.checkpoints import load_reward, tokenizer_of
from weightgate.train.environment import choose_device, choose_precision

_AT_ONCE = 32


def reward_signs(recipe_path: Path, ref: str, votes: Sequence[Vote]) -> NDArray[np.int32]:
    """1 where the reward model `ref` scores the first answer higher, -1 the second, 0 where both the same: (votes).

    Nothing is cut, so a conversation may be longer than those that the model was trained on. Raises `StoreError` for a
    ref that is no reward model.
    """
    loaded = recipe.load(recipe_path)
    store = Store.open(recipe_path.parent / loaded.store)
    device = choose_device(loaded.device)
    checkpoint = store.resolve(ref)
    model = load_reward(store, checkpoint, device=device, precision=choose_precision(loaded.precision, device))
    tokenizer = tokenizer_of(store, store.manifest(checkpoint))
    dialogues = [
        [*_messages(vote.prompt), Message(role="assistant", content=answer)]
        for vote in votes
        for answer in (vote.first, vote.second)
    ]
    rows = [ids for ids, _ in tokenizer.render_conversations(dialogues)]
    scores = np.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            ids, mask = _padded([rows[at] for at in part], tokenizer.pad_id, device)
            scores[part] = model(ids, mask).float().cpu().numpy()
    return np.sign(scores[0::2] - scores[1::2]).astype(np.int32)


def _messages(prompt: str) -> list[Message]:
    return [Message(role=role, content=content) for role, content in prompt_turns(prompt)]


def _padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows filled up on the right to one length, and which tokens are real: both (rows, tokens)."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask.bool()
