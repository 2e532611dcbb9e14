"""The tiny base's tokenizer: byte-level BPE trained on pretraining text, with ChatML special tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.documents import pretraining_text

VOCABULARY = 4096
PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Words, digits one by one (as Qwen does), and whatever stands between them. Unlike Qwen's split a word
# never takes the character before it along: `Emma` is then the same token after a quote, a bracket, a
# comma or a space, and copying a value from one format to another is copying tokens. Scripts are apart
# for the same reason (`titleは海`).
SPLIT = r"\p{Latin}+|\p{Han}+|\p{Hiragana}+|[\p{Katakana}ー]+|\p{L}+|\p{N}|[^\p{L}\p{N}]+"


def token_id(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def corpus(seed: int, texts: int) -> Iterator[str]:
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(texts):
        yield pretraining_text(rng)


def train_tokenizer(seed: int, texts: int = 20_000) -> Tokenizer:
    """Deterministic for a seed: the trainer breaks ties by token order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, texts), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int, template: str) -> None:
    """As Transformers expects it: tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
