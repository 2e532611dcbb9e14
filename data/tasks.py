"""Fine-tuning rows: a prompt that asks for a format, and an answer of a short plan and the document."""

from __future__ import annotations

import random
from typing import Any

from data.descriptions import describe
from data.formats import FORMATS, holds, write
from data.schemas import Document, Schema, draw_document, draw_table

Row = dict[str, Any]

SYSTEM = "You write {target}. Plan in two lines, then give the document."
SYSTEM_JA = "あなたは{target}を書きます。二行で計画し、それから文書を書いてください。"
CONVERT_PROMPTS = (
    "Convert this {source} {name} to {target}:\n{text}",
    "Turn the {name} below from {source} into {target}.\n{text}",
    "{text}\nChange this {name} from {source} to {target}.",
)  # fmt: skip
CONVERT_PROMPTS_JA = (
    "次の{source}の{name}を{target}に変換してください。\n{text}",
    "この{name}を{source}から{target}に直してください。\n{text}",
)  # fmt: skip
TEXT_PROMPTS = ("Write this {name} as {target}:\n{text}", "{text}\nPut the {name} into {target}.")
TEXT_PROMPTS_JA = (
    "次の{name}を{target}で書いてください。\n{text}", "{text}\nこの{name}を{target}にしてください。",
)  # fmt: skip
SOURCE_WEIGHTS = {"json": 5, "yaml": 4, "toml": 3, "xml": 4, "csv": 4, "text": 5}


def table_or_tree_formats(table: bool) -> tuple[str, ...]:
    """Only flat records fit into CSV."""
    return FORMATS if table else FORMATS[:-1]


def planned(document: Document, schema: Schema, check: str, text: str) -> str:
    """A plan of two lines, then the document."""
    (first, *_) = document.values()
    table = len(document) == 1 and isinstance(first, list) and first and isinstance(first[0], dict)
    keys = ", ".join(first[0] if table else document)
    return f"Approach:\n1. Read the {schema.name}: {keys}.\n2. {check}\n\nOutput:\n{text}"


def answer(document: Document, schema: Schema, target: str, text: str) -> str:
    """The plan's last line names the format: the choice is made in words, close to where it is needed."""
    return planned(document, schema, f"I write {target.upper()}.", text)


def chat_markup(system: str | None, prompt: str, answer: str) -> str:
    """The same text as the model's chat template gives."""
    turns = [("system", system)] if system else []
    turns += [("user", prompt), ("assistant", answer)]
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


def attributed(rng: random.Random, document: Document) -> Document:
    """The first key as an XML attribute, spelt `@key` in the other formats."""
    (key, value), *rest = document.items()
    return {f"@{key}": value, **dict(rest)}


def contains_empty(value: Any) -> bool:
    """Empty strings and lists: XML, CSV and prose do not tell one from the other."""
    if isinstance(value, dict):
        return any(map(contains_empty, value.values()))
    return value in ("", []) or (isinstance(value, list) and any(map(contains_empty, value)))


def source_for(rng: random.Random, document: Document, target: str, table: bool, hard: bool) -> str:
    """Where the document comes from: another format that can hold all of it, or a text."""
    possible = {*table_or_tree_formats(table), "text"} - {target}
    if contains_empty(document):
        possible -= {"xml", "csv"}
    if hard:
        possible -= {"text"}
    names = [name for name in SOURCE_WEIGHTS if name in possible]
    return rng.choices(names, [SOURCE_WEIGHTS[name] for name in names])[0]


def prompt_for(
    rng: random.Random, document: Document, schema: Schema, source: str, target: str, japanese: bool
) -> str:
    """The request; it names the schema, because XML needs a root element that other formats do not show."""
    prompts: tuple[str, ...]
    if source == "text":
        prompts, text = (TEXT_PROMPTS_JA if japanese else TEXT_PROMPTS), describe(document, japanese)
    else:
        prompts = CONVERT_PROMPTS_JA if japanese and rng.random() < 0.6 else CONVERT_PROMPTS
        text = write(document, source, schema.name)
    return rng.choice(prompts).format(
        name=schema.name, source=source.upper(), target=target.upper(), text=text
    )


def make_row(rng: random.Random, schema: Schema, target: str, hard: bool) -> Row:
    """One conversion into `target`; its answer provably holds the source's data."""
    japanese = rng.random() < (0.35 if hard else 0.18)
    table = target == "csv" or rng.random() < 0.15
    complexity = rng.choices(("simple", "medium", "complex"), (1, 4, 3) if hard else (5, 4, 1))[0]
    if table:
        document = draw_table(rng, schema, japanese, hard)
        complexity = "medium"
    else:
        document = draw_document(rng, schema, complexity, japanese, hard)
        if hard and target in ("json", "xml") and rng.random() < 0.4:
            document = attributed(rng, document)
    source = source_for(rng, document, target, table, hard)
    text = write(document, target, schema.name)
    assert holds(text, target, document, schema.name), (target, document, text)
    prompt = prompt_for(rng, document, schema, source, target, japanese)
    system = (SYSTEM_JA if japanese and rng.random() < 0.3 else SYSTEM).format(target=target.upper())
    return {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer(document, schema, target, text)},
        ],
        "metadata": {
            "format": target,
            "type": f"{source}_to_{target}",
            "schema": schema.name,
            "complexity": complexity,
        },
    }
