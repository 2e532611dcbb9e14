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
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lib.model.base_files import base_error
    from lib.model.targets import find_targets

    try:
        config = AutoConfig.from_pretrained(subject.base)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise base_error(subject.settings.model.base_model, error) from error
    found = find_targets(model, subject.settings.lora.target_modules)
    return [Verdict.ok("targets", ", ".join((*found.modules, *found.parameters)))]
