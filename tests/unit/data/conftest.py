"""A tiny byte-level tokenizer with a chat template, and short ways to write rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.reading.rows import Example, to_example
from lib.data.reading.usable_rows import SourceRows
from lib.settings.schema import StageSettings
from lib.settings.stage import load_stage

TEXTS = [
    "You are an expert. Think step-by-step.\nConvert this CSV to JSON: name,age\nAda,36",
    'Approach:\n1. Task: convert\n\nOutput:\n{"name": "Ada", "age": 36}\n',
    "system user assistant question answer hello world Final: Answer: Result:",
]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("Output:", "OUTPUT:", "Final:", "Answer:", "Result:", "Response:")
CHATML = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Trims white space off the offsets, as GPT-2's and Llama 3's tokenizers do.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    train_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.fixture
def chat(tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat(tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, CHATML)


@pytest.fixture
def rules() -> Callable[..., EncodingRules]:
    def make(
        max_seq_len: int = 4096,
        mask_cot: bool = True,
        output_markers: Sequence[str] = MARKERS,
        output_learn_mode: str = "after_marker",
    ) -> EncodingRules:
        return EncodingRules(max_seq_len, mask_cot, tuple(output_markers), output_learn_mode)

    return make


@pytest.fixture
def conversation() -> Callable[..., Example]:
    """conversation("u: hi", "a: hello", …): roles by their first letter."""
    roles = {"s": "system", "u": "user", "a": "assistant"}

    def make(*turns: str, index: int = 0, **fields: Any) -> Example:
        messages = [{"role": roles[turn[0]], "content": turn[3:]} for turn in turns]
        return to_example({"messages": messages, **fields}, "source", index)

    return make


@pytest.fixture
def source_rows() -> Callable[..., SourceRows]:
    """source_rows("A", 1.0, 10): ten different rows; with `contents`, rows of these answers."""

    def make(
        name: str, weight: float | None, contents: int | Sequence[str], **fields: Sequence[str] | str
    ) -> SourceRows:
        answers = [f"{name} {i}" for i in range(contents)] if isinstance(contents, int) else contents
        examples = []
        for i, answer in enumerate(answers):
            own = {key: value if isinstance(value, str) else value[i] for key, value in fields.items()}
            examples.append(to_example({"prompt": "q", "completion": answer, **own}, name, i))
        return SourceRows(name, weight, tuple(examples))

    return make


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StageSettings]:
    """stage(SFT_DATASET_ID=…, …): the settings of a stage file with these keys."""

    def make(**keys: Any) -> StageSettings:
        folder = tmp_path / "stages"
        folder.mkdir(exist_ok=True)
        values = {
            "SFT_BASE_MODEL": "base",
            "SFT_OUT_LORA_DIR": str(tmp_path / "out"),
            "SFT_STRICT": 1,
            **keys,
        }
        (folder / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
        return load_stage(folder, 1, environ={})

    return make


@pytest.fixture
def data_file(tmp_path: Path) -> Callable[..., str]:
    """data_file(["answer", …]): a file of conversations with these answers, labelled by index."""

    def make(answers: Sequence[str], name: str = "rows.jsonl", **fields: str) -> str:
        rows = [
            {"prompt": f"question {i}", "completion": answer, **fields} for i, answer in enumerate(answers)
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return make
