"""Tokenizer folders and chat templates, read without transformers."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import bundled_templates, compile_template, render
from lib.data.reading.rows import Message
from lib.settings.errors import InputError

TEMPLATE = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"


def test_the_bundled_templates_are_these() -> None:
    assert bundled_templates() == ("alpaca", "chatml", "gemma", "user-assistant", "zephyr")


def test_load_finds_templates_and_tokens_in_the_config(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tokenizer_folder / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    config: dict[str, Any] = {
        "chat_template": named,
        "eos_token": "<|end|>",
        "added_tokens_decoder": {"900": {"content": "<|extra|>", "special": True, "lstrip": False}},
    }
    (tokenizer_folder / "tokenizer_config.json").write_text(json.dumps(config))
    (tokenizer_folder / "special_tokens_map.json").write_text('{"bos_token": {"content": "<|im_start|>"}}')
    chat = ChatFormat.load(tokenizer_folder)
    assert chat is not None
    assert chat.template == TEMPLATE
    assert chat.special_tokens == {"eos_token": "<|end|>", "bos_token": "<|im_start|>"}
    assert len(chat.tokenizer.encode("<|end|><|extra|>").ids) == 2
    own = tmp_path / "own.jinja"
    own.write_text(TEMPLATE + "!")
    overridden = ChatFormat.load(tokenizer_folder, str(own))
    assert overridden is not None
    assert overridden.template == TEMPLATE + "!"


def test_a_folder_without_tokenizer_json_is_left_to_transformers(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    assert ChatFormat.load(tmp_path) is None


def test_a_broken_tokenizer_file_is_named(tokenizer_folder: Path) -> None:
    (tokenizer_folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer_config\.json"):
        ChatFormat.load(tokenizer_folder)
    (tokenizer_folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        ChatFormat.load(tokenizer_folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", b"\xff{{ 1 }}"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"bos_token": "\\ud800"}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "y"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}'),
        ("special_tokens_map.json", b"\xff"),
    ],
)
def test_a_file_that_makes_no_tokenizer_is_named(name: str, content: bytes, tokenizer_folder: Path) -> None:
    (tokenizer_folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"jinja|tokenizer_config|special_tokens"):
        ChatFormat.load(tokenizer_folder)


def test_an_unknown_template_lists_the_bundled_ones(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alpaca, chatml[\s\S]*Did you mean chatml\?"):
        ChatFormat.load(tokenizer_folder, "chatlm")
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for %}")
    with pytest.raises(InputError, match=r"broken\.jinja\n.*line 1"):
        ChatFormat.load(tokenizer_folder, str(broken))


def test_jinja_as_transformers_has_it() -> None:
    template = compile_template(
        "{% for x in [1, 2, 3] %}\n  {% if x == 2 %}{% continue %}{% endif %}\n{{ x }}{% endfor %}"
        "{{ {'é': '<b>'} | tojson }}{% generation %}g{% endgeneration %}"
        "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}{{ strftime_now('%%') }}"
    )
    assert render(template, [], {}, add_generation_prompt=False) == '13{"é": "<b>"}g2%'


@pytest.mark.parametrize(
    "source", ["{{ namespace(_x=1) }}", "{{ messages.append(1) }}", "{{ ''.__class__.mro() }}"]
)
def test_templates_stay_in_the_sandbox(source: str) -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        render(compile_template(source), [], {}, add_generation_prompt=False)


def test_gemmas_turns_with_a_system_message_before_the_question(tokenizer_folder: Path) -> None:
    chat = ChatFormat.load(tokenizer_folder, "gemma")
    assert chat is not None
    chat.special_tokens["bos_token"] = "<bos>"
    talk = [
        Message("system", " 短く。"),
        Message("user", "首都は?"),
        Message("assistant", "東京。"),
        Message("user", "人口は?"),
    ]
    assert chat.render(talk, True) == (
        "<bos><start_of_turn>user\n短く。\n\n首都は?<end_of_turn>\n<start_of_turn>model\n東京。<end_of_turn>\n"
        "<start_of_turn>user\n人口は?<end_of_turn>\n<start_of_turn>model\n"
    )
    chat.tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    assert (chat.end_of_turn, chat.notices) == ("<end_of_turn>", ())
    # Without a system message it is what Gemma's own template writes.
    assert chat.render(talk[1:3]) == (
        "<bos><start_of_turn>user\n首都は?<end_of_turn>\n<start_of_turn>model\n東京。<end_of_turn>\n"
    )
