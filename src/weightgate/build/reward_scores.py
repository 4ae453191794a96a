"""Which of two answers a reward model prefers, for votes that an audit has read: of the store, or of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from weightgate import recipe
from weightgate.data.records import Message
from weightgate.data.template import TemplateError
from weightgate.data.tokenizer import Tokenizer
from weightgate.errors import ModelError
from weightgate.preferences.model_view import Preferred
from weightgate.preferences.votes import Vote, prompt_turns
from weightgate.probe.addresses import CheckpointAddress, FolderAddress, ModelAddress
from weightgate.store import Store
from weightgate.train.checkpoints import load_reward, tokenizer_of
from weightgate.train.environment import choose_device, choose_precision
from weightgate.train.models import DTYPE_OF_PRECISION

_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A loaded reward model. `score` gives one number a row for ids and mask (rows, tokens), padded on the right.

    `context_tokens` is what the model was made for; None: its configuration does not say.
    """

    place: str
    score: Callable[[Tensor, Tensor], Tensor]
    tokenizer: Tokenizer
    device: torch.device
    context_tokens: int | None


def preferred_by(address: ModelAddress, votes: Sequence[Vote]) -> Preferred:
    """Ask a reward model which answer of each vote it scores higher.

    Nothing is cut: pairs longer than the model's context, and pairs whose messages its chat template refuses, are not
    asked. Raises `StoreError` for a ref that is no reward model, `ModelError` for a folder that is none, and where no
    pair can be asked.
    """
    judge = _folder(address) if isinstance(address, FolderAddress) else _checkpoint(address)
    rows = _rendered(judge, votes)
    most = judge.context_tokens
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    asked = [at for at, (one, other) in enumerate(pairs) if one and other and not _too_long((one, other), most)]
    if votes and not asked:
        raise ModelError(
            "none of the pairs can be put to the reward model",
            where=judge.place,
            found=f"its chat template refuses them, or they are longer than its context of {most} tokens",
        )
    scores = _scored(judge, [row for at in asked for row in pairs[at]])
    signs = np.zeros(len(votes), dtype=np.int32)
    signs[asked] = np.sign(scores[0::2] - scores[1::2])
    known = np.zeros(len(votes), dtype=bool)
    known[asked] = True
    return Preferred(signs=signs, asked=known)


def _too_long(rows: Sequence[Sequence[int]], most: int | None) -> bool:
    return most is not None and max(map(len, rows)) > most


def _checkpoint(address: CheckpointAddress) -> _Judge:
    loaded = recipe.load(address.recipe_path)
    store = Store.open(address.recipe_path.parent / loaded.store)
    device = choose_device(loaded.device)
    precision = choose_precision(loaded.precision, device)
    model = load_reward(store, address.checkpoint, device=device, precision=precision)
    return _Judge(
        place=address.ref,
        score=model,
        tokenizer=tokenizer_of(store, store.manifest(address.checkpoint)),
        device=device,
        context_tokens=_context(model.config),
    )


def _folder(address: FolderAddress) -> _Judge:
    """A folder that `transformers` loads for sequence classification with one label, as `export` writes it."""
    device = choose_device("auto")
    model = _classifier(address.path, device)
    tokenizer = Tokenizer.from_folder(address.path)
    if model.config.pad_token_id is None:  # by which the classifier tells the last token of a padded row
        model.config.pad_token_id = tokenizer.pad_id
    return _Judge(
        place=str(address.path),
        score=lambda ids, mask: model(input_ids=ids, attention_mask=mask.long()).logits[:, 0],
        tokenizer=tokenizer,
        device=device,
        context_tokens=_context(model.config),
    )


def _classifier(folder: Path, device: torch.device) -> Any:
    """Load the network. A head that the folder lacks would be drawn at random, so it is refused."""
    expected = "a folder with config.json, tokenizer and safetensors weights of a sequence classifier with one label"
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder.resolve(),
            trust_remote_code=False,
            use_safetensors=True,
            dtype=DTYPE_OF_PRECISION[choose_precision("auto", device)],
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            "the reward model cannot be loaded", where=str(folder), expected=expected, found=found
        ) from None
    missing = sorted(loading["missing_keys"])
    if missing or model.config.num_labels != 1:
        found = f"no weights for {', '.join(missing[:3])}" if missing else f"{model.config.num_labels} labels"
        raise ModelError("this folder holds no reward model", where=str(folder), expected=expected, found=found)
    return model.to(device).eval()


def _context(config: Any) -> int | None:
    found = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return None if found is None else int(found)


def _rendered(judge: _Judge, votes: Sequence[Vote]) -> list[Sequence[int]]:
    """Token ids of every conversation, two for each vote; empty where the chat template refuses it."""
    dialogues = [
        [*_messages(vote.prompt), Message(role="assistant", content=answer)]
        for vote in votes
        for answer in (vote.first, vote.second)
    ]
    try:
        return [ids for ids, _ in judge.tokenizer.render_conversations(dialogues)]
    except TemplateError as refusal:
        rows = [_one_rendered(judge.tokenizer, dialogue) for dialogue in dialogues]
        if not any(rows):
            raise ModelError(
                "the reward model cannot be asked in messages",
                where=judge.place,
                found=refusal.what,
                mend="put a chat_template.jinja into the folder",
            ) from None
        return rows


def _one_rendered(tokenizer: Tokenizer, dialogue: Sequence[Message]) -> Sequence[int]:
    try:
        return tokenizer.render_conversations([dialogue])[0][0]
    except TemplateError:
        return []


def _scored(judge: _Judge, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """One score a row; rows of like length share a batch."""
    scores = np.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            ids, mask = _padded([rows[at] for at in part], judge.tokenizer.pad_id, judge.device)
            scores[part] = judge.score(ids, mask).float().cpu().numpy()
    return scores


def _messages(prompt: str) -> list[Message]:
    return [Message(role=role, content=content) for role, content in prompt_turns(prompt)]


def _padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows filled up on the right to one length, and which tokens are real: both (rows, tokens)."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask.bool()
