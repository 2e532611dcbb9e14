"""SentencePiece tokenizers: read with their own unknown token, or the missing package is named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lib.model.base import load_tokenizer
from lib.model.sentencepiece_tokenizer import missing_readers, with_own_unknown_token
from lib.settings import InputError, ModelSettings

TEXTS = ["こんにちは。元気です。", "今日は良い天気ですね。", "散歩に行きましょう。", "ありがとうございます。"]


def make(folder: Path, **ids: Any) -> Path:
    import sentencepiece

    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **ids,
    )
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": []}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | named))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return folder


@pytest.fixture
def rinnas_order(tmp_path: Path) -> Path:
    return make(tmp_path / "rinna", unk_id=0, bos_id=1, eos_id=2, pad_id=3, pad_piece="[PAD]")


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_an_unknown_character_is_unknown_and_does_not_end_the_text(
    rinnas_order: Path, tmp_path: Path
) -> None:
    plain = AutoTokenizer.from_pretrained(rinnas_order)
    assert ids(plain, "鰯")[-1] == plain.eos_token_id  # what transformers makes of it
    tokenizer = load_tokenizer(ModelSettings(base_model=str(rinnas_order)))
    assert ids(tokenizer, "鰯")[-1] == tokenizer.unk_token_id == 0
    assert ids(tokenizer, TEXTS[0]) == ids(plain, TEXTS[0])
    assert tokenizer.decode(ids(tokenizer, TEXTS[0])) == TEXTS[0]
    assert (tokenizer.special_tokens_map, len(tokenizer)) == (plain.special_tokens_map, len(plain))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert ids(again, "鰯")[-1] == 0


def test_one_in_t5s_own_order_is_left_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "t5", pad_id=0, pad_piece="[PAD]", eos_id=1, unk_id=2, bos_id=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert with_own_unknown_token(tokenizer) is tokenizer


def test_without_the_package_the_message_names_it(
    rinnas_order: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sentencepiece"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError) as caught:
        load_tokenizer(ModelSettings(base_model=str(rinnas_order)))
    (problem,) = caught.value.problems
    assert problem.value == str(rinnas_order)
    assert problem.expected.startswith("sentencepiece to be installed")
    assert problem.remedy == "pip install sentencepiece"


def test_an_error_about_something_else_asks_for_no_package() -> None:
    assert missing_readers(OSError("no tokenizer.json here")) == []
    assert missing_readers(ValueError("`tiktoken` is required to read a `tiktoken` file")) == []
