"""Files of a finished stage that somebody changed: its status says so, and nothing is built on it."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.lineage.record import RECORD
from lib.planning.obstacles import preconditions
from lib.settings import InputError


def test_the_adapter_file_was_exchanged(trained: Any) -> None:
    weights: Path = trained.folder(3) / "adapter_model.safetensors"
    weights.write_bytes(b"someone else's")
    (reason,) = trained.surveyed(3).status.reasons
    assert "not the one that was recorded" in reason
    weights.unlink()
    assert trained.state(3) == "stale"


def test_an_adapter_configuration_was_changed(trained: Any) -> None:
    (trained.folder(1) / "adapter_config.json").write_text('{"lora_alpha": 64}')
    first, second, _ = trained.survey()
    assert first.status.reasons == ("its adapter_config.json is not the one that was recorded",)
    assert second.status.reasons == ("stage 1 was retrained", "stage 1 is stale")


def test_the_template_beside_the_adapter_was_changed(trained: Any) -> None:
    (trained.folder(1) / "chat_template.jinja").write_text("{{ messages }}")
    first, second, _ = trained.survey()
    assert first.status.reasons == ("its chat_template.jinja is not the one that was recorded",)
    assert second.status.reasons == ("stage 1 is stale",)


def test_the_record_was_changed_by_hand(trained: Any) -> None:
    path = trained.folder(1) / RECORD
    path.write_text(path.read_text().replace('"gen_parse_rate": 0.5', '"gen_parse_rate": 0.9'))
    assert trained.surveyed(1).status.reasons == ("its stage.json was changed by hand",)
    path.write_text("{")
    (reason,) = trained.surveyed(1).status.reasons
    assert reason.startswith("its stage.json is damaged")
    with pytest.raises(InputError, match=r"stage\.json is damaged") as caught:
        preconditions(trained.surveyed(2))
    assert len(caught.value.problems) == 1


def test_a_record_that_was_changed_into_nonsense_is_only_stale(trained: Any) -> None:
    """Also for the stages built on it, which read what it says."""
    path = trained.folder(1) / "stage.json"
    content = json.loads(path.read_text())
    for name in ("base", "parents", "training", "evaluation", "files", "settings", "identity", "data"):
        for nonsense in (None, 5, "text", [1], {"x": {}}):
            path.write_text(json.dumps({**content, name: nonsense}))
            assert trained.surveyed(1).status.reasons == ("its stage.json was changed by hand",)
            assert trained.surveyed(2).status.state in {"stale", "missing"}
