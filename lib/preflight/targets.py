"""The check of the adapter's targets on a model without weights."""

from __future__ import annotations

from collections.abc import Iterable

from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict


def targets(subject: Subject) -> Iterable[Verdict]:
    """Every name of SFT_LORA_TARGET_MODULES reaches something. The model is built from its configuration
    alone, on torch's meta device: no weight is read, no memory taken. Imports torch."""
    if subject.base is None:
        return [Verdict.warning("targets", "not tried: the base is not on this machine")]
    from lib.model.targets import targets_of_config

    model, names = subject.settings.model, subject.settings.lora.target_modules
    found = targets_of_config(subject.base, model.base_model, names)
    return [Verdict.ok("targets", ", ".join((*found.modules, *found.parameters)))]
