"""What must be refused before a step is taken, each through the command line, with the words that mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

import tiny_world
from weightgate.build import judging
from weightgate.build import run as build_run
from weightgate.build.measure import Measured
from weightgate.build.workspace import open_workspace
from weightgate.store import Manifest, Store
from weightgate.train import adapters

Command = Callable[..., Result]

GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2}
HEADER = "{{ '<|' + m['role'] + '|>' }}"
ANSWER = "{{ m['content'] + eos_token }}"
OPEN = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"


def refused(result: Result, *fragments: str) -> None:
    """A user's mistake: exit code 2, no traceback, and a message that says all of this."""
    assert result.exit_code == 2, result.output
    missing = [fragment for fragment in fragments if fragment not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"


def nothing_was_trained(folder: Path) -> bool:
    return list(Store.open(folder / ".weightgate").manifests.digests()) == []


def with_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    tiny_world.write_recipe(folder, recipe)


def template(body: str, start: str = "{{ bos_token }}") -> str:
    """A template of ours with another way to write answers."""
    answer = "{% if m['role'] == 'assistant' %}" + body + "{% else %}" + ANSWER + "{% endif %}"
    return start + "{% for m in messages %}" + HEADER + answer + "{% endfor %}" + OPEN


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("finetune", epoch=2))
    refused(weightgate("lock"), "unknown key 'epoch'", "weightgate.yaml:", "stages.1.epoch", "did you mean 'epochs'?")


def test_a_misplaced_key_is_refused(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("finetune", learning_rate=1e-3))
    refused(weightgate("lock"), "unknown key 'learning_rate'", "expected: one of")


def test_a_build_needs_a_lock(world: Path, weightgate: Command) -> None:
    refused(weightgate("build"), "there is no lock here", "mend: weightgate lock")


def test_data_edited_after_the_lock(world: Path, weightgate: Command) -> None:
    assert weightgate("lock").exit_code == 0
    path = world / "preferences.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    refused(
        weightgate("build"),
        "weightgate.lock: stages.reward.data.preferences.jsonl.digest",
        'expected: "b3:',
        'found: "b3:',
        "weightgate lock",
    )
    assert nothing_was_trained(world)


def test_a_recipe_edited_after_the_lock(world: Path, weightgate: Command) -> None:
    assert weightgate("lock").exit_code == 0
    with_recipe(world, tiny_world.changed("align", batch=8))
    refused(weightgate("build"), "recipe.stages.align.batch", "expected: 4", "found: 8", "mend: weightgate lock")
    assert nothing_was_trained(world)


def test_answers_that_all_lie_behind_the_context(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("finetune", context=8))
    refused(weightgate("lock"), "no row is left to train on", "stages.finetune.data")


@pytest.mark.parametrize(
    ("body", "start", "what"),
    [
        ("{% generation %}" + ANSWER + "{% endgeneration %}", "{{ bos_token + bos_token }}", "BOS more than once"),
        ("{% generation %}{{ m['content'] }}{% endgeneration %}{{ eos_token }}", "{{ bos_token }}", "end-of-turn"),
        ("{{ messages[0]['content'] }}" + ANSWER, "{{ bos_token }}", "supervises the prompt"),
    ],
    ids=["two BOS", "no terminator", "the prompt"],
)
def test_templates_that_train_the_wrong_thing(
    world: Path, weightgate: Command, body: str, start: str, what: str
) -> None:
    (world / "mine.jinja").write_text(template(body, start))
    with_recipe(world, tiny_world.changed(template="mine.jinja"))
    refused(weightgate("lock"), what, "mend:")


def test_a_template_edited_after_the_lock(world: Path, weightgate: Command) -> None:
    good = template("{% generation %}" + ANSWER + "{% endgeneration %}")
    (world / "mine.jinja").write_text(good)
    with_recipe(world, tiny_world.changed(template="mine.jinja"))
    assert weightgate("lock").exit_code == 0
    (world / "mine.jinja").write_text(good.replace("|>' }}", "|>\\n' }}"))
    refused(weightgate("build"), "weightgate.lock: template", "restore the template")


def test_a_pad_token_that_is_also_eos_masks_no_eos(world: Path, weightgate: Command, base_folder: Path) -> None:
    """Padding is known by its place, not by its id, so every answer keeps its terminator all the same."""
    base = world / "base"
    shutil.copytree(base_folder, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": settings["eos_token"]}))
    with_recipe(world, tiny_world.from_base(base, adapter=None))
    assert weightgate("lock").exit_code == 0
    stages = {stage["name"]: stage for stage in json.loads((world / "weightgate.lock").read_text())["stages"]}
    census = stages["finetune"]["census"]
    assert census["rows_with_terminator_supervised"] == census["rows"] > 0


def test_gate_prompts_in_the_training_data(world: Path, weightgate: Command) -> None:
    leaked = "Which colour has the GATE of Ada"
    row = {"messages": [{"role": "user", "content": leaked}, {"role": "assistant", "content": "It is red."}]}
    with (world / "finetune.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    refused(
        weightgate("lock"), "gate prompts stand in the training data", "finetune.jsonl:91", "Which colour has the gate"
    )


def test_a_base_model_other_than_the_locked_one(world: Path, weightgate: Command, base_folder: Path) -> None:
    base = world / "base"
    shutil.copytree(base_folder, base)
    with_recipe(world, tiny_world.from_base(base, adapter={"rank": 2}))
    assert weightgate("lock").exit_code == 0
    change_a_weight(base)
    refused(weightgate("build"), "weightgate.lock: base", "restore the base model")
    assert nothing_was_trained(world)


def test_an_adapter_of_another_base(world: Path, weightgate: Command, base_folder: Path) -> None:
    base = world / "base"
    shutil.copytree(base_folder, base)
    with_recipe(world, tiny_world.from_base(base, adapter={"rank": 2}))
    assert weightgate("lock").exit_code == 0
    assert weightgate("build", "--until", "finetune").exit_code == 0
    change_a_weight(base)
    assert weightgate("lock").exit_code == 0
    refused(
        weightgate("build", "--from", "finetune"), "descends from another base model", "expected: b3:", "found: b3:"
    )


def change_a_weight(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_of_another_tokenizer(built: Path, weightgate: Command) -> None:
    with_recipe(built, tiny_world.changed(tokenizer={"vocab_size": 310}))
    assert weightgate("lock").exit_code == 0
    refused(weightgate("build", "--from", "finetune"), "trained with another tokenizer", "expected: b3:", "found: b3:")


def test_a_reference_that_is_not_the_parent(built: Path, weightgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_recipe(built, tiny_world.changed("align", updates=9))
    assert weightgate("lock").exit_code == 0
    genuine, loaded = build_run.load_policy, []

    def swapped(*arguments: Any, **settings: Any) -> Any:
        model = genuine(*arguments, **settings)
        loaded.append(model)
        if len(loaded) == 2:
            with torch.no_grad():
                model.model.norm.weight[0] += 1e-3
        return model

    monkeypatch.setattr(build_run, "load_policy", swapped)
    refused(
        weightgate("build"), "reference model is not the parent", "where: stages.align", "expected: b3:", "found: b3:"
    )


@pytest.mark.parametrize("measured", [True, False], ids=["failed", "not measured"])
def test_a_stage_whose_parent_did_not_pass(
    world: Path, weightgate: Command, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    if not measured:
        monkeypatch.setattr(judging, "policy_measurements", lambda *arguments, **settings: Measured(measurements={}))
    with_recipe(world, tiny_world.changed("pretrain", gates=[{"measure": "knowledge.recall", "min": 1.1}]))
    assert weightgate("lock").exit_code == 0
    assert weightgate("build").exit_code == 1
    refused(weightgate("build", "--from", "failed/pretrain"), "gates did not pass", "mend: weightgate show")


def object_of(folder: Path, stage: str) -> Path:
    store = Store.open(folder / ".weightgate")
    manifest: Manifest = store.manifest(store.refs()[stage])
    return store.objects.path(manifest.tensors["model.norm.weight"].parts[0])


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_truncated_checkpoint_is_named_and_can_be_made_again(built: Path, weightgate: Command) -> None:
    path = object_of(built, "finetune")
    whole = path.read_bytes()
    damage(path, whole[:-4])
    refused(
        weightgate("build"),
        "checkpoint of stage 'finetune' is damaged",
        "weightgate verify",
        "weightgate build --restart",
    )
    assert weightgate("verify").exit_code == 1
    assert weightgate("build", "--restart").exit_code == 0
    assert path.read_bytes() == whole
    assert weightgate("verify").exit_code == 0


def test_a_flipped_bit_in_the_parent_is_noticed_before_training(built: Path, weightgate: Command) -> None:
    path = object_of(built, "finetune")
    whole = path.read_bytes()
    damage(path, bytes([whole[0] ^ 1]) + whole[1:])
    with_recipe(built, tiny_world.changed("align", updates=9))
    assert weightgate("lock").exit_code == 0
    refused(
        weightgate("build"), "does not hash to its name", "expected: b3:", "found: b3:", "weightgate build --restart"
    )
    assert weightgate("build", "--restart").exit_code == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("stage", "settings", "fragments"),
    [
        (
            "finetune",
            {"gates": [{"measure": "knowledge.acuracy", "min": 0.5}]},
            ("'knowledge.acuracy'", "stages.finetune.gates", "such as knowledge.accuracy"),
        ),
        (
            "pretrain",
            {"gates": [{"measure": "knowledge.accuracy", "min": 0.5}]},
            ("cannot be measured on pretrain", "nothing of this name is measured there"),
        ),
        (
            "finetune",
            {"gates": [{"measure": "knowledge.accuracy", "max_drop": 0.1}]},
            ("cannot be measured on pretrain",),
        ),
        (
            "pretrain",
            {"gates": [{"measure": "holdout.bits_per_byte", "max_rise": 0.1}]},
            ("cannot be measured on its parent, since it has none", "random weights"),
        ),
        (
            "reward",
            {"holdout": 0.0, "gates": [{"measure": "reward.pair_accuracy", "min": 0.5}]},
            ("'reward.pair_accuracy'", "no record was held out"),
        ),
        (
            "align",
            {"gates": [{"measure": "open.diversity", "max_drop": 0.1}]},
            ("'open.diversity'", "diversity needs open prompts"),
        ),
    ],
    ids=["misspelt", "no chat yet", "parent not asked", "no parent", "nothing held out", "no such prompts"],
)
def test_a_gate_that_nothing_could_pass(
    world: Path, weightgate: Command, stage: str, settings: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    with_recipe(world, tiny_world.changed(stage, **settings))
    refused(weightgate("lock"), "no checkpoint could pass the gate on", *fragments)
    assert not (world / "weightgate.lock").exists()


@pytest.mark.parametrize(
    ("architecture", "fragments"),
    [
        ({"config": {"hidden_size": 33, "num_attention_heads": 2}}, ("architecture.config", "not a multiple")),
        ({"config": {"hidden_size": "big"}}, ("architecture.config", "expected int")),
        ({"config": {"hidden_size": 32, "num_attention_heads": 0}}, ("architecture.config",)),
        ({"config": {"rope_parameters": {"rope_type": "spiral"}}}, ("architecture.config",)),
        ({"type": "t5"}, ("architecture.config", "AutoModelForCausalLM")),
    ],
    ids=["does not divide", "no number", "no heads", "unknown rope", "no language model"],
)
def test_a_network_that_transformers_cannot_build(
    world: Path, weightgate: Command, architecture: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    with_recipe(world, tiny_world.changed(architecture=architecture))
    refused(weightgate("lock"), "transformers cannot build this network", *fragments)


def test_a_base_model_with_too_few_learnt_positions(world: Path, weightgate: Command) -> None:
    """Rotary positions go on for ever; a table of them ends, and PPO's completions lie behind its end."""
    with_recipe(world, tiny_world.changed(architecture={"type": "gpt2", "config": GPT2}))
    assert weightgate("lock").exit_code == 0
    assert weightgate("build", "--until", "pretrain").exit_code == 0
    assert weightgate("export", "pretrain", world / "model").exit_code == 0
    with_recipe(world, tiny_world.from_base(world / "model", adapter=None))
    assert weightgate("lock").exit_code == 0
    longer = tiny_world.from_base(world / "model", adapter=None)
    longer["stages"][0]["context"] = 71
    with_recipe(world, longer)
    refused(weightgate("lock"), "longer than the network has positions for", "stages.finetune.context", "at most 70")


@pytest.mark.parametrize("target", [".", ".weightgate", "sources"])
def test_an_export_never_takes_the_place_of_what_it_is_made_from(built: Path, weightgate: Command, target: str) -> None:
    (built / "sources").mkdir()
    (built / "corpus.jsonl").rename(built / "sources" / "corpus.jsonl")
    with_recipe(built, tiny_world.changed("pretrain", data=[{"path": "sources/corpus.jsonl"}]))
    before = sorted(built.rglob("*"))
    refused(
        weightgate("export", "pretrain", built / target, "--force"),
        "holds what the build is made from",
        "mend: name a folder of its own",
    )
    assert sorted(built.rglob("*")) == before


def test_an_adapter_whose_rank_no_matrix_has(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("finetune", adapter={"rank": 200}))
    refused(
        weightgate("lock"), "rank is higher", "adapter.rank", "at most 16", "found: 200", "lower adapter.rank to 16"
    )
    assert nothing_was_trained(world)


@pytest.mark.skipif(adapters.bitsandbytes is not None, reason="bitsandbytes is installed")
def test_four_bits_where_they_cannot_be_had(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("finetune", adapter={"bits": 4}))
    assert weightgate("lock").exit_code == 0
    refused(weightgate("build"), "4-bit weights need bitsandbytes", "pip install 'weightgate[qlora]'")
    assert nothing_was_trained(world)


def test_more_tokens_than_anybody_would_read(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("pretrain", steps=None, tokens=10**15))
    refused(weightgate("lock"), "far more tokens than its data holds", "at most 10,000 passes")


def test_more_mini_batches_than_completions(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("align", ppo={"minibatches": 5, "completion_tokens": 4}))
    refused(weightgate("lock"), "more mini-batches than completions", "stages.align.ppo.minibatches", "at most 4")


@pytest.mark.parametrize("place", ["data", "/proc/none/report.html"], ids=["a folder", "nowhere"])
def test_a_report_that_could_not_be_written(world: Path, weightgate: Command, place: str) -> None:
    (world / "data").mkdir()
    assert weightgate("lock").exit_code == 0
    refused(weightgate("build", "--report", world / place), "the report cannot be written", f"where: {world / place}")
    assert nothing_was_trained(world)


def test_a_stage_without_rows_says_where_they_went(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed("reward", context=8))
    refused(weightgate("lock"), "no row is left to train on", "do not fit into the context (raise `context`)")


def test_a_second_build_of_the_same_stage(world: Path, weightgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weightgate("lock").exit_code == 0
    genuine, told = build_run.train, []

    def train_and_try_again(*arguments: Any, **settings: Any) -> Any:
        if not told:
            told.append(weightgate("build"))
        return genuine(*arguments, **settings)

    monkeypatch.setattr(build_run, "train", train_and_try_again)
    assert weightgate("build", "--until", "pretrain").exit_code == 0
    refused(told[0], "another build is training stage 'pretrain'", "wait until it is done, or stop it")


def test_a_checkpoint_to_start_from_that_leaves_nothing_to_do(built: Path, weightgate: Command) -> None:
    refused(
        weightgate("build", "--from", "finetune", "--until", "pretrain"),
        "'pretrain' does not come after the checkpoint to start from",
        "expected: one of reward, align",
    )


@pytest.mark.parametrize(
    ("store", "words"), [("corpus.jsonl", "taken by a file"), ("/proc/none/store", "disk refused")]
)
def test_a_place_where_no_store_can_be(world: Path, weightgate: Command, store: str, words: str) -> None:
    with_recipe(world, tiny_world.changed(store=store))
    refused(weightgate("lock"), words, f"where: {(world / store).parent if 'none' in store else world / store}")


def test_a_plan_beyond_the_disk_budget(world: Path, weightgate: Command) -> None:
    with_recipe(world, tiny_world.changed(budget={"disk_gib": 0.0001}))
    assert weightgate("lock").exit_code == 0
    refused(
        weightgate("build"),
        "does not fit the disk budget",
        "budget.disk_gib",
        "expected: at least",
        "found: 0.0001 GiB",
    )
    assert nothing_was_trained(world)


def test_a_disk_too_small_for_the_plan(world: Path, weightgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weightgate("lock").exit_code == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    refused(weightgate("build"), "the disk is full", "bytes free", "free some space")
    assert nothing_was_trained(world)


def test_a_batch_that_cannot_be_divided_among_processes(
    world: Path, weightgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = type(open_workspace(world / "weightgate.yaml").accelerator)
    monkeypatch.setattr(accelerator, "num_processes", property(lambda self: 3))
    refused(weightgate("lock"), "cannot be divided among the processes", "stages.pretrain.batch", "a multiple of 3")


def test_damaged_tokens_are_made_again(world: Path, weightgate: Command) -> None:
    assert weightgate("lock").exit_code == 0
    before = (world / "weightgate.lock").read_bytes()
    for path in (world / ".weightgate" / "cache" / "tokens").rglob("*.bin"):
        if data := path.read_bytes():
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert weightgate("lock").exit_code == 0
    assert (world / "weightgate.lock").read_bytes() == before


def test_a_damaged_tokenizer_is_trained_again(world: Path, weightgate: Command) -> None:
    """Two tokens change places, which only the digest can tell."""
    assert weightgate("lock").exit_code == 0
    before = (world / "weightgate.lock").read_bytes()
    [path] = (world / ".weightgate" / "cache" / "tokenizers").glob("*.json")
    kept = json.loads(path.read_text())
    tokenizer = json.loads(kept["files"]["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    kept["files"]["tokenizer.json"] = json.dumps(tokenizer)
    path.write_text(json.dumps(kept))
    assert weightgate("lock").exit_code == 0
    assert (world / "weightgate.lock").read_bytes() == before
