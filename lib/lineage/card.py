"""README.md of a stage folder: what this adapter is, in the Hub's model card form."""

from __future__ import annotations

from pathlib import Path

from lib.lineage.record import StageRecord


def model_card(record: StageRecord, folder: Path) -> str:
    """Markdown with the Hub's front matter; says what must be loaded under the adapter."""
    base = record.base
    rows = "\n".join(f"| {line['id']} | {line['upsampled']:,} |" for line in record.data["ledger"]["sources"])
    parents = ", ".join(f"stage {parent['stage']}" for parent in record.parents)
    origin = (
        f"`{base['stage0']}` with the adapters of {parents} merged into it" if parents else "the stage-0 base"
    )
    scores = "\n".join(
        f"| {name} | {value:.4f} |" for name, value in record.evaluation["after"]["metrics"].items()
    )
    score_table = (
        f"\n## Scores on held-out rows\n\n| metric | value |\n|---|---|\n{scores}\n" if scores else ""
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

| data set | rows trained |
|---|---|
{rows}
{score_table}
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
