"""The batch of a stage, planned for this machine."""

from __future__ import annotations

from dataclasses import replace

from lib.lineage.curriculum import SurveyedStage
from lib.model.base_files import base_folder
from lib.training.sizing.batch import plan_batch, resolved
from lib.training.sizing.devices import device_memory
from lib.training.sizing.world import World


def with_batch(stage: SurveyedStage, world: World) -> SurveyedStage:
    """The stage with its batch planned for the processes and the memory of this machine: what is `auto`
    becomes a number in the settings. The identity keeps what was written, so that a stage is not stale on
    another machine.

    Raises InputError where the batch cannot be planned.
    """
    settings = stage.settings
    device = device_memory(processes=world.processes, gpus=world.gpus, card=world.card)
    batch = plan_batch(settings, base_folder(settings.model), world, device)
    return replace(stage, settings=resolved(settings, batch), batch=batch)
