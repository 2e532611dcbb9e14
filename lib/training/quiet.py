"""Keeps the libraries' chatter out of what a person reads; errors and our own lines stay."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence progress bars of loading, INFO lines and deprecation notes meant for library authors."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    chatty = "mlflow alembic deepspeed DeepSpeed accelerate torch.distributed"
    for name in chatty.split():
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch|accelerate)\b"
    )
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\b")
    # Said by `machine_remarks`, once and in the record.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    # Stacked adapters stand on the stage-0 base, not on the merged one that each was trained on: meant.
    warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path` was renamed")
