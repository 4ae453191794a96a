"""Talk to a model in the terminal, over the same protocol the endpoint uses.

A line is a message; lines that begin with `/` are commands. What the model writes is shown with every control
character spelt out, because a completion must not be able to move the cursor or change the title of a window.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TextIO

from weightgate.errors import UserError
from weightgate.report.text import visible
from weightgate.train.generator import Generator, Settings

HELP = """\
/reset          forget the conversation
/system TEXT    set the system message and forget the conversation; without TEXT: none
/seed NUMBER    make completions repeatable; without NUMBER: not
/help           this
Ctrl-C stops a completion, Ctrl-D leaves."""
PROMPT = "> "


@dataclass
class Conversation:
    """What was said so far, as (role, content), the system message apart."""

    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def messages(self) -> list[tuple[str, str]]:
        """Return everything the model is shown."""
        return ([("system", self.system)] if self.system else []) + self.turns

    def reset(self) -> None:
        """Forget the turns; the system message stays."""
        self.turns.clear()


class Chat:
    """One session.

    Args:
        generator: who answers.
        settings: how; the room left in the context bounds the length further.
        seed: decides the answers, until `/seed` changes it; None: nothing does.
        output: where answers go.
        interactive: whether a prompt is shown; False for piped input, whose output should hold answers only.
    """

    def __init__(
        self,
        generator: Generator,
        settings: Settings,
        *,
        seed: int | None = None,
        output: TextIO,
        interactive: bool,
    ) -> None:
        self.conversation = Conversation()
        self.settings = settings
        self.seed = seed
        self._generator = generator
        self._output = output
        self._interactive = interactive
        self._commands: dict[str, Callable[[str], str]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/seed": self._seed,
            "/help": lambda _: HELP,
        }

    def run(self, lines: Iterator[str]) -> None:
        """Answer line after line until there are none left."""
        self._say(HELP + "\n" if self._interactive else "")
        for line in lines:
            self.handle(line.rstrip("\r\n"))

    def handle(self, line: str) -> None:
        """Obey a command or answer a message; an empty line does nothing."""
        name, _, rest = line.partition(" ")
        if name in self._commands:
            self._say(self._commands[name](rest.strip()) + "\n")
        elif name.startswith("/"):
            self._say(f"no such command: {visible(name)}; /help lists them\n")
        elif line.strip():
            self._answer(line)

    def _reset(self, _: str) -> str:
        self.conversation.reset()
        return "forgotten"

    def _system(self, text: str) -> str:
        self.conversation = Conversation(system=text or None)
        return "system message set" if text else "no system message"

    def _seed(self, text: str) -> str:
        if not text:
            self.seed = None
            return "no seed"
        if not text.isascii() or not text.isdecimal() or int(text) >= 2**64:
            return "a seed is a whole number below 2**64"
        self.seed = int(text)
        return f"seed {self.seed}"

    def _answer(self, message: str) -> None:
        """Answer and remember both sides; what was stopped by Ctrl-C is remembered as far as it came."""
        self.conversation.turns.append(("user", message))
        written = ""
        try:
            for text in self._pieces():
                written += text
                self._say(visible(text))
        except KeyboardInterrupt:
            self._say(" [stopped]")
        except UserError as error:
            if not self._interactive:
                raise
            self.conversation.turns.pop()
            self._say(f"{visible(str(error))}\n")
            return
        self.conversation.turns.append(("assistant", written))
        self._say("\n")

    def _pieces(self) -> Iterator[str]:
        """Pieces of text of one answer. Raises `UserError` when the conversation fills the context."""
        prompt = self._generator.encode_messages(self.conversation.messages())
        room = self._generator.context_tokens - len(prompt)
        if room < 1:
            raise UserError("the conversation fills the context", mend="/reset")
        settings = replace(self.settings, max_tokens=min(self.settings.max_tokens, room))
        for piece in self._generator.stream(prompt, settings, self.seed):
            yield piece.text

    def _say(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


def chat_loop(
    generator: Generator,
    *,
    temperature: float,
    max_tokens: int,
    seed: int | None = None,
    source: TextIO | None = None,
    output: TextIO | None = None,
) -> None:
    """Run a session on the terminal, or over piped input, until the input ends.

    Raises `UserError` for a temperature that is none and, where nobody is there to mend it, for a message that cannot
    be answered.
    """
    if not 0 <= temperature < math.inf:
        raise UserError("the temperature cannot be used", expected="a number, at least 0", found=str(temperature))
    source, output = source or sys.stdin, output or sys.stdout
    interactive = source.isatty() and output.isatty()
    settings = Settings(max_tokens=max_tokens, temperature=temperature)
    session = Chat(generator, settings, seed=seed, output=output, interactive=interactive)
    session.run(_typed(output) if interactive else _piped(source))


def _piped(source: TextIO) -> Iterator[str]:
    """Lines of piped input. Raises `UserError` where they are not text."""
    try:
        yield from source
    except UnicodeDecodeError as error:
        raise UserError(
            "the input is not UTF-8", found=f"byte 0x{error.object[error.start]:02x}", mend="iconv -t UTF-8"
        ) from None


def _typed(output: TextIO) -> Iterator[str]:
    """Lines typed at a prompt; Ctrl-C clears the line, Ctrl-D ends."""
    while True:
        try:
            yield input(PROMPT)
        except KeyboardInterrupt:
            output.write("\n")
        except EOFError:
            output.write("\n")
            return
