"""The generated news: records that the text bears out, honest negatives, the same bytes for the same seed."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.news.bystanders import other_article
from data.news.make_news import FULL, SHORT, SMALL, NewsSet, write_set
from data.news.offenders import offender_article
from data.news.records import Article, Person, as_row
from data.news.short import short_offender, short_other
from data.news.world import World
from lib.data.reading.rows import to_example
from lib.evaluation.extraction import LISTS, judge

SHIPPED = Path(__file__).parents[4] / "data/news/short"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def articles(count: int = 400) -> list[Article]:
    return [offender_article(World(random.Random(f"offender {seed}"))) for seed in range(count)]


def others(count: int = 600) -> list[Article]:
    return [other_article(World(random.Random(f"other {seed}"))) for seed in range(count)]


def test_every_record_has_the_schema_and_is_read_as_what_it_is() -> None:
    """Each answer is right when judged against itself; as_row checks every value against the text."""
    for article in [*articles(150), *others(150)]:
        row = as_row(article, "抽出してください。")
        record = json.loads(row["output"])
        assert tuple(record) == LISTS
        for person in record["persons"]:
            assert list(person) == ["name", "age", "position", "affiliation", "address", "act", "is_offender"]
        judgement = judge(row["output"], row["output"])
        assert judgement.tally["gen_all_fields_exact_match_rate"] == (1, 1)
        example = to_example(row, "news", 0)
        assert [message.role for message in example.messages] == ["user", "assistant"]
        assert ("type", article.kind) in example.labels


def test_offenders_are_only_in_the_positives() -> None:
    for article in articles():
        assert any(person.is_offender for person in article.persons)
        assert article.locations
    for article in others():
        assert not any(person.is_offender for person in article.persons)
        assert not article.locations


def test_no_single_word_tells_positives_from_negatives() -> None:
    """Many negatives are told with the words of arrests and trials, and some arrests without a title."""

    def share(found: list[Article], *words: str) -> float:
        return sum(any(word in article.text for word in words) for article in found) / len(found)

    assert share(others(), "疑い", "容疑", "罪", "逮捕", "事件") > 0.4
    for word in ("容疑者", "被告", "逮捕", "起訴", "無罪"):
        assert share(others(), word) > 0.01, word
    assert share(articles(), "容疑者", "被告") < 0.97
    assert share(articles(), "さん") > 0.2  # victims and witnesses stand beside the offenders


def test_persons_places_and_lengths_vary() -> None:
    found = articles()
    assert {len([p for p in article.persons if p.is_offender]) for article in found} == {1, 2, 3}
    assert len({len(article.persons) for article in found}) >= 4
    assert {article.kind for article in found} == {"arrest", "charge", "trial"}
    assert len(Counter(article.kind for article in others())) == 13
    assert min(len(a.text) for a in found) * 3 < max(len(a.text) for a in found)
    for field in ("age", "position", "affiliation", "address"):
        values = [getattr(person, field) for article in found for person in article.persons]
        assert 0.02 < values.count("") / len(values) < 0.9, field


def test_a_record_that_the_text_does_not_bear_out_is_refused() -> None:
    article = Article("記事です。", "arrest", (Person("山田太郎"),))
    with pytest.raises(AssertionError, match="山田太郎"):
        as_row(article, "")


def write(folder: Path, news: NewsSet = SMALL) -> dict[str, bytes]:
    write_set(replace(news, positives=30, negatives=50, heldout=10), folder, seed=1)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert first == write(tmp_path / "b")
    assert "容疑者" in first["positives.jsonl"].decode()


def test_no_article_stands_twice_and_heldout_has_both_kinds(tmp_path: Path) -> None:
    write(tmp_path)
    found = {name: rows_of(tmp_path / f"{name}.jsonl") for name in ("positives", "negatives", "heldout")}
    texts = [row["input"] for rows in found.values() for row in rows]
    assert len(set(texts)) == len(texts) == 90
    offending = ["true" in row["output"] for row in found["heldout"]]
    assert offending == [True, False] * 5


def test_the_sizes_are_the_documents() -> None:
    assert (FULL.positives * 3, FULL.negatives, FULL.heldout) == (78_663, 100_000, 27_798)
    assert FULL.positives * 3 + 96_000 == 174_663


def test_the_shipped_short_articles_are_what_the_generator_writes(tmp_path: Path) -> None:
    write_set(SHORT, tmp_path, seed=1)
    for name in ("positives", "negatives", "heldout"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (SHIPPED / f"{name}.jsonl").read_bytes()
    assert all(
        any(p.is_offender for p in maker(random.Random(seed)).persons) == offending
        for maker, offending in ((short_offender, True), (short_other, False))
        for seed in range(50)
    )
