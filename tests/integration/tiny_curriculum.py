"""A tiny Qwen3-MoE, small data and stage files, and the real command to train them with."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "train.py"
LIMIT_SECONDS = 420
SECRET = "hf_ThisMustNeverBeWrittenDown"
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")


@dataclass(frozen=True)
class Command:
    """`python train.py` as a user runs it: another process, its working folder and environment."""

    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """The finished command with its output; `environ` on top of the clean environment."""
        return subprocess.run(
            self.line(arguments),
            cwd=self.cwd,
            env={**clean_environment(), **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    def done(self, *arguments: object, **environ: str) -> str:
        """Standard output of a command that must succeed."""
        result = self(*arguments, **environ)
        assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def interrupted(self, *arguments: object, when: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command that gets SIGINT once a line starts with `when`."""
        process = subprocess.Popen(
            self.line(arguments),
            cwd=self.cwd,
            env={**clean_environment(), **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if line.strip().startswith(when):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=LIMIT_SECONDS)
        return process.returncode, seen + out, err

    def line(self, arguments: Sequence[object]) -> list[str]:
        return [sys.executable, str(TRAIN), *map(str, arguments)]


def clean_environment() -> dict[str, str]:
    """The present environment without anything that would reach the settings, the network or a GPU."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SFT_", "MLFLOW_", "HF_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_"))
    }
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_TOKEN": SECRET,
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "200",
    }


def make_model(folder: Path, *, experts: int = 4, hidden: int = 64) -> Path:
    """A random Qwen3-MoE of two layers with bf16 files, its tokenizer and chat template."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    make_tokenizer(folder)
    torch.manual_seed(11)
    config = Qwen3MoeConfig(
        vocab_size=512,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_experts=experts,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=512,
        initializer_range=0.08,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE of at most 512 entries, as the files that transformers and the plan read."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for row in rows(40) for message in row["messages"]]
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)


def rows(count: int, *, formats: Sequence[str] = ("json", "yaml", "toml"), first: int = 0) -> list[dict]:
    """`count` different conversations with a plan, an output marker and labels."""
    return [_row(number, formats[number % len(formats)]) for number in range(first, first + count)]


def _row(number: int, format_name: str) -> dict[str, Any]:
    name, size = WORDS[number % len(WORDS)], number * 7 % 50
    document = {
        "json": json.dumps({"name": name, "size": size}),
        "yaml": f"name: {name}\nsize: {size}",
        "toml": f'name = "{name}"\nsize = {size}',
    }[format_name]
    return {
        "messages": [
            {"role": "user", "content": f"Write {name} of size {size} as {format_name}."},
            {"role": "assistant", "content": f"Approach:\n1. Two keys.\n\nOutput:\n{document}"},
        ],
        "metadata": {"format": format_name, "complexity": "simple"},
    }


def write_rows(path: Path, content: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Curriculum:
    """A folder with stage files, data and output, and the command that works on it."""

    folder: Path
    command: Command

    @property
    def stages_dir(self) -> Path:
        return self.folder / "stages"

    def stage_dir(self, stage: int) -> Path:
        return self.folder / f"out/lora_stage{stage}"

    def merged_base(self, stage: int) -> Path:
        return self.folder / f"out/lora_stage{stage}_merged_base"

    def record(self, stage: int) -> dict[str, Any]:
        return json.loads((self.stage_dir(stage) / "stage.json").read_text(encoding="utf-8"))

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"

    def train(self, stage: object, *arguments: object) -> str:
        return self.command.done("--stages-dir", self.stages_dir, "--stage", stage, *arguments)

    def try_to_train(self, stage: object, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.command("--stages-dir", self.stages_dir, "--stage", stage, *arguments)

    def status(self) -> list[str]:
        """The lines of --status."""
        return self.command.done("--stages-dir", self.stages_dir, "--status").splitlines()

    def plans(self, stage: object, *arguments: object) -> list[dict[str, Any]]:
        """--plan --json."""
        return json.loads(self.train(stage, "--plan", "--json", *arguments))

    def write_stage(self, stage: int, keys: Mapping[str, object]) -> Path:
        path = self.stages_dir / f"stage{stage}.env"
        path.write_text("".join(f"{key}='{value}'\n" for key, value in keys.items()), encoding="utf-8")
        return path

    def change(self, stage: int, key: str, value: object) -> None:
        """Give one key of a stage file another value."""
        path = self.stages_dir / f"stage{stage}.env"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{key}=")]
        path.write_text("\n".join([*lines, f"{key}='{value}'"]) + "\n", encoding="utf-8")

    def left_behind(self) -> list[str]:
        """What stands in the output folder."""
        out = self.folder / "out"
        return sorted(str(path.relative_to(out)) for path in out.rglob("*")) if out.exists() else []


def make_curriculum(folder: Path, base: Path) -> Curriculum:
    """Three stages over a general set, a mix with a weighted TOML set, and hard cases."""
    (folder / "stages").mkdir(parents=True)
    data = {
        "general": write_rows(folder / "general.jsonl", rows(20)),
        "toml": write_rows(folder / "toml.jsonl", rows(8, formats=("toml",), first=20)),
        "hard": write_rows(folder / "hard.jsonl", rows(12, formats=("yaml", "toml"), first=30)),
    }
    curriculum = Curriculum(folder, Command(cwd=folder))
    mix = [{"id": str(data["general"])}, {"id": str(data["toml"]), "weight": 2.0}]
    own: dict[int, dict[str, object]] = {
        1: {"SFT_DATASET_ID": data["general"], "SFT_LORA_DROPOUT": 0.05, "SFT_LR": 5e-3},
        2: {
            "SFT_DATASET_MIX": json.dumps(mix),
            "SFT_USE_UPSAMPLING": 1,
            "SFT_UPSAMPLE_RULES": '{"toml": 1.5}',
            "SFT_MAX_STEPS": 5,
            "SFT_LR": 3e-3,
        },
        3: {
            "SFT_DATASET_IDS": f"{data['hard']},{data['toml']}",
            "SFT_OUTPUT_LEARN_MODE": "from_marker",
            "SFT_MAX_STEPS": -1,
            "SFT_PER_DEVICE_TRAIN_BS": 4,
            "SFT_LR": 1e-3,
        },
    }
    for stage, keys in own.items():
        curriculum.write_stage(stage, {**common_keys(folder, base), "MLFLOW_TRACKING_URI": curriculum.store, **keys})
    return curriculum


def common_keys(folder: Path, base: Path) -> dict[str, object]:
    """Keys of a run of a few seconds, strict."""
    return {
        "HF_TOKEN": SECRET,
        "SFT_STRICT": 1,
        "SFT_BASE_MODEL": base,
        "SFT_OUT_LORA_DIR": folder / "out/lora",
        "SFT_VAL_RATIO": 0.2,
        "SFT_MAX_SEQ_LEN": 256,
        "SFT_LORA_R": 4,
        "SFT_LORA_ALPHA": 8,
        "SFT_LORA_DROPOUT": 0,
        "SFT_MAX_STEPS": 4,
        "SFT_EPOCHS": 1,
        "SFT_PER_DEVICE_TRAIN_BS": 2,
        "SFT_PER_DEVICE_EVAL_BS": 4,
        "SFT_GRAD_ACCUM": 1,
        "SFT_LOGGING_STEPS": 1,
        "SFT_EVAL_STEPS": 2,
        "SFT_SAVE_STEPS": 2,
        "SFT_SAVE_TOTAL_LIMIT": 2,
        "SFT_EARLY_STOPPING_PATIENCE": 0,
        "SFT_GEN_EVAL_SAMPLES": 4,
        "SFT_GEN_EVAL_MAX_NEW_TOKENS": 6,
    }
