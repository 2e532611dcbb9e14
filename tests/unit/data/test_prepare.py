import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import load_examples, plan_rows, prepare_rows
from lib.settings.errors import InputError
from lib.settings.schema import StageSettings

MakeSettings = Callable[..., StageSettings]


def test_rows_ledger_and_records_of_a_run(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    toml = data_file([f"Approach\nOutput: {i}" for i in range(20)], "toml.jsonl", task="toml")
    csv = data_file([f"hello {i}" for i in range(10)], "csv.jsonl", task="csv")
    mix = json.dumps([{"id": toml, "weight": 1.0}, {"id": csv, "weight": 1.0}])
    settings = stage(
        SFT_DATASET_MIX=mix, SFT_VAL_RATIO=0.1, SFT_USE_UPSAMPLING=1, SFT_UPSAMPLE_RULES='{"toml": 2.0}'
    )
    prepared = prepare_rows(settings, chat)
    ledger = prepared.ledger
    assert len(prepared.train) == ledger.upsampled == 27
    assert len(prepared.validation) == ledger.validation == 3
    assert [source.name for source in prepared.sources] == [toml, csv]
    assert ledger.encoded is not None
    assert ledger.encoded.rows == 27
    assert ledger.encoded.tokens == sum(len(row.input_ids) for row in prepared.train)
    assert ledger.encoded.supervised == sum(row.supervised_tokens for row in prepared.train)
    assert ledger.validation_encoded is not None
    assert ledger.validation_encoded.rows == 3
    per_source = [line.encoded for line in ledger.sources]
    assert [count.rows for count in per_source if count] == [18, 9]
    label = next(line for line in ledger.labels if line.value == "toml")
    assert label.encoded == per_source[0]
    assert not ledger.estimated
    assert json.loads(json.dumps(ledger.to_json()))["encoded"]["rows"] == 27


def test_problems_of_all_data_sets_are_raised_together(
    stage: MakeSettings, tmp_path: Path, chat: ChatFormat
) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text('{"body": "x"}\n')
    ids = f"{tmp_path}/one.jsonl,{tmp_path}/two.jsonl"
    with pytest.raises(InputError) as caught:
        prepare_rows(stage(SFT_DATASET_IDS=ids), chat)
    assert [problem.where for problem in caught.value.problems] == [f"{name}#0" for name in ids.split(",")]


def test_rows_that_the_template_refuses(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat, tokenizer: Any
) -> None:
    refusing = "{% if 'bad' in messages[1].content %}{{ raise_exception('bad row') }}{% endif %}" + (
        chat.template or ""
    )
    picky = ChatFormat(tokenizer, {"eos_token": "<|im_end|>"}, refusing)
    file = data_file(["fine", "bad", "good"])
    with pytest.raises(InputError, match="bad row"):
        prepare_rows(stage(SFT_DATASET_ID=file, SFT_VAL_RATIO=0), picky)
    prepared = prepare_rows(stage(SFT_DATASET_ID=file, SFT_VAL_RATIO=0, SFT_STRICT=0), picky)
    assert len(prepared.train) == 2
    assert prepared.ledger.encoded is not None
    assert prepared.ledger.encoded.unrenderable == 1
    assert any(notice.startswith("[ERROR] the chat template refuses 1 of 3") for notice in prepared.notices)


def test_plan_and_run_agree_exactly_on_small_data(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    settings = stage(SFT_DATASET_ID=data_file([f"Output: {i}" for i in range(30)]))
    planned = plan_rows(settings, chat)
    assert planned.ledger == prepare_rows(settings, chat).ledger
    assert planned.absent == ()


def test_the_plan_of_large_data_is_a_marked_estimate(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    file = data_file([f"Output: {'hello ' * (i % 7)} {i}" for i in range(300)])
    settings = stage(SFT_DATASET_ID=file)
    exact = prepare_rows(settings, chat).ledger.encoded
    planned = plan_rows(settings, chat, characters=4000).ledger
    assert planned is not None
    assert planned.estimated
    assert planned.encoded is not None
    assert exact is not None
    assert planned.encoded.rows == exact.rows == 285
    assert planned.encoded.tokens == pytest.approx(exact.tokens, rel=0.1)


def test_a_plan_without_tokenizer_guesses(stage: MakeSettings, data_file: Callable[..., str]) -> None:
    settings = stage(SFT_DATASET_ID=data_file(["An ordinary English sentence. " * 10] * 20))
    ledger = plan_rows(settings, None).ledger
    assert ledger is not None
    assert ledger.estimated
    assert ledger.encoded is not None
    assert 100 < ledger.encoded.supervised / ledger.encoded.rows < 120


def test_a_plan_names_the_data_sets_that_are_not_here(
    stage: MakeSettings,
    data_file: Callable[..., str],
    chat: ChatFormat,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    nothing = plan_rows(stage(SFT_DATASET_ID="owner/set"), chat)
    assert (nothing.ledger, [source.id for source in nothing.absent]) == (None, ["owner/set"])
    settings = stage(
        SFT_DATASET_IDS=f"owner/set,{data_file(['a', 'b', 'c'])}",
        SFT_USE_UPSAMPLING=1,
        SFT_UPSAMPLE_RULES='{"of the absent set": 2}',
    )
    some = plan_rows(settings, chat)
    assert some.ledger is not None
    assert len(some.absent) == 1


def test_an_evaluation_set_is_loaded_like_any_other(data_file: Callable[..., str]) -> None:
    examples, notices = load_examples(data_file(["a", "b"]), "test", strict=True)
    assert [example.index for example in examples] == [0, 1]
    assert notices == ()


def test_a_plan_imports_nothing_heavy() -> None:
    import subprocess

    code = "import sys, lib.data.prepare, lib.data.chat.preview; print([m for m in sys.modules])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("torch", "transformers", "datasets", "pyarrow", "pandas", "numpy"):
        assert f"'{name}'" not in modules


def test_rows_go_from_easy_to_hard_by_declared_complexity(
    stage: MakeSettings, tmp_path: Path, chat: ChatFormat
) -> None:
    levels = ["complex", "simple", "medium"] * 8
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "q", "completion": f"a {i}", "metadata": {"complexity": level}}
        for i, level in enumerate(levels)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = stage(SFT_DATASET_ID=path, SFT_VAL_RATIO=0, SFT_ORDER="complexity", SFT_ORDER_PACING="step")
    prepared = prepare_rows(settings, chat)
    order = [prepared.train[i].labels[0].value for i in prepared.order.epoch(0)]
    assert set(order[:6]) == {"simple"}
    assert "complex" not in order[:12]
    own = stage(SFT_DATASET_ID=path, SFT_ORDER="complexity", SFT_ORDER_LEVELS="simple,medium")
    with pytest.raises(InputError, match="none that is known: complex"):
        prepare_rows(own, chat)


def test_a_missed_share_of_negatives_is_refused_or_said(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    """Half of the draws are negatives, but half of these have answers too long to be trained on."""
    short = data_file([f"fine {i}" for i in range(40)], "short.jsonl", type="positive")
    long = data_file(["long " * 100] * 20 + [f"none {i}" for i in range(20)], "long.jsonl", type="negative")
    mix = json.dumps([{"id": short}, {"id": long}])
    keys = {"SFT_VAL_RATIO": 0, "SFT_MAX_SEQ_LEN": 60, "SFT_NEGATIVE_LABELS": "negative"}
    strict = stage(SFT_DATASET_MIX=mix, SFT_NEGATIVE_SHARE=0.5, **keys)
    with pytest.raises(InputError, match="after filtering, truncation and upsampling it is 0"):
        prepare_rows(strict, chat)
    lenient = stage(SFT_DATASET_MIX=mix, SFT_NEGATIVE_SHARE=0.5, SFT_STRICT=0, **keys)
    assert any("SFT_NEGATIVE_SHARE" in notice for notice in prepare_rows(lenient, chat).notices)


def test_a_mix_in_tokens_is_planned_as_it_runs(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    short = data_file([f"fine {i}" for i in range(30)], "short.jsonl")
    long = data_file([f"{'word ' * 40}{i}" for i in range(30)], "long.jsonl")
    mix = json.dumps([{"id": short}, {"id": long}])
    settings = stage(SFT_DATASET_MIX=mix, SFT_MIX_UNIT="supervised_tokens", SFT_MASK_COT=0)
    prepared = prepare_rows(settings, chat)
    lines = prepared.ledger.sources
    for line in lines:
        assert line.encoded is not None
        assert line.realised == line.encoded.supervised
    assert lines[0].realised == pytest.approx(lines[1].realised, rel=0.1)
    assert plan_rows(settings, chat, characters=0).ledger == prepared.ledger


def test_rows_are_packed_as_the_plan_says(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    answers = [f"Output: {'word ' * (3 + 5 * i % 37)}" for i in range(60)]
    settings = stage(SFT_DATASET_ID=data_file(answers), SFT_MAX_SEQ_LEN=150, SFT_PACKING=1)
    prepared, planned = prepare_rows(settings, chat), plan_rows(settings, chat)
    packed = prepared.ledger.packed
    assert packed is not None
    assert planned.ledger is not None
    assert planned.ledger.packed == packed
    assert sorted(i for pack in prepared.packs for i in pack) == [*range(len(prepared.train))]
    tokens = [sum(len(prepared.train[i].input_ids) for i in pack) for pack in prepared.packs]
    assert max(tokens) <= 150
    assert (packed.rows, packed.packs, packed.capacity) == (57, len(prepared.packs), 150)
    assert packed.fill == round(sum(tokens) / (150 * len(tokens)), 4)
    assert prepared.ledger.sequences == len(prepared.packs) < 57
    assert sum(notice.startswith("Packed 57 rows into") for notice in prepared.notices) == 1
    # Row ids of every sequence can be told again, from nothing but settings and data.
    ids = [[prepared.train[i].row_id for i in pack] for pack in prepared.packs]
    again = prepare_rows(settings, chat)
    assert [[again.train[i].row_id for i in pack] for pack in again.packs] == ids
    unpacked = prepare_rows(stage(SFT_DATASET_ID=settings.data.mix[0].id, SFT_MAX_SEQ_LEN=150), chat)
    assert unpacked.packs == tuple((i,) for i in range(57))
    assert (unpacked.ledger.packed, unpacked.ledger.sequences) == (None, 57)


def test_a_plan_from_a_sample_estimates_the_sequences(
    stage: MakeSettings, data_file: Callable[..., str], chat: ChatFormat
) -> None:
    answers = [f"Output: {'word ' * (3 + 5 * i % 37)}" for i in range(300)]
    settings = stage(SFT_DATASET_ID=data_file(answers), SFT_MAX_SEQ_LEN=150, SFT_PACKING=1)
    exact, guessed = prepare_rows(settings, chat).ledger, plan_rows(settings, chat, characters=6000).ledger
    assert exact.packed is not None
    assert guessed is not None
    assert guessed.packed is not None
    assert guessed.estimated
    assert guessed.packed.rows == exact.packed.rows == 285
    assert guessed.packed.packs == pytest.approx(exact.packed.packs, rel=0.2)
