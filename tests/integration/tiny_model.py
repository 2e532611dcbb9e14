"""Random models of two layers with their own tokenizer and chat template."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
GEMMA_TURNS = ("<start_of_turn>", "<end_of_turn>")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 512
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}


def make_model(folder: Path, texts: Sequence[str], *, hidden: int = 64) -> Path:
    """A Qwen3-MoE: four experts, two of them per token; files in bf16. `texts` train the tokenizer."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    make_tokenizer(folder, texts)
    torch.manual_seed(11)
    config = Qwen3MoeConfig(
        **SIZES,
        hidden_size=hidden,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def make_dense_model(folder: Path, texts: Sequence[str], family: str) -> Path:
    """A model of `family` (Gemma2, Qwen3) without experts, its files in bf16."""
    import torch
    import transformers

    make_tokenizer(folder, texts, end="<end_of_turn>" if family == "Gemma2" else "<|im_end|>")
    torch.manual_seed(11)
    own = {"query_pre_attn_scalar": 16, "sliding_window": 64} if family == "Gemma2" else {}
    config = getattr(transformers, f"{family}Config")(
        **SIZES,
        hidden_size=64,
        bos_token_id=None,
        **own,
    )
    getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, texts: Sequence[str], *, end: str = "<|im_end|>") -> None:
    """A byte-level BPE as the files that transformers and the plan read."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[
            AddedToken(text, special=True, normalized=False) for text in (*SPECIAL_TOKENS, *GEMMA_TURNS)
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)
