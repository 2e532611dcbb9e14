"""Generated and damaged data files: rows are used, or named by line, row or row group, and skipped or
refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hostile_rows import data_file
from refusals import assert_helpful, in_time
from tiny_curriculum import MIX, Curriculum, make_curriculum, texts
from tiny_model import make_tokenizer

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.reading.sources import Source, load_source
from lib.data.reading.usable_rows import read_examples
from lib.settings import InputError, load_stage


@pytest.fixture(scope="module")
def curriculum(tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """Stages, and a base that is a tokenizer alone."""
    folder = tmp_path_factory.mktemp("data")
    make_tokenizer(folder / "base", texts())
    return make_curriculum(folder / "curriculum", folder / "base")


def outcome(path: Path, chat: ChatFormat, rules: EncodingRules, *, strict: bool) -> str:
    """`used` whole, `skipped` in part, or `refused`. Anything else is raised."""
    try:
        with in_time():
            loaded = load_source(str(path), "train")
            assert loaded is not None
            table, notices = read_examples(Source("d", "d", "train", None, *loaded), strict=strict)
            encoded = chat.encode(table.examples, rules)
    except InputError as error:
        assert_helpful(error)
        return "refused"
    assert len(table.examples) + table.skipped == len(loaded[0])
    assert len(encoded.rows) == len(table.examples)
    # What a record and a report keep of them can be written.
    json.dumps([[row.labels for row in table.examples], notices], ensure_ascii=False).encode()
    assert not table.skipped or (not strict and notices[0].startswith(f"[ERROR] {table.skipped} of "))
    return "skipped" if table.skipped else "used"


def outcomes(curriculum: Curriculum, folder: Path, seeds: range) -> Counter[str]:
    """Of the files of these seeds, strictly and leniently."""
    chat = ChatFormat.load(curriculum.folder.parent / "base")
    assert chat is not None
    rules = EncodingRules.of(load_stage(curriculum.folder / "stages", 1, environ={}).data)
    found: Counter[str] = Counter()
    for seed in seeds:
        ending, content = data_file(seed)
        path = folder / f"rows{ending}"
        path.write_bytes(content)
        try:
            strictly, leniently = (outcome(path, chat, rules, strict=strict) for strict in (True, False))
        except BaseException as error:
            error.add_note(f"data_file({seed})")
            raise
        assert (strictly, leniently) in {
            ("used", "used"),
            ("refused", "skipped"),
            ("refused", "refused"),
        }
        found[leniently] += 1
    return found


def test_a_share_of_generated_files(curriculum: Curriculum, tmp_path: Path) -> None:
    found = outcomes(curriculum, tmp_path, range(250))
    assert min(found["used"], found["skipped"], found["refused"]) > 10, found


@pytest.mark.slow
def test_five_thousand_generated_files(curriculum: Curriculum, tmp_path: Path) -> None:
    """About a minute."""
    print(dict(outcomes(curriculum, tmp_path, range(10_000, 15_000))))


def test_a_broken_line_through_the_real_command(curriculum: Curriculum) -> None:
    """Refused by file and line where the stage is strict; skipped and counted where it is not."""
    with (curriculum.folder / MIX[0]["id"]).open("ab") as file:  # type: ignore[arg-type]
        file.write(b'{"messages": [}\n' + b"[" * 50_000 + b"\n")
    strict = curriculum.command("--stage", 1, "--plan")
    assert strict.returncode == 2
    assert all(f"general.jsonl:{line}: JSON line" in strict.stderr for line in (21, 22))
    assert "SFT_STRICT=0" in strict.stderr
    lenient = curriculum.command("--stage", 1, "--plan", "--set", "SFT_STRICT=0")
    assert lenient.returncode == 0, lenient.stderr
    assert "[ERROR] 2 of 22 rows of general.jsonl are unusable and skipped" in " ".join(
        lenient.stdout.split()
    )
    assert "Traceback" not in strict.stderr + lenient.stderr
