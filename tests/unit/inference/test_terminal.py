"""What is typed: messages of one line and several, commands, interrupts, the end of the input."""

import builtins
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lib.evaluation.answers import Question
from lib.inference import terminal
from lib.inference.assistant import Assistant
from lib.inference.conversation import Conversation
from lib.inference.terminal import answer_prompt, converse, read_message
from lib.inference.wishes import Wishes


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """typed("a line", KeyboardInterrupt, …): what input() gives or raises in turn; then the input ends."""

    def type_(*lines: Any) -> None:
        left: Iterable[Any] = iter([*lines, EOFError])

        def answer(prompt: str = "") -> str:
            line = next(left)  # type: ignore[call-overload]
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr(builtins, "input", answer)

    return type_


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("こんにちは",), "こんにちは"),
        (('"""', "{", '  "a": 1', "}", '"""'), '{\n  "a": 1\n}'),
        (('"""one line"""',), "one line"),
        (('"""first', "", '  last  """'), "first\n\n  last  "),
        (("pasted\nwith a line end",), "pasted\nwith a line end"),
    ],
)
def test_a_message(typed: Callable[..., None], lines: tuple[str, ...], message: str) -> None:
    typed(*lines)
    assert read_message() == message


def test_bytes_that_are_no_text(typed: Callable[..., None]) -> None:
    typed("\udce3")
    with pytest.raises(UnicodeError):
        read_message()


@pytest.fixture
def talk(
    assistant: Callable[..., Assistant],
    typed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[list[str], str, str]]:
    """The prompts that the model got (as text), what went to stdout and what to stderr."""

    def run(*lines: Any, system: str = "", **keywords: Any) -> tuple[list[str], str, str]:
        made, prompts = assistant(**keywords), []
        stream = terminal.stream_answer

        def noted(assistant: Assistant, prompt_ids: list[int], *, seed: int) -> Any:
            prompts.append(f"{seed}: {assistant.tokenizer.decode(prompt_ids)}")
            return stream(assistant, prompt_ids, seed=seed)

        monkeypatch.setattr(terminal, "stream_answer", noted)
        typed(*lines)
        converse(made, Wishes(system=system, seed=5))
        said = capsys.readouterr()
        return prompts, said.out, said.err

    return run


def test_answers_become_history(talk: Callable[..., Any]) -> None:
    (first, second), out, _ = talk("one", "two", system="be brief")
    answer, second_answer, _ = out.split("\n")
    start = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert first == f"5: {start}"
    rest = "<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    assert second == f"6: {start}{answer}{rest}"
    assert second_answer


def test_commands(talk: Callable[..., Any]) -> None:
    prompts, _, err = talk(
        "one", "/reset", "two", "/system", "/system be kind", "/system", "three", "", "/help"
    )
    assert ["one" in prompts[1], "be kind" in prompts[1], "two" in prompts[2]] == [False] * 3
    assert "be kind" in prompts[2]
    assert "no system prompt" in err
    assert err.count("(a new conversation)") == 2
    assert "forget what was said" in err
    assert len(prompts) == 3


def test_exit_leaves_and_what_only_looks_like_a_command_is_sent(talk: Callable[..., Any]) -> None:
    prompts, _, err = talk("/rest", " /rest", "/etc/hosts is a file", "/exit", "never sent")
    assert "/rest is no command" in err
    assert [prompt.count("/rest") for prompt in prompts] == [1, 1]
    assert "/etc/hosts" in prompts[1]
    assert len(prompts) == 2


def test_an_interrupt_at_the_prompt_and_broken_text_end_nothing(talk: Callable[..., Any]) -> None:
    prompts, _, err = talk(KeyboardInterrupt, "\udce3", "one")
    assert "Ctrl-D leaves" in err
    assert "no valid text" in err
    assert len(prompts) == 1


def test_forgetting_is_said_once(talk: Callable[..., Any]) -> None:
    prompts, _, err = talk("one", "two", "three", "four", longest_prompt=90)
    assert err.count("the context is full") == 1
    assert "one" not in prompts[-1]


def test_an_answer_that_ran_into_the_limit_is_said(talk: Callable[..., Any]) -> None:
    assert "(cut off after 3 tokens: --max-new-tokens)" in talk("one", max_new_tokens=3)[2]


def test_a_prompt_puts_the_answer_alone_on_stdout(
    assistant: Callable[..., Assistant], capsys: pytest.CaptureFixture[str]
) -> None:
    made = assistant(longest_prompt=20)
    answer_prompt(made, "question", Wishes(system="be brief"))
    said = capsys.readouterr()
    asked = Conversation("be brief").ask("question", made.chat, 20)
    (expected,) = made.answer([Question("", asked.prompt_ids, "", {})], seed=0)
    assert said.out == expected.text + "\n"
    assert "do not fit the context" in said.err
