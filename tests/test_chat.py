"""The terminal chat over a stand-in that repeats what it was shown."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from eventually import LIMIT_SECONDS
from weightgate.chat import Chat, chat_loop
from weightgate.cli import main
from weightgate.errors import UserError
from weightgate.train.generator import Answer, Piece, Settings

STAND_IN = """
import signal
import time
from weightgate.chat import chat_loop
from weightgate.train.generator import Piece
class Endless:
    context_tokens = 100
    def encode_messages(self, messages): return [1] * len(messages)
    def stream(self, prompt, settings, seed):
        while True:
            yield Piece(text=f"turn {len(prompt)} ", num_tokens=1)
            time.sleep(0.01)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests behind it has it ignored
chat_loop(Endless(), temperature=1.0, max_tokens=5)
"""


class Echo:
    """Answers with the messages it was shown, the seed, and whatever a test wants injected."""

    def __init__(self, *, context_tokens: int = 1000, ending: str = "", interrupted: bool = False) -> None:
        self.context_tokens = context_tokens
        self.ending = ending
        self.interrupted = interrupted
        self.batch_invariant = True

    def encode_text(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def encode_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        return self.encode_text("|".join(f"{role}={content}" for role, content in messages))

    def answer(
        self, prompts: Sequence[Sequence[int]], settings: Settings, seeds: Sequence[int | None]
    ) -> list[list[Answer]]:
        raise AssertionError("a chat streams")

    def stream(self, prompt: Sequence[int], settings: Settings, seed: int | None) -> Iterator[Piece]:
        yield Piece(text="".join(map(chr, prompt)), num_tokens=1)
        if self.interrupted:
            raise KeyboardInterrupt
        yield Piece(text=f" seed={seed} max={settings.max_tokens}{self.ending}", num_tokens=1, finish="stop")


def said(lines: str, echo: Echo | None = None) -> str:
    output = io.StringIO()
    chat_loop(echo or Echo(), temperature=1.0, max_tokens=50, source=io.StringIO(lines), output=output)
    return output.getvalue()


def test_piped_lines_are_answered_without_prompts() -> None:
    assert said("hi") == "user=hi seed=None max=50\n"
    assert said("") == said("\n  \n") == ""


def test_the_conversation_is_kept_until_reset() -> None:
    answers = said("a\nb\n/reset\nc\n").splitlines()
    assert answers[1].startswith("user=a|assistant=user=a seed=None max=50|user=b")
    assert answers[2:] == ["forgotten", "user=c seed=None max=50"]


def test_commands() -> None:
    assert said("/system be kind\nx\n/system\nx\n").splitlines() == [
        "system message set",
        "system=be kind|user=x seed=None max=50",
        "no system message",
        "user=x seed=None max=50",
    ]
    assert said("/seed 7\nx\n/reset\n/seed\nx\n").splitlines()[1::3] == [
        "user=x seed=7 max=50",
        "user=x seed=None max=50",
    ]
    for wrong in ("-1", "x", "1.5", str(2**64), "²"):
        assert said(f"/seed {wrong}") == "a seed is a whole number below 2**64\n"
    assert "/nope\\x1b" in said("/nope\x1b")
    assert "/seed NUMBER" in said("/help")


def test_control_characters_are_spelt_out() -> None:
    payload = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\r\x08"
    shown = said("x", Echo(ending=payload))
    assert not set(payload) - set("]0;owned[2Jgnp.exe") & set(shown)
    assert "\\x1b]0;owned\\x07" in shown


def test_a_full_context_is_told_and_the_message_not_kept() -> None:
    output = io.StringIO()
    session = Chat(Echo(context_tokens=5), Settings(max_tokens=9), output=output, interactive=True)
    session.handle("hello")
    assert "fills the context" in output.getvalue()
    assert session.conversation.turns == []


def test_piped_input_that_cannot_be_answered_ends_the_session() -> None:
    """Where only answers are to be printed, a message in their place would be taken for one."""
    output = io.StringIO()
    lines = io.StringIO("hello\n" + "x" * 50 + "\nhi\n")
    with pytest.raises(UserError, match="fills the context"):
        chat_loop(Echo(context_tokens=60), temperature=1.0, max_tokens=50, source=lines, output=output)
    assert output.getvalue().count("user=hello") == 1


def test_input_that_is_no_text_is_a_users_mistake() -> None:
    source = io.TextIOWrapper(io.BytesIO(b"hi\n\xff\xfe\n"), encoding="utf-8")
    with pytest.raises(UserError, match="not UTF-8"):
        chat_loop(Echo(), temperature=1.0, max_tokens=5, source=source, output=io.StringIO())


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        chat_loop(Echo(), temperature=temperature, max_tokens=5, source=io.StringIO(""), output=io.StringIO())


@pytest.mark.parametrize(
    ("verb", "option", "value"),
    [
        ("chat", "--seed", "-5"),
        ("chat", "--max-tokens", "0"),
        ("chat", "--temperature", "-1"),
        ("serve", "--port", "99999"),
    ],
)
def test_options_out_of_range_are_refused_by_the_verb(verb: str, option: str, value: str) -> None:
    result = CliRunner().invoke(main, [verb, "align", option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_an_interrupted_answer_is_kept_as_far_as_it_came() -> None:
    session = Chat(Echo(interrupted=True), Settings(max_tokens=9), output=io.StringIO(), interactive=False)
    session.handle("hello")
    assert session.conversation.turns == [("user", "hello"), ("assistant", "user=hello")]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_stops_a_completion_and_ctrl_d_leaves(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", STAND_IN], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path
    )
    os.close(theirs)
    shown = b""

    def wait_for(text: bytes) -> None:
        """Read up to a text; what stands before it was seen and counts no more."""
        nonlocal shown
        deadline = time.monotonic() + LIMIT_SECONDS
        while text not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 4096)
        shown = shown.partition(text)[2]

    try:
        wait_for(b"> ")
        os.write(ours, b"hello\n")
        wait_for(b"turn 1 turn 1")
        process.send_signal(signal.SIGINT)
        wait_for(b"[stopped]")
        wait_for(b"> ")
        os.write(ours, b"again\n")
        wait_for(b"turn 3")
        process.send_signal(signal.SIGINT)
        wait_for(b"[stopped]")
        wait_for(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(LIMIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
