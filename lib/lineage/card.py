"""README.md of a stage folder: what this adapter is, in the Hub's model card form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.lineage.card_text import code, python_text, words, yaml_value
from lib.lineage.record import StageRecord
from lib.model.quantization import WORDING, loaded_as
from lib.settings.schema.model import Quantization


def model_card(record: StageRecord, folder: Path) -> str:
    """Markdown with the Hub's front matter; says what must be loaded under the adapter."""
    base = record.base
    quantization = record.quantization
    return f"""---
base_model: {yaml_value(base["path"])}
library_name: peft
tags:
- lora
- curriculum
---
# Stage {record.stage} of a curriculum

A LoRA adapter trained on {code(base["path"])} ({_origin(record)}{loaded_as(quantization)}).
It trains {record.adapter["trainable"]:,} parameters, {record.adapter["experts"]:,} of them in experts.

{data_table(record)}
{score_section(record)}
## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{_quantized_import(quantization)}

{_load_base(base["path"], quantization)}
{_earlier_adapters(record)}model = PeftModel.from_pretrained(base, {python_text(str(folder))})
tokenizer = AutoTokenizer.from_pretrained({python_text(str(folder))})
```

`stage.json` beside this file holds settings, data ledger, loss curve and lineage.
"""


def _origin(record: StageRecord) -> str:
    parents = ", ".join(f"stage {parent['stage']}" for parent in record.parents)
    if not parents:
        return "the stage-0 base"
    if record.merge_mode == "stack":
        return f"the stage-0 base, with the adapters of {parents} beside its weights"
    return f"{code(record.base['stage0'])} with the adapters of {parents} merged into it"


def _earlier_adapters(record: StageRecord) -> str:
    """Lines of Python that add what this adapter was trained on top of."""
    if record.merge_mode != "stack":
        return ""
    return "".join(
        f"base = PeftModel.from_pretrained(base, {python_text(parent['folder'])}).merge_and_unload()  "
        f"# this one needs stage {parent['stage']}\n"
        for parent in record.parents
    )


def _quantized_import(quantization: Quantization) -> str:
    return ", BitsAndBytesConfig" if quantization != "none" else ""


def _load_base(path: str, quantization: Quantization) -> str:
    """The lines that load the base as the adapter saw it."""
    if quantization == "none":
        return f"base = AutoModelForCausalLM.from_pretrained({python_text(path)})"
    double = quantization == "nf4-double"
    return f"""# Trained on {WORDING[quantization]}; on unquantised weights it answers a little differently.
nf4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant={double},
    bnb_4bit_compute_dtype="bfloat16",
)
base = AutoModelForCausalLM.from_pretrained({python_text(path)}, quantization_config=nf4)"""


def data_table(record: StageRecord) -> str:
    rows = (f"| {words(line['id'])} | {_trained(line):,} |" for line in record.data["ledger"]["sources"])
    return "\n".join(["| data set | rows trained |", "|---|---|", *rows])


def _trained(line: Mapping[str, Any]) -> int:
    """Rows over all steps, repeats counted."""
    return int(line["upsampled"] if line["trained"] is None else line["trained"])


def score_section(record: StageRecord) -> str:
    """Heading and table; empty for a stage without evaluation."""
    scores = record.evaluation["after"]["metrics"]
    rows = "\n".join(f"| {words(name)} | {value:.4f} |" for name, value in scores.items())
    return f"\n## Scores on held-out rows\n\n| metric | value |\n|---|---|\n{rows}\n" if rows else ""
