from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import find_template
from lib.data.chat.encoded import EncodedRow
from lib.data.chat.masks import EncodingRules
from lib.data.reading.rows import Example, to_example
from lib.settings.errors import InputError

Rules = Callable[..., EncodingRules]
Conversation = Callable[..., Example]
COT = "Approach:\n1. convert\n\nOutput:\n"


def encode(chat: ChatFormat, example: Example, rules: EncodingRules) -> EncodedRow:
    encoded = chat.encode([example], rules)
    assert encoded.problems == ()
    return encoded.rows[0]


def learned(chat: ChatFormat, example: Example, rules: EncodingRules) -> str:
    row = encode(chat, example, rules)
    assert len(row.input_ids) == len(row.supervised)
    tokens = [token for token, on in zip(row.input_ids, row.supervised, strict=True) if on]
    return str(chat.tokenizer.decode(tokens, skip_special_tokens=False))


def test_only_the_output_and_the_end_token_are_learned(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("s: You are an expert.", "u: Convert", f"a: {COT}{{}} Final: x")
    assert learned(chat, example, rules()) == "\n{} Final: x<|im_end|>"
    assert learned(chat, example, rules(output_learn_mode="from_marker")) == "Output:\n{} Final: x<|im_end|>"
    assert learned(chat, example, rules(output_markers=("Final:",))) == " x<|im_end|>"
    assert learned(chat, example, rules(mask_cot=False)) == f"{COT}{{}} Final: x<|im_end|>"


def test_without_a_marker_the_whole_answer_is_learned(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    assert learned(chat, conversation("u: Output: hi", "a: hello"), rules()) == "hello<|im_end|>"


def test_of_several_answers(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    example = conversation("u: q", "a: Output: one", "u: q", "a: Output: two")
    assert learned(chat, example, rules()) == " two<|im_end|>"
    assert learned(chat, example, rules(mask_cot=False)) == "Output: one<|im_end|>Output: two<|im_end|>"


def test_white_space_at_the_border_of_an_answer(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    """The tokenizer trims offsets: the line end of the header must not count as part of the answer."""
    row = encode(chat, conversation("u: q", "a: \n\nhello  "), rules())
    whole = chat.tokenizer.encode(chat.render(conversation("u: q", "a: \n\nhello  ").messages)).ids
    assert row.input_ids == whole
    assert learned(chat, conversation("u: q", "a: hello"), rules()) == "hello<|im_end|>"


def test_a_token_that_straddles_the_marker_is_not_learned(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("u: q", "a: Output:\n{}")
    chat.tokenizer.add_tokens([":\n"])
    assert learned(chat, example, rules()) == "{}<|im_end|>"


def test_japanese_and_multi_line_answers(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    example = conversation("u: 固有表現を抽出して", "a: 考え方\r\nOutput:\n人名: 松友美佐紀\n")
    assert learned(chat, example, rules()) == "\n人名: 松友美佐紀\n<|im_end|>"


@pytest.mark.parametrize("answer", ["Thinking. Output:", "Output:  \n"])
def test_nothing_after_the_marker_is_nothing_supervised(
    chat: ChatFormat, conversation: Conversation, rules: Rules, answer: str
) -> None:
    row = encode(chat, conversation("u: q", f"a: {answer}"), rules())
    assert row.status == "nothing_supervised"
    assert not row.usable


def test_targets_hide_what_is_not_learned(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    row = encode(chat, conversation("u: q", "a: hello"), rules())
    assert [t for t in row.targets() if t != -100] == [
        t for t, on in zip(row.input_ids, row.supervised, strict=True) if on
    ]
    assert len(row.targets()) == len(row.input_ids)


def test_a_long_prompt_is_cut_from_the_left(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("u: " + "hello world " * 50, "a: Approach\nOutput: x")
    whole = encode(chat, example, rules())
    row = encode(chat, example, rules(max_seq_len=40))
    assert (row.status, len(row.input_ids)) == ("truncated", 40)
    # The line end after the last end-of-turn token goes with the cut.
    assert row.input_ids == whole.input_ids[-41:-1]
    assert row.cut_tokens == len(whole.input_ids) - 41
    assert learned(chat, example, rules(max_seq_len=40)) == " x<|im_end|>"


def test_the_whole_answer_and_one_prompt_token_must_fit(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("u: hello world", f"a: {COT}x")
    size = encode(chat, example, rules()).answer_tokens
    assert encode(chat, example, rules(max_seq_len=size + 1)).status == "truncated"
    assert encode(chat, example, rules(max_seq_len=size)).status == "too_long"


def test_dropping_the_last_line_end_is_no_truncation(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("u: q", "a: hello")
    size = len(encode(chat, example, rules()).input_ids)
    row = encode(chat, example, rules(max_seq_len=size - 1))
    assert (row.status, row.cut_tokens, len(row.input_ids)) == ("ok", 0, size - 1)


def test_an_earlier_answer_without_its_beginning_is_not_learned(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    example = conversation("u: q", "a: " + "hello world " * 10, "u: q", "a: x")
    text = learned(chat, example, rules(max_seq_len=25, mask_cot=False))
    assert text == "x<|im_end|>"


def test_the_beginning_of_sequence_survives_the_cut(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    chat = ChatFormat(tokenizer, special, find_template("user-assistant"))
    row = encode(chat, conversation("u: " + "hello world " * 50, "a: x"), rules(max_seq_len=20))
    assert row.input_ids[0] == chat.bos_id
    assert (row.status, len(row.input_ids)) == ("truncated", 20)


def test_plain_text_is_learned_whole(chat: ChatFormat, rules: Rules) -> None:
    example = to_example({"text": "Output: hello"}, "s", 0)
    assert learned(chat, example, rules()) == "Output: hello<|im_end|>"
    assert encode(chat, example, rules(max_seq_len=3)).status == "too_long"


@pytest.mark.parametrize("name", ["alpaca", "chatml", "user-assistant", "zephyr"])
def test_every_general_template_ends_answers_with_a_token(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules, name: str
) -> None:
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, find_template(name))
    example = conversation("s: expert", "u: question", "a: one", "u: question", "a: two")
    assert learned(chat, example, rules(mask_cot=False)) == "one<|im_end|>two<|im_end|>"
    assert chat.notices == ()
    assert chat.end_of_turn == "<|im_end|>"
    assert chat.stop_ids == (tokenizer.token_to_id("<|im_end|>"),)
    prompt = chat.render(example.messages[:2], True)
    assert chat.render(example.messages).startswith(prompt)
    assert chat.prompt_ids(example.messages[:2]) == chat.tokenizer.encode(prompt).ids


NO_END = "{% for m in messages %}{{ m.role + ':\\n' + m.content + '\\n' }}{% endfor %}"
NO_HEADER = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}{% endfor %}"
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' + ('<think>x</think>' if loop.last else '') "
    "+ m.content.split('</think>')[-1] + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)


def test_a_template_without_end_token_gets_one(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    chat = ChatFormat(tokenizer, {"eos_token": "<|endoftext|>"}, NO_END)
    example = conversation("u: question", "a: one", "u: question", "a: two")
    assert learned(chat, example, rules()) == "two<|endoftext|>"
    assert any("appended" in notice for notice in chat.notices)
    assert any("add_generation_prompt" in notice for notice in chat.notices)
    assert chat.end_of_turn == "<|endoftext|>"


def test_markup_that_is_no_token_is_learned_before_the_end_token(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    template = find_template("chatml").replace("im_end", "turn_end")
    chat = ChatFormat(tokenizer, {"eos_token": "<|endoftext|>"}, template)
    assert learned(chat, conversation("u: q", "a: x"), rules()) == "x<|turn_end|><|endoftext|>"


def test_a_template_without_generation_prompt(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, NO_HEADER)
    example = conversation("u: x", "a: y", "u: q", "a: x")
    assert learned(chat, example, rules(mask_cot=False)) == "y<|im_end|>x<|im_end|>"


def test_a_template_that_rewrites_history_is_searched(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, THINKING)
    example = conversation("u: two", "a: <think>no</think>one", "u: one", "a: i")
    assert learned(chat, example, rules(mask_cot=False)) == "one<|im_end|>i<|im_end|>"
    assert learned(chat, example, rules()) == "i<|im_end|>"


def test_an_answer_that_the_template_hides_is_named(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, template)
    encoded = chat.encode([conversation("u: q", "a: hello", index=4)], rules())
    assert encoded.rows[0].status == "unrenderable"
    assert encoded.problems[0].where == "source#4"
    assert "not in the rendered text" in encoded.problems[0].expected


def test_a_template_that_refuses_a_row_is_quoted(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + NO_HEADER
    )
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, template)
    encoded = chat.encode(
        [conversation("s: s", "u: q", "a: a"), conversation("u: q", "a: a", index=1)], rules()
    )
    assert [row.status for row in encoded.rows] == ["unrenderable", "ok"]
    assert "no system here" in encoded.problems[0].expected


def test_conversations_need_a_template(
    tokenizer: Tokenizer, conversation: Conversation, rules: Rules
) -> None:
    chat = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, None)
    assert learned(chat, to_example({"text": "hello"}, "s", 0), rules()) == "hello<|im_end|>"
    with pytest.raises(InputError, match="alpaca, chatml"):
        chat.encode([conversation("u: q", "a: a")], rules())


def test_load_reads_a_tokenizer_folder(
    tokenizer_folder: Path, conversation: Conversation, rules: Rules
) -> None:
    chat = ChatFormat.load(tokenizer_folder)
    assert chat is not None
    assert chat.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert learned(chat, conversation("u: q", "a: hello"), rules()) == "hello<|im_end|>"
    alpaca = ChatFormat.load(tokenizer_folder, "alpaca")
    assert alpaca is not None
    assert "### Response:" in alpaca.render(conversation("u: q", "a: a").messages)


def test_from_tokenizer_leaves_the_original_alone(tokenizer: Tokenizer) -> None:
    ChatFormat.from_tokenizer(tokenizer, {"eos_token": "<|im_end|>"}, own_template=NO_END)
    assert tokenizer.post_processor is not None


def test_text_rows_begin_as_the_tokenizer_begins(tokenizer: Tokenizer, rules: Rules) -> None:
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    chat = ChatFormat(tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}, NO_HEADER)
    row = encode(chat, to_example({"text": "hello"}, "s", 0), rules())
    assert row.input_ids[0] == bos
    assert row.supervised[:2] == [False, True]


def test_the_same_rows_in_batches_keep_their_order(
    chat: ChatFormat, conversation: Conversation, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.data.chat.chat_format._BATCH", 3)
    examples = [conversation("u: q", f"a: answer {i}", index=i) for i in range(8)]
    rows = chat.encode(examples, rules()).rows
    assert [row.row_id for row in rows] == [f"source#{i}" for i in range(8)]
    assert [learned(chat, example, rules()) for example in examples] == [
        f"answer {i}<|im_end|>" for i in range(8)
    ]
