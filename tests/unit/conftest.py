"""What several folders share: a tiny tokenizer, tiny random models, and curricula of stage files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from lib.audit.audit import audit_rows
from lib.audit.findings_file import keep_findings
from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import PreparedData, prepare_rows
from lib.data.reading.rows import to_example
from lib.evaluation.evaluation_set import EvaluationSet
from lib.evaluation.heldout import NOTHING, Evaluation
from lib.evaluation.stage_evaluation import Retained, StageEvaluation
from lib.lineage.completion import finish_stage, keep_evaluation, make_record
from lib.lineage.curriculum import SurveyedStage, survey
from lib.lineage.record import StageRecord
from lib.lineage.replayed import replayed_stages
from lib.model.adapter import Census
from lib.model.base import StageBase
from lib.planning.stage_batch import with_batch
from lib.settings import list_stages
from lib.training.sizing.world import World
from lib.training.trainer import FitResult

LAUNCHERS = {"WORLD_SIZE", "RANK", "LOCAL_RANK"}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHARACTERS = '\n !"#,-.:{}[]_/0123456789ABCOQFabcdefghijklmnopqrstuvwxyz'
VOCABULARY = 64
CHATML = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": None,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3Moe", EXPERTS),
    "qwen3_moe_mixed": ("Qwen3Moe", EXPERTS | {"mlp_only_layers": [0]}),
    "qwen2_moe": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 24}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24}),
    "gpt_oss": ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24}),
    "qwen3": ("Qwen3", {}),
    "gemma2": ("Gemma2", {"query_pre_attn_scalar": 8, "sliding_window": 16, "tie_word_embeddings": True}),
    "gpt2": ("GPT2", {}),
}


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and launchers of the surrounding shell do not reach into the tests."""
    for name in [*os.environ]:
        if name.startswith(("SFT_", "MLFLOW_", "LORA_CURRICULUM_")) or name in LAUNCHERS:
            monkeypatch.delenv(name)


def save_tiny_tokenizer(folder: Path) -> None:
    """One token per character: what a model of 64 words can say, one can read."""
    vocabulary = {text: number for number, text in enumerate((*SPECIAL, "<unk>", *CHARACTERS))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.decoder = decoders.Fuse()
    assert tokenizer.get_vocab_size() <= VOCABULARY
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(CHATML)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_model("mixtral", dtype="bfloat16", hidden_size=64): a folder with a random model and tokenizer."""
    made: dict[str, Path] = {}

    def make(family: str, dtype: str = "float32", **overrides: Any) -> Path:
        import torch
        import transformers

        key = f"{family}-{dtype}-{json.dumps(overrides, sort_keys=True)}"
        if key not in made:
            name, own = FAMILIES[family]
            config = getattr(transformers, f"{name}Config")(**(SIZES | own | overrides))
            torch.manual_seed(7)
            model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
            made[key] = tmp_path_factory.mktemp(family)
            model.save_pretrained(made[key])
            save_tiny_tokenizer(made[key])
        return made[key]

    return make


class Curriculum:
    """Stage files in a folder with a base (configuration and tokenizer, no weights) and a data set.

    Stages are "trained" by writing what a run leaves behind, with the real record and no model.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self.base = root / "base"
        self.data = root / "rows.jsonl"
        self.stages.mkdir()
        save_tiny_tokenizer(self.base)
        config = SIZES | EXPERTS | {"model_type": "qwen3_moe"}
        (self.base / "config.json").write_text(json.dumps(config))
        self.write_rows(40)

    def write_rows(self, count: int, task: str = "json") -> None:
        rows = [{"prompt": f"question {i}", "completion": f"answer {i}", "task": task} for i in range(count)]
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def stage(self, number: int, **keys: Any) -> Path:
        """Write stage{number}.env; a key that is None is left out."""
        values = {
            "SFT_BASE_MODEL": self.base,
            "SFT_OUT_LORA_DIR": self.root / "out" / "lora",
            "SFT_DATASET_ID": self.data,
            "SFT_STRICT": 1,
            **keys,
        }
        path = self.stages / f"stage{number}.env"
        lines = [f"{key}='{value}'\n" for key, value in values.items() if value is not None]
        path.write_text("".join(lines))
        return path

    def folder(self, number: int) -> Path:
        return self.root / "out" / f"lora_stage{number}"

    def survey(self, *chosen: int, **keywords: Any) -> list[SurveyedStage]:
        return survey(self.stages, list_stages(self.stages), chosen=chosen, **({"environ": {}} | keywords))

    def surveyed(self, number: int, **keywords: Any) -> SurveyedStage:
        chosen = keywords.pop("chosen", (number,))
        found = self.survey(*chosen, **keywords)
        return next(stage for stage in found if stage.settings.stage == number)

    def state(self, number: int, **keywords: Any) -> str:
        return self.surveyed(number, **keywords).status.state

    def chat(self, stage: SurveyedStage) -> ChatFormat:
        chat = ChatFormat.load(self.base, stage.settings.data.chat_template)
        assert chat is not None
        return chat

    def prepared(self, stage: SurveyedStage) -> PreparedData:
        return prepare_rows(
            stage.settings, self.chat(stage), earlier=replayed_stages(stage), clean=audit_rows
        )

    @staticmethod
    def scored(
        number: int, parse_rate: float = 0.5, *, retained: tuple[Retained, ...] = ()
    ) -> StageEvaluation:
        """What the end of a stage measured, on one row."""
        example = to_example({"prompt": "question", "completion": "{}", "format": "json"}, "heldout", 0)
        own = EvaluationSet(number, "structured", "", ("Output:",), 16, 64, (example,))
        metrics = {"gen_parse_rate": parse_rate, "gen_leaf_f1": parse_rate, "gen_samples": 2.0}
        sample = {
            "row": "heldout#0",
            "prompt": "q",
            "reference": "{}",
            "answer": "{}",
            "labels": {},
            "verdict": {},
        }
        scored = Evaluation(metrics, {"gen_parse_rate": (0.25, 0.75)}, [sample], 1.0)
        return StageEvaluation(own, NOTHING, scored, retained)

    def record(self, stage: SurveyedStage, adapter: bytes = b"weights", **keywords: Any) -> StageRecord:
        """The record of a stage that has left `adapter` as its weights."""
        folder = stage.settings.stage_dir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(adapter)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "chat_template.jinja").write_text(self.chat(stage).template)
        census = Census(attention=10, experts=20, router=0, dense_mlp=0, other=0, frozen=970, tensors=4)
        fitted = FitResult(5, 1.0, 100, 2.0, {"eval_loss": 1.25}, 5, 5, 1.25, 10**9, [{"loss": 2.0}])
        base = StageBase(str(self.base), "", str(self.base), merged=False, reused=False, seconds=0.0)
        scored = self.scored(stage.settings.stage)
        values = {"base": base, "evaluation": scored, "run_id": "run", "warnings": []}
        return make_record(
            stage=stage,
            chat=self.chat(stage),
            data=self.prepared(stage),
            census=census,
            fitted=fitted,
            **(values | keywords),
        )

    def train(self, number: int, adapter: bytes = b"weights", **keywords: Any) -> StageRecord:
        """Leave behind what a completed run of the stage leaves."""
        stage = with_batch(self.surveyed(number, **keywords), World(1, 0))
        folder = self.folder(number)
        scored = self.scored(number)
        record = self.record(stage, adapter, evaluation=scored)
        keep_findings(stage.settings, self.prepared(stage).findings)
        keep_evaluation(folder, record, scored)
        finish_stage(folder, record)
        return record


@pytest.fixture
def curriculum(tmp_path: Path) -> Curriculum:
    return Curriculum(tmp_path)
