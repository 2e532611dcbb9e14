"""One-sentence articles over few names: what a model of a few million parameters can learn to read.

Same task, same record; the names and places come from the lists that the embedded tiny base has seen.
"""

from __future__ import annotations

import random

from data.news.records import Article, Person
from data.values import FIRST_JA, JAPANESE, LAST_JA, words

ACTS = words("金を盗んだ 店を壊した 人を殴った 車を奪った 家に火をつけた 金をだまし取った")
POSITIONS = words("会社員 店長 教諭 無職 運転手 大学生")
DEEDS = words("大会で優勝した 祭りに参加した 事故で軽いけがをした 感謝状を受けた 写真展を開いた 工場を建てた")


def _person(rng: random.Random) -> Person:
    return Person(
        rng.choice(LAST_JA) + rng.choice(FIRST_JA), age=str(rng.randint(2, 6) * 10), position=rng.choice(POSITIONS)
    )  # fmt: skip


def _told(person: Person, title: str) -> str:
    return f"{person.position}の{person.name}{title}（{person.age}）"


def short_offender(rng: random.Random) -> Article:
    person, act = _person(rng), rng.choice(ACTS)
    city, station = rng.choice(JAPANESE["city"]), rng.choice(JAPANESE["city"]) + "署"
    who = _told(person, "容疑者")
    text = rng.choice((
        f"{station}は{city}で{act}として、{who}を逮捕した。",
        f"{city}で{act}疑いで、{who}が{station}に逮捕された。",
        f"{who}が{city}で{act}疑いで{station}に逮捕された。",
    ))  # fmt: skip
    return Article(text, "arrest", (person.accused(act),), (city,), (station,))


def short_other(rng: random.Random) -> Article:
    """Half of them with the words of an arrest."""
    person, act, city = _person(rng), rng.choice(ACTS), rng.choice(JAPANESE["city"])
    station, who = rng.choice(JAPANESE["city"]) + "署", _told(person, "さん")
    kind = rng.choice(("cleared", "at large", "commended", "life", "life", "life"))
    text = {
        "cleared": f"{station}は{act}疑いで逮捕した{who}を、誤認だったとして釈放した。",
        "at large": f"{city}で何者かが{act}。{who}が{station}に通報した。",
        "commended": f"{station}は{act}男を見つけた{who}に感謝状を贈った。",
        "life": f"{city}で{who}が{rng.choice(DEEDS)}。",
    }[kind]
    return Article(text, kind, (person,), police=() if kind == "life" else (station,))
