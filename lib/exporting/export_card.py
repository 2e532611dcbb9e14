"""README.md of an exported model: what it is made of, how it scored, how to serve and convert it."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote as shell

from lib.exporting.export import Exported
from lib.lineage.card import data_table, score_section
from lib.lineage.card_text import code, python_text, words, yaml_value
from lib.lineage.record import StageRecord

SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def merged_card(exported: Exported, name: str) -> str:
    """For a whole model in a folder called `name`."""
    folder, gguf, small = (shell(text) for text in (f"./{name}", f"{name}-bf16.gguf", f"{name}-Q4_K_M.gguf"))
    return f"""---
base_model: {yaml_value(exported.settings.model.base_model)}
base_model_relation: finetune
library_name: transformers
pipeline_tag: text-generation
tags:
- lora
- curriculum
---
# {words(name)}

{code(exported.settings.model.base_model)} with the updates of {_stages(exported.records)} added to its
weights: summed in fp32 and rounded once, to the number type of the base's own files. It needs no adapter.

{_quantized(exported.records)}{_about(exported)}
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({python_text(name)}, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained({python_text(name)})
```

Serve it with vLLM; the end tokens come from `generation_config.json`, the chat template from the tokenizer:

```bash
vllm serve {folder} --served-model-name {shell(name)}
```

Convert it to GGUF with llama.cpp, then quantise it:

```bash
python llama.cpp/convert_hf_to_gguf.py {folder} --outfile {gguf} --outtype bf16
llama.cpp/build/bin/llama-quantize {gguf} {small} Q4_K_M
```
"""


def adapter_card(exported: Exported, name: str, rank: int) -> str:
    """For the stacked adapter."""
    base = exported.settings.model.base_model
    served = next((served for served in SERVED_RANKS if served >= rank), rank)
    return f"""---
base_model: {yaml_value(base)}
base_model_relation: adapter
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- curriculum
---
# {words(name)}

One LoRA adapter of rank {rank} on the untouched {code(base)}: the sum of the adapters of
{_stages(exported.records)}, their ranks one after the other. Nothing was merged, so nothing was rounded.

{_about(exported)}
## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({python_text(base)}, dtype="auto")
model = PeftModel.from_pretrained(base, {python_text(name)})
tokenizer = AutoTokenizer.from_pretrained({python_text(name)})
```

Serve it with vLLM beside its base. An engine that knows no adapters on experts may leave them out without a
word: compare some answers with those of the lines above, or export the merged model instead.

```bash
vllm serve {shell(base)} --enable-lora --max-lora-rank {served} --lora-modules {shell(f"{name}=./{name}")}
```

Convert it to GGUF with llama.cpp (adapters on attention and dense layers; for experts convert the merged
model):

```bash
python llama.cpp/convert_lora_to_gguf.py {shell("./" + name)} --outfile {shell(name + ".gguf")}
```
"""


def _about(exported: Exported) -> str:
    last = exported.records[-1]
    data = "\n\n".join(f"### Stage {record.stage}\n\n{data_table(record)}" for record in exported.records)
    return f"""## Data

{data}
{score_section(last)}{_retention(last)}
## Conversations

Answers end with {_end_tokens(last)}. What the chat template makes of `<think>` blocks:

{_thinking(last)}

## Lineage

{_lineage(exported)}
"""


def _quantized(records: Sequence[StageRecord]) -> str:
    """A word about stages that saw other weights than these."""
    stages = [str(record.stage) for record in records if record.quantization != "none"]
    if not stages:
        return ""
    return (
        f"Trained on a base that was loaded in four bits (stage {', '.join(stages)}); the weights here are\n"
        "unquantised, with the same updates: answers may differ a little from those that were scored.\n\n"
    )


def _stages(records: Sequence[StageRecord]) -> str:
    return (
        f"stages {records[0].stage} to {records[-1].stage}"
        if len(records) > 1
        else f"stage {records[0].stage}"
    )


def _retention(record: StageRecord) -> str:
    kept = [entry for entry in record.evaluation["retention"] if entry["now"] is not None]
    if not kept:
        return ""
    rows = "\n".join(
        f"| {entry['stage']} | {entry['headline']} | {_score(entry['earlier'])} | {_score(entry['now'])} |"
        for entry in kept
    )
    head = "| set of stage | metric | after that stage | now |\n|---|---|---|---|"
    return f"\n## What is kept of earlier stages\n\n{head}\n{rows}\n"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _end_tokens(record: StageRecord) -> str:
    return " or ".join(code(token) for token in record.chat["end_tokens"]) or "no special token"


def _thinking(record: StageRecord) -> str:
    return "\n".join(f"- {where}: {what}" for where, what in record.chat["thinking"].items())


def _lineage(exported: Exported) -> str:
    revision = exported.settings.model.base_revision
    name = exported.settings.model.base_model + (f" at {revision}" if revision else "")
    rows = "\n".join(
        f"| stage {record.stage} | {record.finished} | `{record.adapter_sha256}` |"
        for record in exported.records
    )
    last = exported.records[-1].versions
    libraries = ", ".join(f"{key} {last[key]}" for key in ("torch", "transformers", "peft", "trl"))
    return f"""| | trained | sha256 |
|---|---|---|
| {words(name)} | | `{exported.chain.base.content}` |
{rows}

Of the base it is a hash over the contents of its files, of a stage that of its adapter. Trained with
{libraries}, code {last["code"]}."""
