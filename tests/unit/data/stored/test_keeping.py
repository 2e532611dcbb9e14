"""What the cache keeps: what a changed key rebuilds, what a killed or a second process leaves and finds."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from lib.data.cache import DataCache, default_root
from lib.data.chat.chat_format import ChatFormat
from lib.data.keeping import keeper
from lib.data.prepare import plan_rows, prepare_rows
from lib.data.reading import sources
from lib.data.reading.sources import NormalizedRows, Source, load_source
from lib.data.reading.usable_rows import read_examples
from lib.data.stored import chunks, encode, examples
from lib.data.stored.folder import WHOLE, StoreFolder, prune
from lib.data.stored.workers import Task, run_tasks
from lib.settings import InputError, StageSettings, load_stage

ROWS = 60


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageSettings]:
    monkeypatch.setattr(sources, "least_bytes", lambda: 0)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 16)
    rows = [{"prompt": f"question {i}", "completion": f"because\nOutput: 犯人 {i}"} for i in range(ROWS)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**keys: Any) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": "base", "SFT_OUT_LORA_DIR": "out", "SFT_STRICT": 1, "SFT_DATASET_ID": data,
            "SFT_CACHE_DIR": tmp_path / "cache", "SFT_DATASET_NUM_PROC": 1, **keys,
        }  # fmt: skip
        (tmp_path / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
        return load_stage(tmp_path, 1, environ={})

    return make


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many shards were read, tokenised and masked."""
    done = {"read": 0, "tokenised": 0, "masked": 0}

    def counted(module: Any, name: str, what: str) -> None:
        inner = getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            done[what] += 1
            return inner(*args, **options)

        monkeypatch.setattr(module, name, counting)

    counted(examples, "write_examples", "read")
    counted(encode.TokenizedRows, "of", "tokenised")
    counted(encode, "encoded_batch", "masked")
    return done


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (0, 0, 0)),
        ({"SFT_SEED": 7, "SFT_VAL_RATIO": 0.2, "SFT_ORDER": "length"}, (0, 0, 0)),
        ({"SFT_MAX_SEQ_LEN": 64}, (0, 0, 4)),
        ({"SFT_MASK_COT": 0}, (0, 0, 4)),
        ({"SFT_OUTPUT_LEARN_MODE": "from_marker"}, (0, 0, 4)),
        ({"SFT_MASK_COT": 1, "SFT_PACKING": 1, "SFT_EPOCHS": 3}, (0, 0, 0)),
        ({"SFT_DATASET_MIX_TOTAL_SIZE": 10}, (0, 0, 0)),
        ({"SFT_DATASET_MIX_TOTAL_SIZE": 10, "SFT_MAX_SEQ_LEN": 64}, (0, 0, 4)),
    ],
)
def test_a_changed_key_rebuilds_what_it_touches(
    keys: dict[str, Any],
    expected: tuple[int, int, int],
    stage: Callable[..., StageSettings],
    chat: ChatFormat,
    work: dict[str, int],
) -> None:
    prepare_rows(stage(), chat)
    assert tuple(work.values()) == (4, 4, 4)
    work.update(dict.fromkeys(work, 0))
    prepare_rows(stage(**keys), chat)
    assert tuple(work.values()) == expected


def test_another_template_tokenises_again_and_another_file_reads_again(
    stage: Callable[..., StageSettings], chat: ChatFormat, work: dict[str, int], tmp_path: Path
) -> None:
    prepare_rows(stage(), chat)
    other = ChatFormat(chat.tokenizer, chat.special_tokens, f"{chat.template}{{# #}}")
    prepare_rows(stage(), other)
    assert tuple(work.values()) == (4, 8, 8)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    prepare_rows(stage(), other)
    assert tuple(work.values()) == (8, 12, 12)


def test_an_interrupted_preparation_goes_on_where_it_stood(
    stage: Callable[..., StageSettings],
    chat: ChatFormat,
    work: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = encode.write_shard, []

    def interrupted(path: Path, *args: Any, **options: Any) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *args, **options)

    monkeypatch.setattr(encode, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_rows(stage(), chat)
    monkeypatch.setattr(encode, "write_shard", write)
    before = dict(work)
    rows = prepare_rows(stage(), chat).train
    assert work["read"] == before["read"]
    assert work["tokenised"] - before["tokenised"] == 1  # of four: the third was written before its mask was
    assert [row.targets() for row in rows] == [
        row.targets() for row in prepare_rows(stage(SFT_CACHE_DIR="off"), chat).train
    ]


def test_what_a_killed_writer_leaves_is_not_taken_for_a_file(tmp_path: Path) -> None:
    store = StoreFolder(tmp_path / "rows-1")
    store.path.mkdir()
    (store.path / "000000.arrow.123.part").write_bytes(b"half")
    assert store.marker() is None
    assert store.missing(1) == [0]
    with store.building():
        assert sorted(path.name for path in store.path.iterdir()) == ["lock"]
    (store.path / WHOLE).write_text("{")
    assert store.marker() is None


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from lib.data.reading import sources
from lib.data.reading.usable_rows import read_examples
from lib.data.reading.sources import NormalizedRows, Source, load_source
from lib.data.chat.chat_format import ChatFormat
from lib.data.keeping import keeper
from lib.data.prepare import prepare_rows
from lib.data.stored import chunks
from lib.settings import load_stage
if __name__ == "__main__":
    sources.least_bytes, chunks.CHUNK_ROWS = lambda: 0, 16
    chat = ChatFormat.load(Path({tokenizer!r}))
    print(len(prepare_rows(load_stage(Path({folder!r}), 1, environ={{}}), chat).train), flush=True)
"""


def test_two_at_once_and_one_that_is_killed(
    stage: Callable[..., StageSettings], tokenizer_folder: Path, tmp_path: Path
) -> None:
    stage()
    root = str(Path(__file__).parents[4])
    script = tmp_path / "prepare.py"
    script.write_text(KILLED.format(root=root, tokenizer=str(tokenizer_folder), folder=str(tmp_path)))
    start = [sys.executable, str(script)]
    killed = subprocess.Popen(start, stdout=subprocess.PIPE)
    cache = tmp_path / "cache"
    while not list(cache.glob("rows-*/000000.arrow")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [subprocess.Popen(start, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(process.communicate(timeout=120)[0]) for process in both] == [ROWS - 3, ROWS - 3]
    assert not list(cache.glob("*/*.part"))
    assert len(list(cache.glob(f"*/{WHOLE}"))) == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_or_forbidden_disk_is_the_users_to_mend(
    number: int, stage: Callable[..., StageSettings], chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    for module in (examples, encode):
        with monkeypatch.context() as patched:
            patched.setattr(module, "write_shard", full)
            with pytest.raises(InputError) as raised:
                prepare_rows(stage(), chat)
        (problem,) = raised.value.problems
        assert problem.key == "SFT_CACHE_DIR"
        assert os.strerror(number) in problem.value
        assert "off" in problem.remedy


def test_the_cache_stays_within_its_bound(
    stage: Callable[..., StageSettings], chat: ChatFormat, tmp_path: Path
) -> None:
    prepare_rows(stage(SFT_MAX_SEQ_LEN=100), chat)
    for path in (tmp_path / "cache").glob(f"encoded-*/{WHOLE}"):
        os.utime(path, (1, 1))
    prepare_rows(stage(SFT_CACHE_GB=0), chat)
    kinds = sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir())
    assert kinds == ["encoded", "rows", "tokens"]  # in use
    (tmp_path / "cache" / "unrelated-file").write_text("")
    prune(DataCache(tmp_path / "cache", 1, 0), set())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["unrelated-file"]


def test_a_plan_of_rows_that_are_prepared_tokenises_none(
    stage: Callable[..., StageSettings], chat: ChatFormat, work: dict[str, int]
) -> None:
    assert plan_rows(stage(), chat, characters=10).ledger.estimated  # type: ignore[union-attr]
    assert work == {"read": 4, "tokenised": 0, "masked": 0}
    ledger = prepare_rows(stage(), chat).ledger
    work.update(dict.fromkeys(work, 0))
    assert plan_rows(stage(), chat, characters=10).ledger == ledger
    assert not any(work.values())


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, stage: Callable[..., StageSettings]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_root() == Path("/somewhere/lora-curriculum/data")
    assert DataCache.of(stage(SFT_CACHE_DIR="off").data) is None
    cache = DataCache.of(stage(SFT_CACHE_DIR="", SFT_CACHE_GB=2, SFT_DATASET_NUM_PROC=3).data)
    assert cache == DataCache(default_root(), 3, 2 * 10**9)


def fail(path: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def test_an_error_in_another_process_comes_back_as_it_is() -> None:
    tasks = [Task(fail, ("there",), 1) for _ in range(3)]
    with pytest.raises(OSError, match="there") as raised:
        run_tasks(tasks, processes=2, rows=3, doing="failing")
    assert raised.value.errno == errno.ENOSPC
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("split", ["train", "train[5:30]", "train[:10%]", "train+train"])
def test_rows_of_the_hub_are_kept_as_files_are(
    split: str, stage: Callable[..., StageSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is a folder here; `datasets` writes its own Arrow files from it."""
    load = datasets.load_dataset
    path = str(tmp_path / "rows.jsonl")
    found = {"data_files": path, "cache_dir": str(tmp_path / "hub")}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: load("json", split=split, **found))
    kept = load_source("me/rows", split, keep=keeper(stage().data))
    read = load_source("me/rows", split)
    assert kept
    assert read
    assert isinstance(kept[0], NormalizedRows) == (split != "train+train")
    both = [read_examples(Source("me", "me", split, None, *own), strict=True)[0] for own in (kept, read)]
    kept_rows, rows = ([(e.row_id, e.messages) for e in table.examples] for table in both)
    assert kept_rows == rows
    assert kept[1] == read[1]
