"""What templates write for the probe conversations, and how two of them are told apart."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from lib.data.chat.chat_contract import PROBES, ChatContract, chat_contract
from lib.data.chat.chat_format import ChatFormat

CHATML = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# The habits of Qwen3: earlier thoughts are dropped, an answer without one gets an empty block.
THINKING = (
    "{%- for m in messages %}"
    "{%- set text = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- set thought = '' %}{%- if '</think>' in m.content %}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' and loop.last %}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- text + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.fixture
def chat() -> Callable[..., ChatFormat]:
    def make(template: str = CHATML, eos: str = "<|im_end|>", merges: int = 0) -> ChatFormat:
        words = [*"abcdefghijklmnopqrstuvwxyz", "es"]
        pairs = [("e", "s")][:merges]
        tokenizer = Tokenizer(
            models.BPE({w: i for i, w in enumerate(["<unk>", *words])}, pairs, unk_token="<unk>")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "</s>"])
        return ChatFormat(tokenizer, {"eos_token": eos}, template)

    return make


def test_the_same_template_makes_the_same_contract(chat: Callable[..., ChatFormat]) -> None:
    one, other = chat_contract(chat()), chat_contract(chat(CHATML + "{# a remark #}"))
    assert one == other
    assert one.sha256 == other.sha256
    assert one.differences(other) == []


def test_it_comes_back_from_json(chat: Callable[..., ChatFormat]) -> None:
    contract = chat_contract(chat(THINKING))
    content = json.loads(json.dumps(contract.to_json()))
    assert ChatContract.from_json(content) == contract
    assert content["sha256"] == contract.sha256


def test_a_plain_template_keeps_every_block(chat: Callable[..., ChatFormat]) -> None:
    assert chat_contract(chat()).thinking == {
        "in the last answer": "kept",
        "in an earlier answer": "kept",
        "in an answer without one": "not written",
        "where an answer begins": "not written",
    }


def test_a_template_that_strips_and_writes_blocks(chat: Callable[..., ChatFormat]) -> None:
    assert chat_contract(chat(THINKING)).thinking == {
        "in the last answer": "kept",
        "in an earlier answer": "stripped",
        "in an answer without one": "an empty one is written",
        "where an answer begins": "not written",
    }


@pytest.mark.parametrize(
    ("written", "policy"),
    [("<think>\\n", "opened"), ("<think>\\n\\n</think>\\n\\n", "an empty one is written")],
)
def test_a_template_that_begins_answers_with_a_block(
    written: str, policy: str, chat: Callable[..., ChatFormat]
) -> None:
    template = CHATML.replace("'<|im_start|>assistant\\n'", f"'<|im_start|>assistant\\n{written}'")
    assert chat_contract(chat(template)).thinking["where an answer begins"] == policy


def test_the_first_differing_piece_is_shown(chat: Callable[..., ChatFormat]) -> None:
    ours, theirs = (
        chat_contract(chat(CHATML.replace("m.content +", "m.content + ' ' +"))),
        chat_contract(chat()),
    )
    (difference,) = ours.differences(theirs)
    assert difference.what == "what is written for a question"
    assert difference.ours.startswith("…'leven prime? <|im_end|>")
    assert difference.theirs.startswith("…'leven prime?<|im_end|>")


def test_only_conversations_with_a_system_message_may_differ(chat: Callable[..., ChatFormat]) -> None:
    dropped = CHATML.replace(
        "{{- '<|im_start|>' + m.role", "{%- if m.role != 'system' %}{{- '<|im_start|>' + m.role"
    )
    dropped = dropped.replace("{%- endfor %}", "{%- endif %}{%- endfor %}")
    (difference,) = chat_contract(chat(dropped)).differences(chat_contract(chat()))
    assert difference.what == "what is written for a question under a system message"


def test_end_tokens_and_policy_are_named(chat: Callable[..., ChatFormat]) -> None:
    found = chat_contract(chat(THINKING, eos="</s>")).differences(chat_contract(chat()))
    named = {difference.what: (difference.ours, difference.theirs) for difference in found}
    assert named["end tokens"] == ("<|im_end|> </s>", "<|im_end|>")
    assert named["a <think> block in an earlier answer"] == ("stripped", "kept")
    assert named["a <think> block in an answer without one"] == ("an empty one is written", "not written")


def test_the_same_text_in_other_tokens_is_a_difference(chat: Callable[..., ChatFormat]) -> None:
    (difference,) = chat_contract(chat(merges=1)).differences(chat_contract(chat()))
    assert difference.what == "the token ids of an answer", "the first probe with 'es' in it: 'Yes.'"


def test_what_a_template_refuses_is_a_part_of_it(chat: Callable[..., ChatFormat]) -> None:
    refusing = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{%- endif %}" + CHATML
    contract = chat_contract(chat(refusing))
    assert contract.probes["a question under a system message"] == "refused: no system"
    (difference,) = contract.differences(chat_contract(chat()))
    assert "under a system message" in difference.what


def test_todays_date_is_no_difference(
    chat: Callable[..., ChatFormat], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.data.chat import chat_template

    dated = chat("{{ strftime_now('%d %B %Y') }}" + CHATML)
    before = chat_contract(dated)
    assert before.probes["a question"].startswith("01 January 2000")
    assert not dated.render(PROBES["a question"][0]).startswith("01 January 2000")
    monkeypatch.setattr(chat_template, "_strftime_now", lambda form: "tomorrow")
    assert chat_contract(dated) == before


def test_a_contract_of_other_probes_differs(chat: Callable[..., ChatFormat]) -> None:
    ours = chat_contract(chat())
    fewer = replace(ours, probes={"a question": ours.probes["a question"]})
    assert ours.differences(fewer)


def test_every_probe_is_written_by_the_embedded_template() -> None:
    chat = ChatFormat.load(Path(__file__).parents[4] / "assets" / "tiny-moe")
    assert chat is not None
    contract = chat_contract(chat)
    assert set(contract.probes) == set(PROBES)
    assert not [text for text in contract.probes.values() if text.startswith("refused")]
