"""What offenders are accused of, in words that fit several sentences."""

from __future__ import annotations

from dataclasses import dataclass

from data.news.records import Person
from data.news.world import VENUES, World
from data.values import words


@dataclass(frozen=True)
class Crime:
    """`charge` names the offence; `act` is what was done, in the past, without a subject."""

    charge: str
    act: str


GOODS = words("現金 腕時計 自転車 財布 食料品 工具 電線 果物 化粧品 軽乗用車 ノートパソコン 商品券")
TRICKS = words("投資 還付金 修理代 架空の請求 親族を装った電話 偽の通販 懸賞")


def theft(world: World, victim: Person) -> Crime:
    goods = world.one(GOODS)
    worth = f"{goods}（{world.yen()}相当）" if goods != "現金" else f"現金{world.yen()}"
    return Crime("窃盗", world.one((f"{worth}を盗んだ", f"{worth}を持ち去った")))


def robbery(world: World, victim: Person) -> Crime:
    weapon = world.one(words("刃物 包丁 棒 カッターナイフ"))
    return Crime("強盗", f"{weapon}を見せて現金{world.yen()}を奪った")


def assault(world: World, victim: Person) -> Crime:
    how = world.one(words("顔を殴った 胸を押して転ばせた 腕をつかんで引き倒した 頭をたたいた 足を蹴った"))
    whom = f"{victim.name}さんの" if victim.name else world.one(words("知人の 男性の 同僚の 店員の 親族の"))
    return Crime(world.one(("暴行", "傷害")), whom + how)


def fraud(world: World, victim: Person) -> Crime:
    return Crime("詐欺", f"{world.one(TRICKS)}の名目で{world.yen()}をだまし取った")


def embezzlement(world: World, victim: Person) -> Crime:
    return Crime("業務上横領", f"管理していた口座から{world.yen()}を着服した")


def arson(world: World, victim: Person) -> Crime:
    return Crime(
        "放火",
        f"{world.one(words('物置 段ボール 枯れ草 空き家 ごみ袋 自転車のかご'))}に火をつけた",
    )


def damage(world: World, victim: Person) -> Crime:
    thing = world.one(words("窓ガラス 看板 自動販売機 車のドア 防犯カメラ 自転車"))
    return Crime("器物損壊", f"{thing}を{world.one(words('壊した 石で割った 傷つけた'))}")


def driving(world: World, victim: Person) -> Crime:
    return Crime(
        "道路交通法違反",
        world.one(words("酒を飲んで車を運転した 無免許で車を運転した 信号を無視して車を運転した")),
    )


def trespass(world: World, victim: Person) -> Crime:
    how = world.one(("無断で", "窓から", "夜間に", "合鍵を使って"))
    return Crime(
        world.one(("建造物侵入", "住居侵入")), f"{how}{world.one(words('建物 敷地 事務所 部屋'))}に侵入した"
    )


def threat(world: World, victim: Person) -> Crime:
    means = world.one(words("電話 手紙 メール 張り紙"))
    return Crime("脅迫", f"{means}で「{world.one(('店を燃やす', '許さない', '痛い目に遭わせる'))}」と脅した")


CRIMES = (
    theft, robbery, assault, fraud, embezzlement, arson, damage, driving, trespass, threat,
)  # fmt: skip
TARGETED = (theft, robbery, assault, fraud, threat)
"""Those that have a victim who may be named."""


def draw_crime(world: World, victim: Person) -> Crime:
    return world.rng.choice(TARGETED if victim.name else CRIMES)(world, victim)


def draw_scene(world: World) -> tuple[str, str]:
    """Where it was: the place as it is recorded, and a venue there that is not."""
    return world.place().full, world.one(VENUES)
