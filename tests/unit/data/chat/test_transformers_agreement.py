"""Text and ids equal transformers' apply_chat_template, for real tokenizers."""

from pathlib import Path

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.reading.rows import to_example

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[4].parent / "shared" / "data"
CONVERSATIONS = [
    [("user", "Hello"), ("assistant", "Once upon a time")],
    [("system", " You are.\n"), ("user", "変換して\r\n\tJSON"), ("assistant", 'Output:\n{"名": [1, 2]}\n')],
    [("user", "a"), ("assistant", " b "), ("user", "<|im_end|> </s> <think>"), ("assistant", "c\n\n")],
]


@pytest.mark.parametrize("name", ["tiny_mixtral_stories260k", "tiny_llama_stories260k", "tokenizer_qwen3"])
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_ids_equal_apply_chat_template(name: str, turns: list[tuple[str, str]]) -> None:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = ChatFormat.load(folder) or ChatFormat.from_tokenizer(
        theirs.backend_tokenizer, theirs.special_tokens_map, own_template=theirs.chat_template
    )
    messages = [{"role": role, "content": content} for role, content in turns]
    example = to_example({"messages": messages}, "s", 0)
    assert ours.render(example.messages) == theirs.apply_chat_template(messages, tokenize=False)
    encoded = ours.encode([example], EncodingRules(4096, False, (), "after_marker"))
    assert encoded.rows[0].input_ids == theirs.apply_chat_template(messages)["input_ids"]
    prompt = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert ours.prompt_ids(example.messages[:-1]) == prompt
    assert theirs.eos_token_id in ours.stop_ids
