"""Pretraining text: what a base model should have seen before any stage, without the stages' own tasks.

It shows documents, repeats them, and shows one document in two formats in a row; chats give a document
back unchanged. Conversion on request is left to the stages. Chats do use the plan-then-output form,
because stages may mask the plan from the loss, and then the base itself must be able to write one.
"""

from __future__ import annotations

import json
import random

from data.descriptions import describe
from data.formats import FORMATS, write
from data.schemas import TRAINING, Document, Schema, draw_document, draw_table, improvised_schema
from data.tasks import answer, chat_markup, planned, table_or_tree_formats
from data.values import ENGLISH, JAPANESE, draw_value, made_up_word, person

HEADERS = ("{name}:\n{text}", "# {name}\n{text}", "[{name}]\n{text}", "```{lower}\n{text}\n```", "{text}")
REPEAT_PROMPTS = (
    "Repeat this {name}:\n{text}", "Say the same {name} again.\n{text}", "{text}\nCopy the {name} above.",
    "次の{name}を繰り返してください。\n{text}", "{text}\n同じ{name}をもう一度。",
)  # fmt: skip
REPEAT_SYSTEMS = (
    "You are a careful copyist.", "You repeat what you are given.", "あなたは正確な写し手です。",
)  # fmt: skip
CHECKS = ("Keep every value and its order.", "Copy each value as it is.", "Write all of them, add nothing.")
COMPOSE_SYSTEMS = ("You write {target}.", "Please write {target}.", "{target}を書きます。")
COMPOSE_PROMPTS = (
    "Invent a {target} {name} with {keys}.",
    "Show a {target} {name}, not a {other} one. It has {keys}.",
    "I know {other}, show me {target}: a {name} with {keys}.",
    "Instead of a {other} {name} make up one in {target}. Keys: {keys}.",
)
COMPOSE_PROMPTS_JA = (
    "{keys}のある{name}の例を{target}で作ってください。",
    "{other}ではなく{target}で{name}の例を見せてください。項目は{keys}です。",
)
SENTENCES = (
    "This file is read once a day and written by hand.",
    "Please check the values before you send them.",
    "A list keeps its order, a mapping keeps its keys.",
    "Every key has one value and every value has a type.",
    "We met in the morning and talked about the weather.",
    "The shop opens at nine and closes in the evening.",
    "この文書は毎日一度だけ読み込まれます。",
    "送る前に値を確認してください。",
    "順番を変えずに、すべての項目を書きます。",
    "今日は天気が良いので、散歩に行きました。",
    "店は朝九時に開き、夕方に閉まります。",
    "名前と住所を書いてください。",
)


def sample(rng: random.Random) -> tuple[Document, Schema, bool, bool]:
    """A document with its schema, whether it is Japanese, and whether it is a table."""
    schema = rng.choice(TRAINING) if rng.random() < 0.35 else improvised_schema(rng)
    japanese, hard, table = rng.random() < 0.22, rng.random() < 0.12, rng.random() < 0.3
    if table:
        return draw_table(rng, schema, japanese, hard), schema, japanese, True
    complexity = rng.choices(("simple", "medium", "complex"), (4, 4, 2))[0]
    return draw_document(rng, schema, complexity, japanese, hard), schema, japanese, False


def with_header(rng: random.Random, name: str, text: str) -> str:
    return rng.choice(HEADERS).format(name=name.upper(), lower=name, text=text)


def plain(rng: random.Random) -> str:
    document, schema, _, table = sample(rng)
    target = rng.choice(table_or_tree_formats(table))
    return with_header(rng, target, write(document, target, schema.name))


def repeated(rng: random.Random) -> str:
    text = plain(rng)
    return f"{text}\n\n{text}"


def in_two_formats(rng: random.Random) -> str:
    """The same document in two formats under headers of one style: the ground that conversion stands on."""
    document, schema, _, table = sample(rng)
    header = rng.choice(HEADERS)
    pair = rng.sample(table_or_tree_formats(table), 2)
    texts = [write(document, target, schema.name) for target in pair]
    shown = [
        header.format(name=name.upper(), lower=name, text=text)
        for name, text in zip(pair, texts, strict=True)
    ]
    return "\n\n".join(shown)


def in_words(rng: random.Random) -> str:
    document, schema, japanese, table = sample(rng)
    if any(value in ("", []) for value in document.values()):
        return in_words(rng)
    target = rng.choice(table_or_tree_formats(table))
    parts = [describe(document, japanese), with_header(rng, target, write(document, target, schema.name))]
    return "\n\n".join(parts if rng.random() < 0.7 else parts[::-1])


def word_list(rng: random.Random) -> str:
    """Values in a row, then again: induction with nothing else around it."""
    kind = rng.choice([*ENGLISH, "word", "word", "word", "tricky", "person", "code"])
    japanese = rng.random() < 0.35
    words = [str(draw_value(rng, kind, japanese)) for _ in range(rng.randint(4, 8))]
    join = rng.choice(("\n", ", ", " ", " - ", "、"))
    return "\n\n".join([join.join(words)] * rng.randint(2, 3))


def chat_repeat(rng: random.Random) -> str:
    """A chat whose answer is the given document, unchanged, mostly after a plan."""
    document, schema, japanese, table = sample(rng)
    target = rng.choice(table_or_tree_formats(table))
    text = write(document, target, schema.name)
    name = schema.japanese_name if japanese else schema.name
    prompt = rng.choice(REPEAT_PROMPTS).format(name=name, text=text)
    said = planned(document, schema, rng.choice(CHECKS), text) if rng.random() < 0.75 else text
    system = rng.choice(REPEAT_SYSTEMS) if rng.random() < 0.7 else None
    return chat_markup(system, prompt, said)


def chat_compose(rng: random.Random) -> str:
    """A chat that asks for an invented document by the name of its format: requests must mean something.

    TOML and CSV are rarer than the others: what they look like on request is the second stage's subject.
    """
    target, other = rng.choices(FORMATS, (3, 3, 2, 3, 2))[0], rng.choice(FORMATS)
    document, schema, japanese, table = sample(rng)
    if table != (target == "csv") and (target == "csv" or rng.random() < 0.5):
        return chat_compose(rng)
    keys = ", ".join(next(iter(document.values()))[0] if table else document)
    prompts = COMPOSE_PROMPTS_JA if japanese and rng.random() < 0.6 else COMPOSE_PROMPTS
    names = {"target": target.upper(), "other": other.upper() if other != target else "HTML"}
    prompt = rng.choice(prompts).format(name=schema.name, keys=keys, **names)
    system = rng.choice(COMPOSE_SYSTEMS).format(**names) if rng.random() < 0.7 else None
    return chat_markup(system, prompt, with_or_without_plan(rng, document, schema, target))


def with_or_without_plan(rng: random.Random, document: Document, schema: Schema, target: str) -> str:
    text = write(document, target, schema.name)
    return answer(document, schema, target, text) if rng.random() < 0.9 else text


def chat_repeat_named(rng: random.Random) -> str:
    """As `chat_repeat`, with the format named in the request or in the system message."""
    document, schema, japanese, table = sample(rng)
    target = rng.choice(table_or_tree_formats(table))
    name = f"{target.upper()} {schema.japanese_name if japanese else schema.name}"
    prompt = rng.choice(REPEAT_PROMPTS).format(name=name, text=write(document, target, schema.name))
    system = rng.choice(COMPOSE_SYSTEMS).format(target=target.upper()) if rng.random() < 0.7 else None
    return chat_markup(system, prompt, with_or_without_plan(rng, document, schema, target))


def chat_lookup(rng: random.Random) -> str:
    """A chat that asks for single values of a document."""
    document, schema, japanese, table = sample(rng)
    target = rng.choice(table_or_tree_formats(table))
    texts = {key: value for key, value in document.items() if isinstance(value, str)}
    fields = next(iter(document.values()))[-1] if table else texts
    text = write(document, target, schema.name)
    key = rng.choice(list(fields or document))
    question = f"{key}は何ですか。" if japanese else f"What is the {'last ' if table else ''}{key}?"
    value = (fields or document)[key]
    return chat_markup(None, f"{text}\n{question}", value if isinstance(value, str) else json.dumps(value))


def prose(rng: random.Random) -> str:
    names = [person(rng, rng.random() < 0.4) for _ in range(3)]
    place = rng.choice(rng.choice((ENGLISH, JAPANESE))["city"])
    return " ".join([*rng.sample(SENTENCES, 4), *names, place, made_up_word(rng), made_up_word(rng, True)])


MAKERS = (
    (in_two_formats, 38), (repeated, 14), (in_words, 12), (plain, 8), (word_list, 9), (chat_repeat, 14),
    (chat_lookup, 4), (prose, 1),
)  # fmt: skip


CHAT_MAKERS = ((chat_compose, 45), (chat_repeat_named, 20), (in_two_formats, 20), (in_words, 15))


def pretraining_text(rng: random.Random, chatty: bool = False) -> str:
    """One pretraining text, of the closing mix if `chatty`. The same state of `rng` gives the same text."""
    makers, weights = zip(*(CHAT_MAKERS if chatty else MAKERS), strict=True)
    text: str = rng.choices(makers, weights)[0](rng)
    return text
