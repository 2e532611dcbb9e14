"""What documents are about: named schemas of fields, and the sampling of documents from them.

A schema has flat fields, one section (a nested mapping), one list of words and one list of records. A
document takes some of them, by complexity. `HELD_OUT` schemas appear in the held-out set and nowhere
else, pretraining included.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from data.values import ENGLISH, draw_value, made_up_word, words

Fields = dict[str, str]
Document = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """`name` is the root element in XML; `fields`, `section`, `records` map a key to a kind of value."""

    name: str
    japanese_name: str
    fields: Fields
    section: tuple[str, Fields]
    words: tuple[str, str]
    records: tuple[str, Fields]


def parse_fields(text: str) -> Fields:
    """`title:title author:person` → a mapping; a bare `city` is its own kind."""
    pairs = (item.split(":") for item in text.split())
    return {pair[0]: pair[-1] for pair in pairs}


def parse_schema(line: str) -> Schema:
    """`name|japanese|fields|section: fields|words: kind|records: fields`."""
    name, japanese, fields, section, words, records = (part.strip() for part in line.split("|"))
    section_key, section_fields = section.split(" ", 1)
    records_key, record_fields = records.split(" ", 1)
    words_key, words_kind = words.split()
    return Schema(
        name, japanese, parse_fields(fields), (section_key, parse_fields(section_fields)),
        (words_key, words_kind), (records_key, parse_fields(record_fields)),
    )  # fmt: skip


def parse_schemas(text: str) -> list[Schema]:
    """One schema a line; an indented line goes on with the one before."""
    return [parse_schema(line) for line in text.strip().replace("\n    ", "").splitlines()]


TRAINING = parse_schemas("""
book|本|title author:person pages:count topic year|publisher name:company city|
    tags tag|editions year language
order|注文|code customer:person total:price status city|address city country|
    notes note|lines product quantity:count
employee|社員|name:person role:topic city active:bool year|office city country|
    skills topic|projects title:title status
product|商品|name:product color price stock:count material|maker name:company country|
    tags tag|sizes unit amount:count
recipe|料理|name:food servings:count minutes:count level|author name:person city|
    tags tag|ingredients food amount:count
server|サーバー|host status cores:count public:bool level|network zone:city host|
    roles tag|disks size:count material
event|行事|title city weekday guests:count open:bool|venue name:company city|
    topics topic|speakers name:person topic
pet|ペット|name:word animal color age:count owner:person|clinic name:company city|
    foods food|visits weekday note
invoice|請求書|code company total:price paid:bool year|client name:person city|
    notes note|items product price
course|講座|title teacher:person level hours:count language|room city floor:count|
    topics topic|lessons title weekday
movie|映画|title director:person year minutes:count topic|studio name:company country|
    languages language|cast name:person role:animal
ticket|問い合わせ|code owner:person status level note|team name:company city|
    labels tag|steps note done:bool
hotel|宿|name:company city stars:count open:bool price|manager name:person language|
    services food|rooms color price
task|作業|title owner:person status hours:count weekday|project name:title level|
    labels tag|checks note done:bool
shipment|配送|code company city status note|driver name:person language|
    stops city|boxes product quantity:count
contact|連絡先|name:person company city language note|home city country|groups topic|phones unit code
sensor|センサー|code city unit value:price active:bool|site name:company country|
    labels tag|readings weekday value:price
playlist|曲集|title owner:person songs:count public:bool topic|source name:company language|
    moods tag|tracks title minutes:count
""")

# Their words are known from elsewhere, their combinations are not.
HELD_OUT = parse_schemas("""
store|店舗|name:company city size:count open:bool level|manager name:person language|
    tags tag|stock product amount:count
school|学校|title city rooms:count public:bool language|teacher name:person topic|
    topics topic|week weekday hours:count
garden|庭|owner:person city size:count unit open:bool|home city color|
    foods food|items material height:count
camera|カメラ|company color price weight:count material|owner name:person city|
    labels tag|output unit amount:count
team|チーム|title city level size:count weekday|manager name:person country|
    groups topic|group name:person role:topic
phone|電話|company color price stock:count status|store city country|
    moods tag|input host level
zone|区域|code country level size:count active:bool|region city language|
    languages language|target city value:price
travel|旅|title owner:person hours:count topic price|start city country|
    services food|visits city weekday
""")

ANY_KEYS = words(
    "name title code owner city country color status level topic note unit price total count year size "
    "active open public language material company author manager team group role kind type label value "
    "amount number items list date day week start end first second left right main extra home work "
    "school store room floor street region zone source target input output mode state rank score grade "
    "limit min max width height depth weight speed version"
)
ANY_KINDS = [*ENGLISH, *ENGLISH, "person", "person", "word", "word", "count", "price", "year", "bool", "code"]


def improvised_schema(rng: random.Random) -> Schema:
    """A schema made on the spot from loose keys, for pretraining: structure without a theme to remember."""

    def key() -> str:
        return rng.choice(ANY_KEYS) if rng.random() < 0.7 else made_up_word(rng)

    def fields(count: int) -> Fields:
        return {key(): rng.choice(ANY_KINDS) for _ in range(count)}

    name, section, words, records = (f"{key()}_{part}" if rng.random() < 0.3 else key() for part in "abcd")
    taken = fields(5)
    for clash in (section, words, records):
        taken.pop(clash, None)
    if len({section, words, records}) < 3 or not taken:
        return improvised_schema(rng)
    return Schema(
        name, name, taken, (section, fields(2)), (words, rng.choice(list(ENGLISH))), (records, fields(2))
    )


def draw_fields(rng: random.Random, fields: Fields, japanese: bool, hard: bool) -> Document:
    """Values for some fields; `hard` replaces about half of the text values by tricky or empty strings."""
    document: Document = {}
    for key, kind in fields.items():
        value = draw_value(rng, kind, japanese)
        if hard and isinstance(value, str) and rng.random() < 0.5:
            value = "" if rng.random() < 0.12 else draw_value(rng, "tricky", japanese)
        document[key] = value
    return document


def some_fields(rng: random.Random, fields: Fields, low: int, high: int) -> Fields:
    """A subset in schema order: the order of keys is then predictable, their choice is not."""
    count = min(len(fields), rng.randint(low, high))
    chosen = set(rng.sample(list(fields), count))
    return {key: kind for key, kind in fields.items() if key in chosen}


def draw_document(
    rng: random.Random, schema: Schema, complexity: str, japanese: bool, hard: bool = False
) -> Document:
    """simple: flat; medium: also a section or a list of words; complex: also a list of records."""
    flat = some_fields(
        rng, schema.fields, *{"simple": (3, 5), "medium": (2, 4), "complex": (1, 2)}[complexity]
    )
    document = draw_fields(rng, flat, japanese, hard)
    if complexity == "simple":
        return document
    section_key, section_fields = schema.section
    words_key, words_kind = schema.words
    if rng.random() < 0.5:
        document[section_key] = draw_fields(rng, section_fields, japanese, hard)
    else:
        size = 0 if hard and rng.random() < 0.3 else rng.randint(2, 3)
        document[words_key] = [draw_value(rng, words_kind, japanese) for _ in range(size)]
    if complexity == "complex":
        records_key, record_fields = schema.records
        document[records_key] = [draw_fields(rng, record_fields, japanese, hard) for _ in range(2)]
    return document


def draw_table(rng: random.Random, schema: Schema, japanese: bool, hard: bool = False) -> Document:
    """Flat records under one key, the schema's name: what CSV can hold."""
    fields = some_fields(rng, schema.fields, 2, 4)
    rows = [
        draw_fields(rng, fields, japanese, hard) for _ in range(rng.randint(2, 4 if len(fields) < 4 else 3))
    ]
    return {schema.name: rows}
