"""A conversation in a terminal, and one prompt from the command line."""

from __future__ import annotations

import sys
from contextlib import suppress

from lib.evaluation.answers import Answer, Question
from lib.heartbeat import for_a_person
from lib.inference.assistant import Assistant, check_system_prompt, say
from lib.inference.conversation import Asked, Conversation
from lib.inference.streaming import stream_answer
from lib.inference.wishes import Wishes
from lib.settings import InputError

PROMPT, CONTINUED, BLOCK = "> ", "… ", '"""'
HELP = f"""\
  /reset          forget what was said
  /system [TEXT]  another system prompt, and forget what was said; without TEXT: show it
  /help           this
  /exit           leave; so does Ctrl-D
  {BLOCK}             begins a message of several lines, and ends it
  Ctrl-C          stops an answer"""


def answer_prompt(assistant: Assistant, prompt: str, wishes: Wishes) -> None:
    """Print the answer to one prompt; as it comes, if a person is watching.

    Raises KeyboardInterrupt when it is stopped.
    """
    asked = Conversation(wishes.system).ask(prompt, assistant.chat, assistant.longest_prompt)
    if asked.cut:
        say(f"  [WARNING] the first {asked.cut} tokens of the prompt do not fit the context: cut off")
    if not sys.stdout.isatty():
        answer = assistant.answer([Question("", asked.prompt_ids, "", {})], seed=wishes.seed)[0]
        print(answer.text, flush=True)
    else:
        answer, interrupted = stream_answer(assistant, asked.prompt_ids, seed=wishes.seed)
        print(flush=True)
        if interrupted:
            raise KeyboardInterrupt
    _say_if_unfinished(answer)


def converse(assistant: Assistant, wishes: Wishes) -> None:
    """Answer what is typed until /exit or the end of the input."""
    _edit_lines()
    session = _Session(assistant, wishes)
    say("  /help for commands, Ctrl-D to leave")
    while True:
        try:
            message = read_message()
            if message.split(maxsplit=1)[:1] == ["/exit"]:
                break
            session.take(message)
        except EOFError:
            break
        except KeyboardInterrupt:
            say("", "  (Ctrl-D leaves)")
        except UnicodeError:
            say("  that was no valid text in this terminal's encoding; nothing was sent")
    if sys.stdin.isatty():
        print(flush=True)


def _edit_lines() -> None:
    """Line editing and history for input(), where Python has readline. What is pasted is one message, however
    many lines it has: CPython turns that off for its own prompt, which takes single lines."""
    with suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")


def read_message() -> str:
    """One line, or the lines between two \"\"\". Raises EOFError at the end of the input, KeyboardInterrupt,
    and UnicodeError for bytes that are no text."""
    text = _read_line(PROMPT)
    if text.startswith(BLOCK):
        text = text.removeprefix(BLOCK)
        while not text.rstrip().endswith(BLOCK):
            text += "\n" + _read_line(CONTINUED)
        text = text.rstrip().removesuffix(BLOCK).strip("\n")
    text.encode()  # half a surrogate pair stands for a byte that could not be read
    return text


def _read_line(prompt: str) -> str:
    with for_a_person():
        return input(prompt if sys.stdin.isatty() else "")


class _Session:
    """A conversation that is going on."""

    def __init__(self, assistant: Assistant, wishes: Wishes) -> None:
        self.assistant, self.conversation = assistant, Conversation(wishes.system)
        self.seed = wishes.seed
        self.said_forgotten = False

    def take(self, message: str) -> None:
        """A command, or something to answer."""
        command, _, rest = message.strip().partition(" ")
        if not message.strip():
            return
        if command == "/reset":
            self._reset(self.conversation.system)
        elif command == "/system":
            self._system(rest.strip())
        elif command == "/help":
            say(HELP)
        elif message.startswith("/") and command[1:].isalpha():
            say(f"  {command} is no command (/help); begin with a space to send it as it is")
        else:
            self._answer(message)

    def _answer(self, question: str) -> None:
        asked = self.conversation.ask(question, self.assistant.chat, self.assistant.longest_prompt)
        self._say_what_is_forgotten(asked)
        answer, interrupted = stream_answer(self.assistant, asked.prompt_ids, seed=self.seed)
        print(flush=True)
        self.seed += 1
        if interrupted:
            say("  (stopped)")
        else:
            _say_if_unfinished(answer)
        if answer.text.strip():
            self.conversation.keep(question, answer.text)

    def _say_what_is_forgotten(self, asked: Asked) -> None:
        if asked.cut:
            say(f"  (the first {asked.cut} tokens of this do not fit the context: cut off)")
        if asked.forgotten and not self.said_forgotten:
            self.said_forgotten = True
            say("  (the context is full: from now on the oldest questions and answers are forgotten)")

    def _system(self, text: str) -> None:
        if not text:
            say(f"  {self.conversation.system or 'no system prompt'}")
            return
        try:
            check_system_prompt(self.assistant.chat, text)
        except InputError as error:
            say(str(error))
        else:
            self._reset(text)

    def _reset(self, system: str) -> None:
        self.conversation, self.said_forgotten = Conversation(system), False
        say("  (a new conversation)")


def _say_if_unfinished(answer: Answer) -> None:
    if not answer.stopped:
        say(f"  (cut off after {answer.tokens} tokens: --max-new-tokens)")
