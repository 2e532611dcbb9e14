"""Logits of a merged base against base and adapters."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.model import merge_probe
from lib.model.base import StageBase
from lib.model.merge import obtain_base
from lib.model.merge_probe import gap_notices, logits_gap, probe_merge
from lib.settings import ModelSettings

Merged = tuple[StageBase, ModelSettings, list[Path], Any]
"""Merged base, its settings, the adapters, and the merged model."""
ROWS = [[4, 5, 6, 7, 8], [9, 10, 11]]


@pytest.fixture
def merged(
    tiny_model: Callable[..., Path],
    trained_adapter: Callable[..., tuple[Path, Any]],
    model_settings: Callable[..., Any],
    load: Callable[[Path], Any],
    tmp_path: Path,
) -> Merged:
    """Two stages on bf16 files."""
    base = tiny_model("qwen3_moe", dtype="bfloat16")
    adapters = [trained_adapter(base, stage)[0] for stage in (1, 2)]
    settings = model_settings(base)
    made = obtain_base(settings, adapters, tmp_path / "merged", key="k")
    return made, settings, adapters, load(tmp_path / "merged")


def test_the_gap_is_that_of_rounding_and_is_kept(merged: Merged) -> None:
    base, settings, adapters, model = merged
    probed = probe_merge(base, settings, adapters, model, ROWS)
    assert probed.proof is not None
    gap = probed.proof["logits"]
    assert (gap["rows"], gap["tokens"]) == (2, 8)
    assert 0 < gap["mean"] < 0.05 * gap["spread"]
    assert gap["mean"] <= gap["largest"]
    assert "same first token" in probed.line()
    record = json.loads((Path(base.path) / "merge.json").read_text())
    assert record["proof"]["logits"] == gap


def test_it_is_measured_once(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    base, settings, adapters, model = merged
    probed = probe_merge(base, settings, adapters, model, ROWS)
    monkeypatch.setattr(merge_probe, "base_with_adapters", lambda *_: pytest.fail("loaded again"))
    assert probe_merge(probed, settings, adapters, model, ROWS).proof == probed.proof


def test_a_forgotten_adapter_is_seen(merged: Merged) -> None:
    _, settings, adapters, model = merged
    honest = logits_gap(model, merge_probe.base_with_adapters(settings, adapters, model.device), ROWS)
    missing = logits_gap(model, merge_probe.base_with_adapters(settings, adapters[:1], model.device), ROWS)
    assert missing["mean"] > 10 * honest["mean"]


def test_large_models_and_unmerged_bases_are_not_asked(
    merged: Merged, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, settings, adapters, model = merged
    plain = replace(base, merged=False, proof=None)
    assert probe_merge(plain, settings, [], model, ROWS) == plain
    monkeypatch.setattr(merge_probe, "PROBE_LIMIT", 1)
    assert probe_merge(base, settings, adapters, model, ROWS) == base


def test_a_model_that_became_another_one_is_said() -> None:
    gap = {"tokens": 200, "same_first": 0.7}
    assert "only 70% of 200 probe tokens" in gap_notices(gap)[0]
    assert gap_notices({"tokens": 200, "same_first": 0.95}) == ()
