"""Chat templates: each way in which one can train the wrong thing is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from weightgate.data.records import Message
from weightgate.data.template import BUILTIN_TEMPLATE, TemplateError, read_template
from weightgate.data.template_check import check_template
from weightgate.data.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>")
HEADER = "{{ '<|im_start|>' + m['role'] + '\n' }}"
BODY = "{{ m['content'] }}"
END = "{{ '<|im_end|>\n' }}"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = "{% for m in messages %}" + HEADER + BODY + END + "{% endfor %}" + OPEN


def marked(inside: str, after: str, header: str = HEADER) -> str:
    """ChatML whose answers carry generation marks around `inside`."""
    answer = "{% generation %}" + inside + "{% endgeneration %}" + after
    return (
        "{% for m in messages %}"
        + header
        + "{% if m['role'] == 'assistant' %}"
        + answer
        + "{% else %}"
        + BODY
        + END
        + "{% endif %}{% endfor %}"
        + OPEN
    )


@pytest.fixture
def with_template(base_tokenizer):
    def make(template: str | None) -> Tokenizer:
        return base_tokenizer(template, specials=SPECIALS, eos_token="<|endoftext|>", bos_token="<s>")

    return make


@pytest.mark.parametrize(
    "template",
    [
        BUILTIN_TEMPLATE,
        CHATML,
        "{{ bos_token }}" + CHATML,
        marked(BODY + END, ""),
        # The user's turn ends with all that comes before an answer, so no generation prompt is needed.
        "{% for m in messages %}{% if m['role'] == 'user' %}[U] {{ m['content'] }} [/U]"
        "{% else %} {{ m['content'] + eos_token }}{% endif %}{% endfor %}",
    ],
)
def test_sound_templates_pass(with_template, template: str) -> None:
    check_template(with_template(template))


def test_our_own_tokenizer_passes(tokenizer: Tokenizer) -> None:
    check_template(tokenizer)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "no chat template"),
        ("{% if %}", "refuses the conversation"),
        ("{{ raise_exception('never') }}", "refuses the conversation"),
        ("{{ bos_token + bos_token }}" + CHATML, "BOS more than once"),
        ("{{ bos_token }}" + CHATML.replace(BODY, "{{ bos_token + m['content'] }}"), "BOS more than once"),
        ("{{ messages | length }}" + CHATML, "rewrites earlier turns"),
        (
            CHATML.replace(BODY, "{% if loop.last or m['role'] == 'user' %}" + BODY + "{% endif %}"),
            "rewrites earlier turns",
        ),
        (CHATML.replace(END, "{{ '\n' }}"), "never supervises the end-of-turn"),
        (CHATML.removesuffix(OPEN), "no generation prompt"),
        (CHATML.replace(BODY, "{% if m['role'] == 'assistant' %}" + BODY + "{% endif %}"), "leaves out the user"),
        (CHATML.replace(BODY, "{{ messages[0]['content'] + m['content'] }}"), "supervises the prompt"),
        (
            "{% for m in messages %}{% generation %}" + HEADER + BODY + END + "{% endgeneration %}{% endfor %}" + OPEN,
            "supervises the prompt",
        ),
        (marked(BODY, END), "never supervises the end-of-turn"),
    ],
)
def test_faulty_templates_are_refused_by_name(with_template, template: str | None, what: str) -> None:
    with pytest.raises(TemplateError, match=what):
        check_template(with_template(template))


def test_the_end_of_turn_is_a_stop_token_and_white_space_after_it_is_not_learnt(with_template) -> None:
    tokenizer = with_template(CHATML)
    ids, supervised = tokenizer.render_supervised(
        [Message(role="user", content="fox"), Message(role="assistant", content="dog")]
    )
    assert tokenizer.decode([tokenizer.stop_ids[1]], False) == "<|im_end|>"
    written = [index for index, target in zip(ids, supervised, strict=True) if target]
    assert tokenizer.decode(written, False) == "dog<|im_end|>"


def test_messages_with_control_tokens_of_the_base_model_are_refused(with_template) -> None:
    with pytest.raises(TemplateError, match="control token") as caught:
        with_template(CHATML).render_prompt([Message(role="user", content="a <|im_end|> b")])
    assert caught.value.found == "<|im_end|>"


def test_the_recipe_chooses_the_template(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML)
    assert read_template("weightgate", None, tmp_path) == BUILTIN_TEMPLATE
    assert read_template("base", CHATML, tmp_path) == CHATML
    assert read_template("mine.jinja", None, tmp_path) == CHATML
    with pytest.raises(TemplateError, match="has no chat template"):
        read_template("base", None, tmp_path)
    with pytest.raises(TemplateError, match="cannot be read"):
        read_template("none.jinja", None, tmp_path)
