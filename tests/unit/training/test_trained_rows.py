"""The ledger of a real run, counted again from the batches that were trained on."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import plan_rows, prepare_rows
from lib.settings import StageSettings


def make_data(folder: Path) -> dict[str, str]:
    for name, count in (("a", 24), ("b", 9)):
        rows = [
            {"prompt": f"{name}{i}", "completion": "x" * (1 + i % 7), "task": f"t{i % 3}"}
            for i in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mix = [{"id": str(folder / "a.jsonl")}, {"id": str(folder / "b.jsonl"), "weight": 2.0}]
    return {"SFT_DATASET_MIX": json.dumps(mix), "SFT_UPSAMPLE_RULES": '{"t0": 1.5}'}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"SFT_ORDER": "length", "SFT_ORDER_PACING": "root"},
        {"SFT_GROUP_BY_LENGTH": 1},
        {"SFT_PACKING": 1, "SFT_MAX_SEQ_LEN": 128},
    ],
)
def test_plan_batches_and_record_agree(
    tiny_model: Callable[..., Path],
    stage: Callable[..., StageSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, Any],
) -> None:
    import torch

    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.stage_trainer import StageTrainer
    from lib.training.trainer import fit

    folder = tiny_model("qwen3_moe")
    batch = {"SFT_PER_DEVICE_TRAIN_BS": 3, "SFT_GRAD_ACCUM": 2, "SFT_EPOCHS": 1.5, "SFT_VAL_RATIO": 0}
    data_keys = {**make_data(tmp_path), "SFT_USE_UPSAMPLING": 1, "SFT_GEN_EVAL_SAMPLES": 0}
    settings = stage(SFT_BASE_MODEL=folder, SFT_DATASET_ID="", **data_keys, **batch, **keys)
    chat = ChatFormat.load(folder)
    assert chat is not None
    data = prepare_rows(settings, chat)
    base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
    model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
    form = choose_batch_form(model, data.train, packing=False)
    model, _ = attach_lora(model, find_targets(model, settings.lora.target_modules), settings.lora, seed=1)

    trained: list[tuple[int, ...]] = []
    train = StageTrainer.training_step

    def watched(self: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        lengths = inputs["cu_seq_lens_q"].diff().tolist()
        trained.extend(tuple(ids.tolist()) for ids in inputs["input_ids"][0].split(lengths))
        return train(self, model, inputs, *rest)

    monkeypatch.setattr(StageTrainer, "training_step", watched)
    processes = Processes(settings, World(1, 0), torch.float32, evaluates=False)
    result = fit(model, load_tokenizer(settings.model), data, (), settings, processes, form, callbacks=[])

    by_ids = {tuple(row.input_ids): row for row in data.train}
    rows = [by_ids[ids] for ids in trained]
    ledger = data.ledger_after(result.steps)
    assert ledger == data.ledger == plan_rows(settings, chat).ledger
    assert ledger.trained == len(rows)
    of_source = Counter(row.source for row in rows)
    assert {line.id: line.trained for line in ledger.sources} == of_source
    of_label = Counter((label.field, label.value) for row in rows for label in row.labels)
    assert {(line.field, line.value): line.trained for line in ledger.labels} == of_label
    planned = [
        data.train[i] for epoch in (0, 1) for pack in data.order.epoch(epoch) for i in data.packs[pack]
    ]
    assert rows == planned[: len(rows)]
