"""README.md of a stage folder: what this adapter is, in the Hub's model card form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.lineage.record import StageRecord


def model_card(record: StageRecord, folder: Path) -> str:
    """Markdown with the Hub's front matter; says what must be loaded under the adapter."""
    base = record.base
    parents = ", ".join(f"stage {parent['stage']}" for parent in record.parents)
    origin = (
        f"`{base['stage0']}` with the adapters of {parents} merged into it" if parents else "the stage-0 base"
    )
    return f"""---
base_model: {base["path"]}
library_name: peft
tags:
- lora
- curriculum
---
# Stage {record.stage} of a curriculum

A LoRA adapter trained on `{base["path"]}` ({origin}).
It trains {record.adapter["trainable"]:,} parameters, {record.adapter["experts"]:,} of them in experts.

{data_table(record)}
{score_section(record)}
## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base["path"]}")
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```

`stage.json` beside this file holds settings, data ledger, loss curve and lineage.
"""


def data_table(record: StageRecord) -> str:
    rows = (f"| {line['id']} | {_trained(line):,} |" for line in record.data["ledger"]["sources"])
    return "\n".join(["| data set | rows trained |", "|---|---|", *rows])


def _trained(line: Mapping[str, Any]) -> int:
    """Rows over all steps, repeats counted."""
    return int(line["upsampled"] if line["trained"] is None else line["trained"])


def score_section(record: StageRecord) -> str:
    """Heading and table; empty for a stage without evaluation."""
    scores = record.evaluation["after"]["metrics"]
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in scores.items())
    return f"\n## Scores on held-out rows\n\n| metric | value |\n|---|---|\n{rows}\n" if rows else ""
