"""The stage's training keys as TRL's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lib.settings import StageSettings, TrainingSettings
from lib.settings.metrics import direction
from lib.training.sizing.world import World
from lib.training.zero import deepspeed_config

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig


def trainer_arguments(
    settings: StageSettings, *, world: World, dtype: torch.dtype, evaluates: bool
) -> SFTConfig:
    """Every training key of the stage as TRL's own configuration."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(settings.stage_dir),
        seed=settings.seed,
        data_seed=settings.seed,
        **_optimisation(settings.training),
        **_cadence(settings.training, evaluates=evaluates),
        **_machine(settings, world, dtype),
        # The router is frozen: a balancing loss would only push the adapters about, once per
        # micro-batch, and make the result depend on how the batch is cut up.
        router_aux_loss_coef=0.0,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        disable_tqdm=True,
    )


def machine_remarks(settings: StageSettings, world: World) -> list[str]:
    """What the stage asks for and this machine does in another way."""
    optimizer = settings.training.optimizer
    if world.gpus or not optimizer.startswith("paged_"):
        return []
    return [
        f"SFT_OPTIM={optimizer}: without a GPU there are no pages to move; "
        f"{optimizer.removeprefix('paged_')} computes the same"
    ]


def _optimisation(training: TrainingSettings) -> dict[str, Any]:
    """How long, in what batches, at what rate."""
    return {
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.micro_batch,
        "per_device_eval_batch_size": training.per_device_eval_bs,
        "gradient_accumulation_steps": training.grad_accum,
        "learning_rate": training.lr,
        "lr_scheduler_type": training.lr_scheduler,
        "lr_scheduler_kwargs": {"min_lr_rate": training.min_lr_ratio}
        if training.lr_scheduler == "cosine_with_min_lr"
        else {},
        # Below 1 transformers reads warmup_steps as a share of all steps.
        "warmup_steps": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optimizer,
    }


def _cadence(training: TrainingSettings, *, evaluates: bool) -> dict[str, Any]:
    """When it logs, evaluates and saves, and which weights it keeps."""
    return {
        "logging_steps": training.logging_steps,
        "logging_first_step": True,
        # It would put a mean in the place of a loss that is not a number; the guard of the numbers says it.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": training.eval_steps,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": None,  # Checkpoints.rotate keeps the best ones
        # Weights can only be gone back to where they were saved.
        "load_best_model_at_end": evaluates and training.save_steps % training.eval_steps == 0,
        "metric_for_best_model": training.best_metric if evaluates else None,
        "greater_is_better": direction(training.best_metric) == "max" if evaluates else None,
    }


def _machine(settings: StageSettings, world: World, dtype: torch.dtype) -> dict[str, Any]:
    """Precision, device, and how the processes share the work."""
    import torch

    on_gpu = world.gpus > 0
    checkpointing = settings.model.gradient_checkpointing == "1"
    return {
        "bf16": dtype == torch.bfloat16,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "deepspeed": deepspeed_config(settings.training, processes=world.processes, gpus=world.gpus)
        if world.shards(settings.training)
        else None,
        # Every factor gets a gradient in every pass, that of an expert without tokens is 0: there is nothing
        # to look for, and looking takes time.
        "ddp_find_unused_parameters": False,
        "ddp_timeout": settings.training.ddp_timeout,
    }
