"""The base of a stage: W = round(W0 + the updates of all earlier adapters), rounded once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expert_checkpoints import edit, updates

from lib.model.merge import MERGE_RECORD, find_merged, obtain_base
from lib.settings import InputError

TinyModel = Callable[..., Path]
Trained = Callable[..., tuple[Path, Any]]
Load = Callable[[Path], Any]
FAMILIES = ["qwen3_moe", "mixtral", "qwen3_moe_mixed", "qwen2_moe", "qwen3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_logits_equal_base_and_both_adapters(
    family: str,
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    load: Load,
    logits: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    """The reference adds the updates to the weights by hand, in float64, without PEFT."""
    import torch

    base = tiny_model(family)
    adapters = [trained_adapter(base, stage)[0] for stage in (1, 2)]
    stage_base = obtain_base(model_settings(base), adapters, tmp_path / "merged", key="k")
    reference = load(base)
    for adapter in adapters:
        for name, delta in updates(adapter).items():
            reference.get_parameter(name).data += torch.from_numpy(delta).float()
    merged = logits(load(Path(stage_base.path)))
    torch.testing.assert_close(merged, logits(reference), atol=2e-4, rtol=2e-4)
    assert (merged - logits(load(base))).abs().max() > 0.1
    only_last = obtain_base(model_settings(base), adapters[1:], tmp_path / "last", key="l")
    assert (merged - logits(load(Path(only_last.path)))).abs().max() > 0.1


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_moe_mixed", "mixtral", "qwen3"])
def test_a_merge_equals_the_model_that_was_trained(
    family: str,
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    load: Load,
    logits: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    import torch

    base = tiny_model(family)
    adapter, in_memory = trained_adapter(base)
    merged = load(Path(obtain_base(model_settings(base), [adapter], tmp_path / "merged", key="k").path))
    torch.testing.assert_close(logits(merged), logits(in_memory), atol=2e-4, rtol=2e-4)


def test_weights_are_rounded_once_to_the_dtype_of_the_base(
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = tiny_model("qwen3_moe", "bfloat16")
    adapters = [trained_adapter(base, stage)[0] for stage in (1, 2, 3)]
    stage_base = obtain_base(model_settings(base), adapters, tmp_path / "merged", key="k")
    original = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    merged = AutoModelForCausalLM.from_pretrained(stage_base.path, dtype="auto")
    summed = [updates(adapter) for adapter in adapters]
    assert len(summed[0]) == 2 * 6
    for name, parameter in merged.named_parameters():
        assert parameter.dtype == torch.bfloat16
        start = original.get_parameter(name)
        exact, chained = start.clone(), start.to(torch.bfloat16)
        for delta in summed:
            if name in delta:
                exact += torch.from_numpy(delta[name])
                chained = (chained.double() + torch.from_numpy(delta[name])).to(torch.bfloat16)
        assert torch.equal(parameter, exact.to(torch.bfloat16)), name
        if name in summed[0]:
            assert (chained != exact.to(torch.bfloat16)).double().mean() > 0.05


def test_the_first_stage_trains_on_the_base_itself(
    model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    found = obtain_base(model_settings(tmp_path / "base"), [], tmp_path / "merged", key="k")
    assert (found.path, found.merged) == (str(tmp_path / "base"), False)
    assert not (tmp_path / "merged").exists()


def test_a_base_is_reused_for_the_same_content_only(
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    base, place = tiny_model("qwen3_moe"), tmp_path / "merged"
    adapter, _ = trained_adapter(base)
    settings = model_settings(base)
    first = obtain_base(settings, [adapter], place, key="one")
    assert first.merged
    assert not first.reused
    assert find_merged(place).key == "one"
    (place / "left by the first build").touch()
    again = obtain_base(settings, [adapter], place, key="one")
    assert (again.reused, again.path) == (True, str(place))
    assert "found" in again.line()
    other = obtain_base(settings, [adapter], place, key="two")
    assert not other.reused
    assert not (place / "left by the first build").exists()
    assert (place / "tokenizer.json").is_file()
    assert not place.with_name("merged.part").exists()


SIZES_ONLY = '{"key": "k", "proof": {"kept": 1}, "files": {"config.json": 0}}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}', SIZES_ONLY])
def test_a_folder_without_a_finished_record_is_built_again(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert find_merged(tmp_path).key == ""
    (tmp_path / MERGE_RECORD).write_text(content)
    assert find_merged(tmp_path).key == ""


def test_misfits_are_the_users_to_mend_and_leave_nothing(
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    import torch

    base, place = tiny_model("qwen3_moe"), tmp_path / "merged"
    good, _ = trained_adapter(base)
    prefix = "base_model.model.model.layers"
    extra = {f"{prefix}.7.self_attn.q_proj.lora_A.weight": torch.zeros(4, 32)}
    misfits = {
        "wider": trained_adapter(tiny_model("qwen3_moe", hidden_size=64), 2)[0],
        "dense": trained_adapter(tiny_model("qwen3"), 3)[0],
        "more experts": trained_adapter(tiny_model("qwen3_moe", num_experts=8), 4)[0],
        "extra tensor": edit(good, tmp_path / "extra", lambda t, _: t.update(extra)),
        "missing tensor": edit(good, tmp_path / "less", lambda t, _: t.pop(sorted(t)[0])),
        "not there": tmp_path / "nowhere",
    }
    for name, adapter in misfits.items():
        with pytest.raises(InputError) as caught:
            obtain_base(model_settings(base), [good, adapter], place, key=name)
        (problem,) = caught.value.problems
        assert problem.where == str(adapter), name
        assert "fits the base model" in problem.expected
        assert not place.exists(), name
        assert not place.with_name("merged.part").exists(), name


def test_a_misfit_leaves_the_base_that_was_there(
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    base, place = tiny_model("qwen3_moe"), tmp_path / "merged"
    good, _ = trained_adapter(base)
    obtain_base(model_settings(base), [good], place, key="good")
    with pytest.raises(InputError):
        obtain_base(model_settings(base), [tmp_path / "nowhere"], place, key="bad")
    assert find_merged(place).key == "good"
