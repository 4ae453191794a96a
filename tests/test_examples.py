"""The example recipes, built for real in a short form: the same stages, data files, probes and gates, few steps.

Only sizes and lengths are changed, and thresholds are widened: what is asserted is that every gate of every example
could be measured on real text, that the lineage is right, and that what is exported loads elsewhere.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from public_data import public_data

torch = pytest.importorskip("torch", reason="the examples train")
import tokenizers  # noqa: E402
from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

from weightgate import recipe  # noqa: E402
from weightgate.cli import main  # noqa: E402
from weightgate.data.sources import read_conversations, source_digest  # noqa: E402
from weightgate.probe.suites import load_suite  # noqa: E402
from weightgate.recipe import Source  # noqa: E402
from weightgate.store import Store  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/weightgate.yaml"))
FILES = {
    "wikitext2.txt": "text/wikitext2_valid.txt",
    "tinyshakespeare.txt": "text/tinyshakespeare.txt",
    "alpaca.jsonl": "instruct/alpaca_5000.jsonl",
    "gsm8k.jsonl": "instruct/gsm8k_train.jsonl",
    "hh_harmless.jsonl.gz": "preferences/hh_harmless_base_test.jsonl.gz",
}
RECORDS = 80
"""Records read of each source in the short form."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' }}"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}"
    "{{ '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"bos_token": "<s>", "eos_token": "</s>"},
    "qwen3": {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>"],
        "chat_template": CHATML,
    },
    "gemma3_text": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "chat_template": TURNS,
    },
}
"""Control tokens and template as the family's base models have them; a Llama base model brings no template."""


STOPS = {"llama": ["</s>"], "qwen3": ["<|im_end|>"], "gemma3_text": ["<eos>", "<end_of_turn>"]}
"""What ends a completion in an exported folder: an engine that knew `<eos>` alone would let Gemma run on."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    return public_data()


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def run(*arguments: str, code: int = 0) -> str:
    """Run a verb; return what it printed to standard output."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout


def copy_short(example: str, folder: Path, data: Path) -> dict[str, Any]:
    """Copy an example with links to the real files, and shorten its recipe; returns the recipe as plain data."""
    shutil.copytree(ROOT / "examples" / example, folder, dirs_exist_ok=True)
    (folder / "data").mkdir()
    for name, origin in FILES.items():
        (folder / "data" / name).symlink_to(data / origin)
    plain = yaml.safe_load((folder / "weightgate.yaml").read_text(encoding="utf-8"))
    plain |= {"threads": 1, "precision": "fp32"}
    plain["probes"] |= {"max_tokens": 4, "samples": 2}
    for stage in plain["stages"]:
        _shorten(stage)
    return dict(plain)


def _shorten(stage: dict[str, Any]) -> None:
    stage["batch"] = 4
    for source in stage["data"]:
        source["limit"] = RECORDS
    stage["holdout"] = 0.2
    if stage["kind"] in ("pretrain", "finetune"):
        stage.pop("epochs")
        stage["steps"] = 3
    elif stage["kind"] == "reward":
        stage["epochs"] = 0.2
    else:
        stage["updates"] = 2
        stage["ppo"] |= {"completion_tokens": 4, "epochs": 1}
    for gate in stage["gates"]:
        gate["judge"] = "value"
        for bound, wide in (("min", -1e9), ("max", 1e9), ("max_drop", 1e9), ("max_rise", 1e9)):
            if bound in gate:
                gate[bound] = wide


def write(folder: Path, plain: dict[str, Any]) -> None:
    (folder / "weightgate.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")


def make_base(family: str, folder: Path, data: Path) -> None:
    """Write a Hugging Face folder: random weights of a real architecture, and a tokenizer trained on real text."""
    settings = dict(FAMILIES[family])
    template = settings.pop("chat_template", None)
    specials = [token for value in settings.values() for token in (value if isinstance(value, list) else [value])]
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    text = (data / "text" / "wikitext2_valid.txt").read_text(encoding="utf-8")[:100_000]
    backend.train_from_iterator(text.splitlines(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)


def require_every_gate_measured(folder: Path, plain: dict[str, Any]) -> Store:
    """Every stage was built, and each of its conditions has a verdict that rests on a number."""
    store = Store.open(folder / ".weightgate")
    refs = store.refs()
    for stage in plain["stages"]:
        verdicts = store.results(f"measured:{refs[stage['name']]}")[-1].verdicts
        bounds = sum(bound in gate for gate in stage["gates"] for bound in ("min", "max", "max_drop", "max_rise"))
        assert len(verdicts) == bounds > 0
        assert {verdict["status"] for verdict in verdicts} == {"passed"}, verdicts
    return store


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_every_example_is_a_recipe_with_a_suite_and_an_explanation(folder: Path) -> None:
    loaded = recipe.load(folder / "weightgate.yaml")
    explained = (folder / "README.md").read_text(encoding="utf-8")
    named = {source.path for stage in loaded.stages for source in stage.data if source.path}
    assert [path for path in named if path not in explained] == [], "README.md says where every file comes from"
    assert {Path(path).name for path in named} <= FILES.keys()
    if loaded.probes is not None:
        assert len(load_suite(folder / loaded.probes.path)) >= 10


def test_from_scratch_on_real_text(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = copy_short("wikitext-hh", tmp_path, real_data)
    plain["tokenizer"]["vocab_size"] = 512
    plain["architecture"]["config"] |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    plain["architecture"]["config"] |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    write(tmp_path, plain)
    monkeypatch.chdir(tmp_path)
    run("lock")
    outcome = json.loads(run("build", "--json").splitlines()[-1])
    assert outcome["passed"]
    store = require_every_gate_measured(tmp_path, plain)
    refs = store.refs()
    policy = store.manifest(refs["align"])
    assert (policy.parent, policy.reward) == (refs["finetune"], refs["reward"])
    run("export", "align", "exported")
    model, tokenizer = AutoModelForCausalLM.from_pretrained("exported"), AutoTokenizer.from_pretrained("exported")
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 32)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(stage["name"] in page for stage in plain["stages"])


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_on_a_base_model(
    family: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = copy_short("lora-on-base", tmp_path, real_data)
    plain["template"] = "base" if "chat_template" in FAMILIES[family] else "weightgate"
    make_base(family, tmp_path / "base", real_data)
    write(tmp_path, plain)
    monkeypatch.chdir(tmp_path)
    run("lock")
    assert json.loads(run("build", "--json").splitlines()[-1])["passed"]
    store = require_every_gate_measured(tmp_path, plain)
    refs = store.refs()
    assert store.manifest(refs["align"]).parent == refs["finetune"]
    run("export", "align", "merged")
    merged = AutoModelForCausalLM.from_pretrained("merged").state_dict()
    base = AutoModelForCausalLM.from_pretrained("base").state_dict()
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert moved
    assert all("proj" in name for name in moved), "an adapter on linear layers moves nothing else"
    ends = json.loads(Path("merged/generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained("merged")
    assert tokenizer.convert_ids_to_tokens(ends if isinstance(ends, list) else [ends]) == STOPS[family]


def test_a_hub_data_set_stands_in_for_a_missing_file(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "train.jsonl").write_text('{"prompt": "One?", "completion": "1"}\n', encoding="utf-8")
    source = Source(path="data/absent.jsonl", hub=str(hub))
    (conversation,) = read_conversations([source], tmp_path)
    assert conversation.messages[-1].content == "1"
    from_hub = source_digest(source, tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(hub / "train.jsonl", tmp_path / "data" / "absent.jsonl")
    assert source_digest(source, tmp_path) != from_hub, "the lock must see that the file took over"


def test_the_real_preferences_are_dialogues(real_data: Path) -> None:
    """The examples rely on it: these files hold no prompt column."""
    with gzip.open(real_data / FILES["hh_harmless.jsonl.gz"]) as stream:
        first = json.loads(next(stream))
    assert first.keys() == {"chosen", "rejected"}
