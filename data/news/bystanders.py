"""Articles without an offender, many of them in words that arrests are told with.

Courts and police that name no offender, suspicion that was taken back, offenders at large, accidents, fires,
missing people, and what else a newspaper has. People who are named in them did nothing wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from data.news.crimes import draw_crime
from data.news.offenders import NOBODY, introduced
from data.news.records import Article, Person
from data.news.world import EMPLOYERS, VENUES, World
from data.values import words

SPORTS = words("野球 駅伝 柔道 剣道 バレーボール 卓球 水泳 将棋 陸上 サッカー")
EVENTS = words("夏祭り 花火大会 朝市 写真展 音楽会 防災訓練 清掃活動 文化祭 植樹 読書会")


def nameless_trial(world: World) -> Article:
    crime, place = draw_crime(world, NOBODY), world.place().full
    age = world.rng.randint(20, 70)
    return Article(
        f"{place}で{crime.act}として{crime.charge}の罪に問われた男（{age}）に対し、地裁は{world.day()}、"
        f"{world.one(('懲役2年を言い渡した', '執行猶予付きの判決を言い渡した', '無罪を言い渡した'))}。"
        f"裁判所は被告の氏名を{world.one(('明らかにしていない', '公表していない'))}。",
        "nameless trial",
    )


def at_large(world: World) -> Article:
    crime, place, station = draw_crime(world, NOBODY), world.place().full, world.place().station
    victim = world.person() if world.maybe(0.4) else NOBODY
    found = f"気づいた{introduced(world, victim, 'さん')}が通報した。" if victim.name else ""
    return Article(
        f"{world.day()}{world.time()}、{place}の{world.one(VENUES)}で、何者かが{crime.act}。{found}"
        f"{station}は{crime.charge}事件として、{world.one(('逃げた男の行方を追っている', '調べている', '容疑者の特定を急いでいる', '情報提供を求めている'))}。",
        "at large",
        tuple(person for person in (victim,) if person.name),
        police=(station,),
    )


def cleared(world: World) -> Article:
    """Suspicion that was taken back: arrested by mistake, not charged, acquitted."""
    crime, person, station = draw_crime(world, NOBODY), world.person(), world.place().station
    who = introduced(world, person, "さん")
    return Article(
        world.one((
            f"{station}は{world.day()}、{crime.charge}容疑で逮捕した{who}について、誤認逮捕だったと発表し、謝罪した。別人の関与が確認された。",
            f"地検は{world.day()}、{crime.charge}の疑いで書類送検されていた{who}を、嫌疑がないとして不起訴にした。{station}は捜査をやり直す。",
            f"{crime.charge}の罪に問われた{who}に、高裁は{world.day()}、無罪を言い渡した。「ほっとした」と話した。{station}はコメントしていない。",
            f"{station}は{who}への{crime.charge}の疑いを取り消した。容疑者として扱ったが、現場にいなかったことが映像で分かった。",
            f"{crime.charge}事件で{station}が一時逮捕した{who}は、真犯人の被告が有罪となり、補償を受けることになった。",
        )),
        "cleared",
        (person,),
        police=(station,),
    )  # fmt: skip


def accident(world: World) -> Article:
    place, station, person = world.place().full, world.place().station, world.person()
    return Article(
        f"{world.day()}{world.time()}、{place}の{world.one(('交差点', '県道', '国道', '踏切'))}で、"
        f"{world.one(('乗用車とトラック', '自転車と軽乗用車', 'バスと乗用車', '乗用車2台'))}が衝突し、"
        f"{introduced(world, person, 'さん')}が{world.one(('軽いけがをした', '足の骨を折った', '病院に運ばれた'))}。"
        f"{station}が原因を調べている。",
        "accident",
        (person,),
        police=(station,),
    )


def fire(world: World) -> Article:
    place, station = world.place().full, world.place().station
    owner = replace(world.person(), address="")
    return Article(
        f"{world.day()}{world.time()}、{place}の{introduced(world, owner, 'さん')}方から火が出て、"
        f"{world.one(('木造2階建ての一部を焼いた', '物置を全焼した', '台所の壁を焦がした'))}。けが人はいなかった。"
        f"{station}などが{world.one(('出火原因を調べている', '電気設備の不具合とみている'))}。",
        "fire",
        (owner,),
        police=(station,),
    )


def missing(world: World) -> Article:
    person, station = world.person(), world.place().station
    return Article(
        f"{introduced(world, person, 'さん')}の行方が{world.day()}から分からなくなり、{station}が捜している。"
        f"{world.one(('家族が届け出た。', '山に入ったとみられる。', '散歩に出たまま戻らなかったという。'))}"
        f"{world.one(('事件性はないとみられる。', '青い上着を着ていたという。', '翌日、無事に見つかった。'))}",
        "missing",
        (person,),
        police=(station,),
    )


def commended(world: World) -> Article:
    """Someone who prevented or stopped a crime: the crime's words, nobody's act."""
    person, station = world.person(), world.place().station
    chief = Person(world.name(), position="署長", affiliation=station)
    return Article(
        f"{world.one(('特殊詐欺の被害を防いだ', '万引きに気づいて通報した', '盗まれた自転車を見つけた', '川で溺れた子どもを助けた'))}"
        f"として、{station}は{world.day()}、{introduced(world, person, 'さん')}に感謝状を贈った。"
        f"{station}の{chief.name}署長は「勇気ある行動だった」とたたえた。",
        "commended",
        (person, chief),
        police=(station,),
    )


def warning(world: World) -> Article:
    station, crime = world.place().station, draw_crime(world, NOBODY)
    return Article(
        f"{station}は{world.day()}、管内で{crime.charge}の被害が相次いでいるとして注意を呼びかけた。"
        f"今年の件数は{world.rng.randint(5, 90)}件で、昨年の同じ時期より{world.one(('増えた', '減った', '倍増した'))}。"
        f"{world.one(('不審な電話は切ってほしいという。', '戸締まりの確認を求めている。', 'チラシ500枚を配った。'))}",
        "warning",
        police=(station,),
    )


def fiction(world: World) -> Article:
    actor, writer = world.person(), Person(world.name(), position="監督")
    crime = draw_crime(world, NOBODY)
    actor = replace(actor, position="俳優", affiliation="", address="")
    return Article(
        f"{introduced(world, actor, 'さん')}が{world.one(('映画', '舞台', 'ドラマ'))}「{world.one(words('静かな海 硝子の川 夜の汽車 七つの手紙 長い道'))}」で、"
        f"{crime.charge}の疑いで追われる男を演じる。{writer.name}監督は「逮捕の場面を何度も撮り直した」と話す。{world.day()}に公開される。",
        "fiction",
        (actor, writer),
    )  # fmt: skip


def weather(world: World) -> Article:
    place = world.place()
    return Article(
        f"{world.day()}の{place.prefecture}は{world.one(('高気圧に覆われて晴れ', '前線の影響で雨が降り', '寒気が流れ込んで雪となり'))}、"
        f"{place.town}では最{world.one(('高', '低'))}気温が{world.rng.randint(-8, 38)}度だった。"
        f"{world.one(('気象台は大雨に警戒を呼びかけている。', '週末も同じような天気が続く見込み。', '平年より高かった。'))}",
        "weather",
    )


def sport(world: World) -> Article:
    players = [replace(world.person(), address="", position="") for _ in range(world.rng.randint(1, 3))]
    listed = "、".join(introduced(world, player, "選手") for player in players)
    return Article(
        f"{world.one(SPORTS)}の県大会は{world.day()}、{world.place().town}で行われ、{listed}が"
        f"{world.one(('優勝した', '準優勝した', '決勝に進んだ', '大会新記録を出した'))}。"
        f"{world.one(('応援席から大きな拍手が送られた。', '来月の全国大会に出場する。', ''))}",
        "sport",
        tuple(replace(player, position="選手") for player in players),
    )


def event(world: World) -> Article:
    person, place = world.person(), world.place()
    person = replace(person, address="")
    return Article(
        f"{place.full}で{world.day()}、{world.one(EVENTS)}が開かれ、{world.rng.randint(20, 900)}人が参加した。"
        f"{introduced(world, person, 'さん')}は「{world.one(('楽しかった', '来年も参加したい', '準備が大変だった', '地域の力を感じた'))}」と話した。",
        "event",
        (person,),
    )


def business(world: World) -> Article:
    person = Person(world.name(), age=str(world.rng.randint(40, 70)), affiliation=world.one(EMPLOYERS))
    person = replace(person, position=world.one(("社長", "理事長", "代表", "常務")))
    return Article(
        f"{person.affiliation}は{world.day()}、{person.name}{person.position}（{person.age}）が"
        f"{world.one(('退任する', '新しい工場を建てる', '新商品を売り出す', '寄付をする'))}と発表した。",
        "business",
        (person,),
    )


MAKERS: tuple[tuple[Callable[[World], Article], int], ...] = (
    (nameless_trial, 14), (at_large, 16), (cleared, 18), (accident, 12), (fire, 7), (missing, 8),
    (commended, 8), (warning, 6), (fiction, 4), (weather, 5), (sport, 6), (event, 6), (business, 4),
)  # fmt: skip


def other_article(world: World) -> Article:
    makers, weights = zip(*MAKERS, strict=True)
    maker: Callable[[World], Article] = world.rng.choices(makers, weights)[0]
    return maker(world)
