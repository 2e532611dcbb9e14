"""Tiny models and data sets under the names that the shipped stage files have, in a working folder.

A folder of that name in the working folder is what the name means there, so the stage files run as they are:
same architecture, same loading code, no network.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_curriculum import rows as conversions
from tiny_model import make_dense_model, make_model, make_tokenizer
from train_command import ROOT, TrainCommand

from data.news.make_news import SMALL, write_set

QWEN, QWEN_MOE = "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507"
RINNA = "rinna/japanese-gpt2-medium"
GEMMA = "google/gemma-2-2b-jpn-it"
# The guide's data sets, with the types that its upsampling rules name.
STRUCTEVAL = {
    "u-10bei/structured_data_with_cot_dataset_512_v2": ("json_to_yaml", "text_to_json"),
    "additional_toml_dataset": ("text_to_toml", "toml_to_yaml"),
    "dataset_balanced": ("json_to_yaml", "text_to_toml"),
    "dataset_hard_cases": ("json_to_toml",),
}
# A few steps instead of thousands; everything else is what the file says.
FEW_STEPS = {
    "SFT_OUT_LORA_DIR": "out/lora",
    "SFT_MAX_STEPS": 2,
    "SFT_GLOBAL_BATCH_SIZE": "",
    "SFT_PER_DEVICE_TRAIN_BS": 2,
    "SFT_GRAD_ACCUM": 1,
    "SFT_LOGGING_STEPS": 1,
    "SFT_EVAL_STEPS": 2,
    "SFT_SAVE_STEPS": 2,
    "SFT_GEN_EVAL_SAMPLES": 4,
    "SFT_GEN_EVAL_MAX_NEW_TOKENS": 6,
}


class StandIns:
    """A working folder in which the shipped curricula run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = TrainCommand(folder)

    def train(self, curriculum: str, stage: object, **keys: object) -> str:
        """Standard output of a run of a shipped folder that must succeed."""
        given = [f"{key}={value}" for key, value in {**FEW_STEPS, **keys}.items()]
        options = [part for text in given for part in ("--set", text)]
        return self.command.done("--stages-dir", ROOT / "stages" / curriculum, "--stage", stage, *options)

    def plan(self, curriculum: str, *options: object) -> list[dict[str, Any]]:
        """What `--plan --json` says of all stages."""
        where = ("--stages-dir", ROOT / "stages" / curriculum)
        return json.loads(self.command.done(*where, "--stage", "all", "--plan", "--json", *options))

    def stage_dir(self, number: int) -> Path:
        return self.folder / f"out/lora_stage{number}"

    def record(self, number: int) -> dict[str, Any]:
        return json.loads((self.stage_dir(number) / "stage.json").read_text(encoding="utf-8"))

    def structeval_data(self) -> None:
        for name, types in STRUCTEVAL.items():
            made = conversions(12, first=len(name))
            for number, row in enumerate(made):
                row["metadata"]["type"] = types[number % len(types)]
            self._write(f"{name}/train.jsonl", made)

    def news_data(self) -> None:
        write_set(replace(SMALL, positives=20, negatives=50, heldout=8), self.folder / "data/news/full", 1)

    def nya_data(self) -> None:
        self._copy_conversations("nya")

    def noda_data(self) -> None:
        self._copy_conversations("noda")

    def _copy_conversations(self, style: str) -> None:
        for name in ("training", "validation"):
            text = (ROOT / f"data/{style}/{name}.jsonl").read_text(encoding="utf-8")
            target = self.folder / f"data/{style}/{name}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def _write(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def qwen(self) -> None:
        """Dense."""
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM

        folder = self.folder / QWEN
        make_tokenizer(folder, texts())
        torch.manual_seed(11)
        config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16, max_position_embeddings=2048)
        Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)

    def qwen_moe(self) -> None:
        make_model(self.folder / QWEN_MOE, texts())

    def gemma(self) -> None:
        make_dense_model(self.folder / GEMMA, texts(), "Gemma2")

    def rinna(self, *, embedded: float = 1.0) -> None:
        """GPT-2 under a SentencePiece tokenizer that is nothing but its model, as rinna's is; with embeddings
        of this part of its tokens."""
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        folder = self.folder / RINNA
        size = make_sentencepiece(folder)
        torch.manual_seed(11)
        sizes = {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512, "initializer_range": 0.08}
        config = GPT2Config(vocab_size=int(size * embedded), bos_token_id=1, eos_token_id=2, **sizes)
        GPT2LMHeadModel(config).save_pretrained(folder)


SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "initializer_range": 0.08,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def texts() -> list[str]:
    from data.news.records import INSTRUCTION

    return [INSTRUCTION, *(message["content"] for row in conversions(30) for message in row["messages"])]


def make_sentencepiece(folder: Path) -> int:
    """spiece.model and the configuration of rinna's repository; returns the number of tokens.

    The order of the special tokens is rinna's: `<unk>` is 0 and `</s>` is 2, T5's other way round.
    """
    import sentencepiece

    folder.mkdir(parents=True)
    lines = (ROOT / "data/nya/training.jsonl").read_text(encoding="utf-8").splitlines()
    said = [message["content"] for line in lines for message in json.loads(line)["messages"]]
    shuffled = random.Random(1).choices(said, k=400)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*shuffled, "### User: ### Assistant:"]),
        model_prefix=str(folder / "spiece"),
        vocab_size=320,
        hard_vocab_limit=False,
        pad_id=3,
        pad_piece="[PAD]",
        user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    named = {"eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>", "pad_token": "[PAD]"}
    others = {"sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": []}
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, **others, **config}))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    assert [processor.piece_to_id(piece) for piece in ("<unk>", "<s>", "</s>", "[PAD]")] == [0, 1, 2, 3]
    return processor.get_piece_size()


MakeStandIns = Callable[[Path], StandIns]
