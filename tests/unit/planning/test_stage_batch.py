from typing import Any

import pytest

from lib.planning import stage_batch
from lib.planning.stage_batch import with_batch
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.world import World


def test_auto_is_known_by_the_word_and_not_by_what_a_machine_makes_of_it(
    curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained where two rows fit; elsewhere four do."""
    curriculum.stage(1, SFT_PER_DEVICE_TRAIN_BS="auto", SFT_GLOBAL_BATCH_SIZE=16)
    resolved = []
    for gigabytes in (0, 10**4):
        device = DeviceMemory(gigabytes * 10**9, "a machine")
        monkeypatch.setattr(stage_batch, "device_memory", lambda device=device, **_: device)
        stage = with_batch(curriculum.surveyed(1), World(1, 0))
        resolved.append(stage.settings.training.micro_batch)
        if gigabytes == 0:
            curriculum.train(1)
        assert stage.identity["SFT_PER_DEVICE_TRAIN_BS"] == "auto"
    assert resolved[0] < resolved[1]
    assert curriculum.state(1) == "complete"
