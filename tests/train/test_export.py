"""Exported folders load in transformers and PEFT as they are, and say when they were changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exports hold tensors")
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model  # noqa: E402
from peft.utils import get_peft_model_state_dict  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import BPE  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from weightgate.errors import ModelError, StoreError  # noqa: E402
from weightgate.store import canonical_json, digest_bytes  # noqa: E402
from weightgate.store.fs import host_name  # noqa: E402
from weightgate.train import export  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PARENT = {"stage": "base", "stage_kind": "pretrain", "parent": None, "reward": None}
PARENT_ID = digest_bytes(canonical_json(PARENT))
MANIFEST = {"stage": "tune|d", "stage_kind": "finetune", "parent": PARENT_ID, "reward": None}
PROVENANCE = export.Provenance(
    checkpoint=digest_bytes(canonical_json(MANIFEST)), manifest=MANIFEST, ancestors={PARENT_ID: PARENT}
)


def tiny(
    model_type: str = "llama", *, auto: Any = AutoModelForCausalLM, dtype: Any = torch.float32, **more: Any
) -> Any:
    torch.manual_seed(1)
    return auto.from_config(AutoConfig.for_model(model_type, **SIZES, **more), dtype=dtype).eval()


def config_of(model: Any) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("architectures", "dtype", "transformers_version"):
        described.pop(name, None)
    return described


def tokenizer_files() -> dict[str, bytes]:
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{chr(97 + index): 3 + index for index in range(26)}}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}
    return {
        "tokenizer.json": Tokenizer(BPE(vocab=words, merges=[])).to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "chat_template.jinja": b"{{ messages[0].content }}",
    }


def write(folder: Path, model: Any, **changes: Any) -> list[str]:
    settings: dict[str, Any] = {
        "form": "causal",
        "tensors": model.state_dict(),
        "config": config_of(model),
        "tokenizer_files": tokenizer_files(),
        "provenance": PROVENANCE,
    }
    return export.export_folder(folder, **(settings | changes))


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 23).reshape(2, 10)).logits


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_loads_the_folder_as_it_is(tmp_path: Path, model_type: str, dtype: Any) -> None:
    model = tiny(model_type, dtype=dtype, tie_word_embeddings=False)
    write(tmp_path / "out", model)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.dtype == dtype
    assert torch.equal(logits(again), logits(model))
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "abc"}], tokenize=False) == "abc"
    assert export.problems(tmp_path / "out") == []


def test_tied_weights_are_kept_once(tmp_path: Path) -> None:
    model = tiny(tie_word_embeddings=True)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    write(tmp_path / "out", model, tensors=tensors)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))


def test_large_models_are_written_in_shards(tmp_path: Path) -> None:
    model = tiny(tie_word_embeddings=False)
    names = write(tmp_path / "out", model, shard_bytes=20_000)
    assert "model.safetensors.index.json" in names
    assert sum(name.endswith(".safetensors") for name in names) > 1
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))
    assert export.problems(tmp_path / "out") == []


def test_reward_models_load_as_sequence_classifiers(tmp_path: Path) -> None:
    model = tiny(auto=AutoModelForSequenceClassification, num_labels=1)
    tensors = {**model.state_dict(), "score_offset": torch.tensor(0.25)}
    names = write(tmp_path / "out", model, form="reward", tensors=tensors)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.num_labels == 1
    assert torch.equal(logits(again), logits(model))
    assert json.loads((tmp_path / "out" / export.PROVENANCE_FILE).read_bytes())["score_offset"] == 0.25
    assert "generation_config.json" not in names


def test_adapters_are_kept_as_a_peft_folder(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write(base, tiny(tie_word_embeddings=False))
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(tiny(tie_word_embeddings=False), lora)
    described = lora.to_dict() | {"target_modules": ["q_proj"], "base_model_name_or_path": str(base)}
    config = json.loads(json.dumps(described, default=list))
    tensors = get_peft_model_state_dict(model)
    names = write(tmp_path / "out", model, form="adapter", tensors=tensors, config=config)
    assert {"adapter_model.safetensors", "adapter_config.json"} <= set(names)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))


def test_the_card_names_base_and_lineage(tmp_path: Path) -> None:
    provenance = export.Provenance(
        checkpoint=PROVENANCE.checkpoint,
        manifest=MANIFEST,
        ancestors=PROVENANCE.ancestors,
        base_model='org/"model"\nlicense: mit',
        merged=True,
    )
    write(tmp_path / "out", tiny(), provenance=provenance)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'base_model: "org/\\"model\\"\\nlicense: mit"' in card
    assert card.index(PARENT_ID) < card.index("| tune\\|d | finetune |")
    assert "merged" in card


def test_a_taken_folder_is_refused_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    write(target, tiny())
    (target / "mine.txt").write_text("keep")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match="not empty"):
        write(target, tiny())
    assert (target / "mine.txt").read_text() == "keep"
    write(target, tiny(), force=True)
    assert not (target / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="not a folder"):
        write(tmp_path / "file", tiny(), force=True)


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(StoreError, match="could not be written") as refusal:
        write(tmp_path / "deep" / "out", tiny())
    assert refusal.value.found == "No space left on device"
    assert list((tmp_path / "deep").iterdir()) == []


def test_the_next_export_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as finished:
        pass
    left = f"{host_name()}-{finished.pid}-00ff"
    for name in (f".other.{left}", f".lost.{left}.old", ".out.notes"):
        (tmp_path / name).mkdir()
    write(tmp_path / "out", tiny())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.notes", "lost", "out"]


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ""])
def test_files_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no plain name"):
        write(tmp_path / "out", tiny(), tokenizer_files={name: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_unknown_model_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no reward model"):
        write(tmp_path / "out", tiny(), form="reward", config={"model_type": "nonesuch"})


def test_changes_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder, tiny())
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").unlink()
    statement = json.loads((folder / export.PROVENANCE_FILE).read_bytes())
    statement["manifest"]["stage"] = "other"
    del statement["ancestors"][PARENT_ID]
    statement["files"]["../out/config.json"] = "b3:0"
    (folder / export.PROVENANCE_FILE).write_text(json.dumps(statement))
    found = "\n".join(export.problems(folder))
    for expected in (
        "model.safetensors is not",
        "tokenizer.json is missing",
        "another digest",
        "not here",
        "plain file",
    ):
        assert expected in found
    (folder / export.PROVENANCE_FILE).write_text("[]")
    with pytest.raises(StoreError, match="cannot be verified"):
        export.problems(folder)
