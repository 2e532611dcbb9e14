from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.architecture import caps_attention_logits
from lib.model.base import ComputeChoice, StageBase, choose_compute, load_base, load_tokenizer
from lib.settings import InputError, ModelSettings

TinyModel = Callable[..., Path]


def settings(**fields: Any) -> ModelSettings:
    return ModelSettings(**({"base_model": str(Path(__file__).parent)} | fields))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """machine(gpu=True, bf16=True, capability=(9, 0), flash=False): what torch says of it."""
    import torch

    from lib.model import base

    def pretend(
        gpu: bool = True, bf16: bool = True, capability: tuple[int, int] = (9, 0), flash: bool = False
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: object() if flash else None)
        monkeypatch.setattr(base.importlib, "import_module", lambda name: object())

    return pretend


def test_a_cpu_computes_in_fp32_with_sdpa_and_says_why(machine: Callable[..., None]) -> None:
    import torch

    machine(gpu=False)
    chosen = choose_compute(settings())
    assert (chosen.dtype, chosen.attention) == (torch.float32, "sdpa")
    assert "no CUDA device" in chosen.reason
    assert chosen.line() == f"  computes in float32, attention sdpa ({chosen.reason})"
    assert choose_compute(settings(dtype="bf16")).dtype == torch.bfloat16


def test_a_gpu_computes_in_bf16_where_it_has_it(machine: Callable[..., None]) -> None:
    import torch

    machine(bf16=True)
    assert choose_compute(settings()).dtype == torch.bfloat16
    assert choose_compute(settings(dtype="fp32")).dtype == torch.float32
    machine(bf16=False)
    assert choose_compute(settings()).dtype == torch.float32


@pytest.mark.parametrize(
    ("facts", "dtype", "obstacle"),
    [
        ({"gpu": False}, "auto", "no CUDA device"),
        ({"flash": True}, "fp32", "bf16 or fp16 only"),
        ({"flash": True, "capability": (7, 5)}, "auto", "older than Ampere"),
        ({"flash": False}, "auto", "not installed"),
    ],
)
def test_flash_attention_is_used_where_it_works_and_demanded_only_there(
    facts: dict[str, Any], dtype: str, obstacle: str, machine: Callable[..., None]
) -> None:
    machine(**facts)
    fallen_back = choose_compute(settings(dtype=dtype))
    assert fallen_back.attention == "sdpa"
    assert obstacle in fallen_back.reason
    with pytest.raises(InputError, match=obstacle) as caught:
        choose_compute(settings(dtype=dtype, attention="flash_attention_2"))
    assert caught.value.problems[0].key == "SFT_ATTENTION"


def test_flash_attention_when_all_is_there(machine: Callable[..., None]) -> None:
    machine(flash=True)
    assert choose_compute(settings()).attention == "flash_attention_2"
    assert choose_compute(settings(attention="eager")).attention == "eager"


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_that_caps_its_attention_logits_gets_eager(
    gpu: bool, machine: Callable[..., None], tiny_model: TinyModel
) -> None:
    """As transformers has it: its SDPA refuses the cap, flash attention takes it where it is demanded."""
    gemma = str(tiny_model("gemma2"))
    machine(gpu=gpu, flash=True)
    chosen = choose_compute(settings(base_model=gemma))
    assert chosen.attention == "eager"
    assert "caps its attention logits" in chosen.line()
    assert choose_compute(settings(base_model=gemma, attention="eager")).attention == "eager"
    with pytest.raises(InputError) as caught:
        choose_compute(settings(base_model=gemma, attention="sdpa"))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("SFT_ATTENTION", "sdpa")
    assert "eager" in problem.remedy
    if gpu:
        demanded = choose_compute(settings(base_model=gemma, attention="flash_attention_2"))
        assert demanded.attention == "flash_attention_2"


def test_the_cap_is_read_from_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for content, capped in (
        ('{"model_type": "gemma2"}', True),
        ('{"model_type": "gemma2", "attn_logit_softcapping": null}', False),
        ('{"model_type": "other", "attn_logit_softcapping": 50.0}', True),
        ('{"model_type": "qwen3"}', False),
        ("[]", False),
        ("{", False),
    ):
        config.write_text(content)
        assert caps_attention_logits(tmp_path) is capped, content


def test_the_base_is_loaded_frozen_in_the_precision_asked_for(tiny_model: TinyModel) -> None:
    import torch

    folder = str(tiny_model("qwen3", "bfloat16"))
    base = StageBase(folder, "", folder, merged=False, reused=False, seconds=0.0)
    model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, False)}
    assert model.config._attn_implementation == "sdpa"


def test_a_base_that_cannot_be_read_is_the_users_to_mend(tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "empty"
    folder.mkdir()
    for name in (str(folder), "no-such-owner/no-such-model"):
        base = StageBase(name, "", name, merged=False, reused=False, seconds=0.0)
        attempts: list[Callable[[], Any]] = [
            lambda base=base: load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False),
            lambda name=name: load_tokenizer(settings(base_model=name)),
        ]
        for attempt in attempts:
            with pytest.raises(InputError) as caught:
                attempt()
            (problem,) = caught.value.problems
            assert (problem.key, problem.value) == ("SFT_BASE_MODEL", name)
            assert ("config.json" in problem.remedy) == (name == str(folder))


def test_a_tokenizer_comes_from_beside_the_base(tiny_model: TinyModel) -> None:
    tokenizer = load_tokenizer(settings(base_model=str(tiny_model("qwen3"))))
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert "im_start" in tokenizer.chat_template
