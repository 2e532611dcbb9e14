"""Adapters on tiny random models: attached, trained in a pretended way, saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
from lib.settings import LoraSettings, ModelSettings, StageSettings, load_stage

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def lora() -> Callable[..., LoraSettings]:
    def make(**fields: Any) -> LoraSettings:
        values = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": MODULES} | fields
        return LoraSettings(**values)

    return make


@pytest.fixture
def load() -> Callable[[Path], Any]:
    """The frozen model in fp32 of a folder, as a stage gets it."""

    def from_folder(folder: Path) -> Any:
        import torch

        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        return load_base(base, ComputeChoice(torch.float32, "eager", ""), on_gpu=False)

    return from_folder


@pytest.fixture
def attach(load: Callable[[Path], Any], lora: Callable[..., LoraSettings]) -> Callable[..., Any]:
    """attach(folder, requested, rank=4): (PEFT model, census) as a stage attaches it."""

    def make(folder: Path, requested: Any = MODULES, **fields: Any) -> Any:
        from lib.model.adapter import attach_lora
        from lib.model.targets import find_targets

        model = load(folder)
        return attach_lora(model, find_targets(model, requested), lora(**fields), seed=3)

    return make


@pytest.fixture
def stage_settings(tmp_path: Path) -> Callable[..., StageSettings]:
    """Settings of a stage that writes to tmp_path/lora_stage{N}."""

    def make(base: Path, stage: int = 1, **keys: Any) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": base,
            "SFT_OUT_LORA_DIR": tmp_path / "lora",
            "SFT_DATASET_ID": "owner/set",
            "SFT_LORA_R": 4,
            **keys,
        }
        folder = tmp_path / "stages"
        folder.mkdir(exist_ok=True)
        (folder / f"stage{stage}.env").write_text("".join(f"{k}='{v}'\n" for k, v in values.items()))
        settings = load_stage(folder, stage, environ={})
        settings.stage_dir.mkdir(exist_ok=True)
        return settings

    return make


@pytest.fixture
def trained_adapter(
    attach: Callable[..., Any], stage_settings: Callable[..., StageSettings]
) -> Callable[..., Any]:
    """trained_adapter(folder, stage): (adapter folder, PEFT model) with B factors that are not zero."""

    def make(folder: Path, stage: int = 1, requested: Any = MODULES, **keys: Any) -> tuple[Path, Any]:
        import torch

        from lib.model.adapter import round_adapter, save_adapter

        model, _ = attach(folder, requested)
        generator = torch.Generator().manual_seed(stage)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        settings = stage_settings(folder, stage, **keys)
        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        round_adapter(model, settings.lora)
        save_adapter(model, load_tokenizer(settings.model), settings, base)
        return settings.stage_dir, model

    return make


@pytest.fixture
def make_adapter(attach: Callable[..., Any], stage_settings: Callable[..., Any]) -> Callable[..., Path]:
    """make_adapter(base, stage, requested, rank=4, alpha=8.0): an adapter in fp32 with random factors."""

    def make(base: Path, stage: int, requested: Any, dtype: str = "fp32", **lora: Any) -> Path:
        import torch

        from lib.model.adapter import save_adapter

        model, _ = attach(base, requested, **lora)
        generator = torch.Generator().manual_seed(stage)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    drawn = torch.randn(parameter.shape, generator=generator) * 0.1
                    parameter.copy_(drawn.bfloat16() if dtype == "bf16" else drawn)
        settings = stage_settings(base, stage, SFT_ADAPTER_DTYPE=dtype)
        base_of_stage = StageBase(str(base), "", str(base), merged=False, reused=False, seconds=0.0)
        save_adapter(model, load_tokenizer(settings.model), settings, base_of_stage)
        return settings.stage_dir

    return make


@pytest.fixture
def load_as(stage_settings: Callable[..., Any]) -> Callable[..., Any]:
    """load_as("stack", base, adapters): the model that a stage trains on, as the mode makes it."""

    def make(mode: str, base: Path, adapters: list[Path], dtype: str = "float32") -> Any:
        import torch

        from lib.model.stage_base import load_stage_base, obtain_stage_base

        settings = stage_settings(base, 9, SFT_MERGE_MODE=mode)
        found = obtain_stage_base(
            settings.model,
            adapters,
            settings.merged_base_dir,
            key=f"{base}{adapters}",
            mode=settings.model.merge_mode,
        )
        assert found.mode == mode
        return load_stage_base(
            found, settings.model, ComputeChoice(getattr(torch, dtype), "eager", ""), on_gpu=False
        )[0]

    return make


@pytest.fixture
def two_stages(tiny_model: Any, make_adapter: Any) -> tuple[Path, list[Path]]:
    base = tiny_model("qwen3_moe")
    return base, [make_adapter(base, stage, MODULES) for stage in (1, 2)]


@pytest.fixture
def new_adapter(lora: Callable[..., Any]) -> Callable[..., Any]:
    """new_adapter(model, MODULES, dropout=0.1): a LoRA on the model that does something, in training mode."""

    def make(model: Any, requested: Any = MODULES, **options: Any) -> Any:
        import torch

        from lib.model.adapter import attach_lora
        from lib.model.targets import find_targets

        adapted, _ = attach_lora(model, find_targets(model, requested), lora(**options), seed=3)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return adapted.train()

    return make


@pytest.fixture
def model_settings() -> Callable[..., ModelSettings]:
    def make(folder: Path) -> ModelSettings:
        return ModelSettings(base_model=str(folder))

    return make


@pytest.fixture
def logits() -> Callable[[Any], Any]:
    """Logits in fp32 of a fixed batch."""

    def compute(model: Any) -> Any:
        import torch

        ids = torch.arange(3, 27).reshape(2, 12)
        with torch.no_grad():
            return model.eval()(input_ids=ids).logits.float()

    return compute


@pytest.fixture(params=["one by one", "short runs", "together"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of multiplying experts' rows, also the one that is chosen on a GPU."""
    from lib.model.expert_lora import plug_in
    from lib.model.expert_lora.products import OneByOne, Together

    ways = {
        "one by one": lambda routing: OneByOne(routing, 10_000),
        "short runs": lambda routing: OneByOne(routing, 10),
        "together": Together,
    }
    monkeypatch.setattr(plug_in, "choose_products", lambda routing, *weights: ways[request.param](routing))
    return str(request.param)
