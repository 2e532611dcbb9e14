"""Rows that are kept in files are the rows that are read into memory, bit for bit."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.encoded import EncodedRow
from lib.data.prepare import PreparedData, plan_rows, prepare_heldout, prepare_rows
from lib.data.reading import sources
from lib.data.reading.rows import Example
from lib.data.stage_mixture import ReplayedStage
from lib.data.stored import chunks
from lib.data.stored.encoded_shards import StoredRow
from lib.data.stored.examples import StoredExample
from lib.settings import InputError, StageSettings, load_stage
from lib.training.row_tables import training_dataset, validation_dataset

MakeSettings = Callable[..., StageSettings]
WORDS = ["alpha", "犯人", "東京都", "。", "Output:", "Answer:", "\n", "{}", '"x"', "<think>", "é", "🙂", " "]
RECORD = '{"persons": [{"name": "山田", "is_offender": %s, "act": "窃盗"}]}'
KEYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lenient": {"SFT_STRICT": 0},
    "everything is learned": {"SFT_MASK_COT": 0, "SFT_MAX_SEQ_LEN": 90},
    "packed": {"SFT_PACKING": 1, "SFT_MAX_SEQ_LEN": 400},
    "in tokens": {"SFT_MIX_UNIT": "tokens", "SFT_MAX_SEQ_LEN": 120, "SFT_ORDER": "length"},
    "few of many": {"SFT_DATASET_MIX_TOTAL_SIZE": 20, "SFT_OUTPUT_LEARN_MODE": "from_marker"},
    "negatives": {"SFT_NEGATIVE_SHARE": "0.4", "SFT_STRICT": 0},
    "upsampled": {"SFT_USE_UPSAMPLING": 1, "SFT_UPSAMPLE_RULES": '{"json": 2.0}', "SFT_GROUP_BY_LENGTH": 1},
}


def random_row(chance: random.Random) -> dict[str, Any]:
    def text() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 25))) + " end"

    def record() -> str:
        return RECORD % chance.choice(["true", "false"])

    question, answer = text(), chance.choice([text(), f"{text()}\nOutput: {text()}", record(), "Output:"])
    turns = [("user", text()), ("assistant", text())] * chance.randint(0, 2)
    messages = [{"role": role, "content": said} for role, said in turns]
    said = {"role": "assistant", "content": answer}
    own = chance.choice(
        [
            {"prompt": question, "completion": answer},
            {"instruction": question, "input": text(), "output": answer},
            {"messages": [*messages, {"role": "user", "content": question}, said]},
            {"text": text()},
        ]
    )  # fmt: skip
    return own | chance.choice([{}, {"task": "json"}, {"metadata": {"format": "toml", "complexity": "2"}}])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    chance = random.Random(5)
    rows = [random_row(chance) for _ in range(150)]
    one, other = tmp_path / "one.jsonl", tmp_path / "other.json"
    lines = [json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in [*rows[:90], *rows[:5]]]
    lines[3:3] = ["", " \t"]
    one.write_text("﻿" + "\r\n".join(lines), encoding="utf-8")
    other.write_text(json.dumps(rows[80:]), encoding="utf-8")
    return [str(one), str(other)]


@pytest.fixture
def stage(tmp_path: Path, files: list[str]) -> MakeSettings:
    def make(cache: str, **keys: Any) -> StageSettings:
        folder = tmp_path / "stages"
        folder.mkdir(exist_ok=True)
        mix = [{"id": files[0], "weight": 2.0, "split": "train[5:]"}, {"id": files[1], "weight": 1.0}]
        own = {"SFT_BASE_MODEL": "b", "SFT_OUT_LORA_DIR": "o", "SFT_STRICT": 1, "SFT_DATASET_NUM_PROC": 1}
        values = own | {"SFT_DATASET_MIX": json.dumps(mix), "SFT_CACHE_DIR": cache} | keys
        (folder / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
        return load_stage(folder, 1, environ={})

    return make


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "least_bytes", lambda: 0)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 7)


def rows(encoded: Sequence[EncodedRow]) -> list[tuple[Any, ...]]:
    return [
        (
            row.row_id, row.source, row.labels, row.status, list(row.input_ids), list(row.supervised),
            row.targets(), row.answer_tokens, row.cut_tokens, row.tokens, row.supervised_tokens, row.usable,
        )
        for row in encoded
    ]  # fmt: skip


def examples(of: Sequence[Example]) -> list[tuple[Any, ...]]:
    return [
        (e.row_id, e.source, e.index, e.key, e.labels, e.messages, e.text, e.characters, e.names_nobody)
        for e in of
    ]


def everything(data: PreparedData) -> dict[str, Any]:
    return {
        "train": rows(data.train),
        "validation": rows(data.validation),
        "examples": examples(data.mixture.train),
        "held out": examples(data.mixture.validation),
        "ledger": data.ledger,
        "after": data.ledger_after(2),
        "order": [data.schedule.epoch(number) for number in range(2)],
        "packs": data.packs,
        "sources": data.sources,
        "notices": data.notices,
        "training": training_dataset(data.train, data.packs).to_list(),
        "validating": validation_dataset(data.validation).to_list(),
    }


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_a_run_on_stored_rows_is_the_run_on_rows_in_memory(
    keys: dict[str, Any], stage: MakeSettings, chat: ChatFormat, tmp_path: Path
) -> None:
    plain = prepare_rows(stage("off", **keys), chat)
    assert not any(isinstance(row, StoredRow) for row in plain.train)
    expected = everything(plain)
    for _ in range(2):  # the second time everything is found
        stored = prepare_rows(stage(str(tmp_path / "cache"), **keys), chat)
        assert all(isinstance(row, StoredRow) for row in stored.train)
        assert all(isinstance(row, StoredExample) for row in stored.mixture.train)
        found = everything(stored)
        for name, value in expected.items():
            assert found[name] == value, name
    planned = plan_rows(stage(str(tmp_path / "cache"), **keys), chat, characters=0)
    assert planned.ledger == plain.ledger  # exact, though not a row may be tokenised


def test_rows_that_fit_nothing_and_rows_that_the_template_refuses(
    stage: MakeSettings, chat: ChatFormat, files: list[str], tmp_path: Path
) -> None:
    no_alpha = "{% if 'alpha' in messages[0].content %}{{ raise_exception('no alpha') }}{% endif %}"
    picky = ChatFormat(chat.tokenizer, chat.special_tokens, no_alpha + str(chat.template))
    with Path(files[0]).open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(json.dumps({"body": number}) for number in range(9)))
    for strict in (0, 1):
        outcomes = []
        for cache in ("off", str(tmp_path / "cache"), str(tmp_path / "cache")):
            settings = stage(cache, SFT_STRICT=strict)
            try:
                outcomes.append(everything(prepare_rows(settings, picky)))
            except InputError as error:
                outcomes.append({"error": str(error)})
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert ("error" in outcomes[0]) == bool(strict)


@pytest.mark.parametrize(
    "broken", [b'{"text": "a"}\n{"text": \n', b'{"text": "a"}\n[1]\n', b'{"text": "\xff"}\n']
)
def test_a_broken_file_is_named_as_it_is_without_a_cache(
    broken: bytes, stage: MakeSettings, chat: ChatFormat, tmp_path: Path
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(broken)
    messages = []
    for cache in ("off", str(tmp_path / "cache")):
        settings = stage(cache, SFT_DATASET_MIX="", SFT_DATASET_ID=str(path))
        with pytest.raises(InputError) as raised:
            prepare_rows(settings, chat)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_replayed_rows_and_the_evaluation_set_come_from_files_too(
    stage: MakeSettings, chat: ChatFormat, files: list[str], tmp_path: Path
) -> None:
    found = []
    for cache in ("off", str(tmp_path / "cache")):
        own = {"SFT_DATASET_MIX": "", "SFT_DATASET_ID": files[1]}
        settings = stage(cache, **own, SFT_REPLAY=0.3, SFT_GEN_EVAL_DATASET_ID=files[0])
        earlier = ReplayedStage(stage(cache))
        data = prepare_rows(settings, chat, earlier=[earlier])
        found.append((everything(data), examples(prepare_heldout(settings, data.mixture))))
    assert found[0] == found[1]
    assert found[0][0]["ledger"].replayed
