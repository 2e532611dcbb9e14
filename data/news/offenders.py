"""Articles that name an offender: arrests, charges and trials, with victims, witnesses and police."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data.news.crimes import Crime, draw_crime, draw_scene
from data.news.records import Article, Person
from data.news.world import World
from data.values import words

NOBODY = Person("")


@dataclass(frozen=True)
class Case:
    """What happened, before it is told."""

    crime: Crime
    place: str
    venue: str
    station: str
    offenders: tuple[Person, ...]
    title: str
    """After an offender's name until the trial; at times there is none, as no title makes an offender."""
    victim: Person


def draw_case(world: World) -> Case:
    victim = world.person() if world.maybe(0.35) else NOBODY
    crime = draw_crime(world, victim)
    place, venue = draw_scene(world)
    number = world.rng.choices((1, 2, 3), (80, 15, 5))[0]
    offenders = tuple(world.person().accused(crime.act) for _ in range(number))
    title = world.rng.choices(("容疑者", ""), (7, 1))[0]
    return Case(crime, place, venue, world.place().station, offenders, title, victim)


def introduced(world: World, person: Person, title: str) -> str:
    """A person with all that is known: job before the name, age in brackets, address in one of its places."""
    job = f"{person.affiliation}{'の' if person.affiliation else ''}{person.position}"
    age = f"（{person.age}）" if person.age else ""
    if not person.address:
        return f"{job}{'の' if job and world.maybe(0.3) else ''}{person.name}{title}{age}"
    forms = (
        f"{person.address}、{job}、{person.name}{title}{age}" if job else f"{person.address}、{person.name}{title}{age}",
        f"{job}{'、' if job else ''}{person.name}{title}{age}＝{person.address}＝",
        f"{person.address}に住む{job}{'の' if job else ''}{person.name}{title}{age}",
    )  # fmt: skip
    return world.one(forms)


def listed(world: World, persons: Sequence[Person], title: str) -> str:
    together = "と".join(introduced(world, person, title) for person in persons)
    return together + (f"の{len(persons)}人" if len(persons) > 1 else "")


def arrest_first(world: World, case: Case) -> str:
    who, what = listed(world, case.offenders, case.title), case.crime
    where = f"{case.place}の{case.venue}で"
    tell = world.one(("逮捕した", "逮捕したと発表した", "現行犯逮捕した", "再逮捕した"))
    return world.one((
        f"{case.station}は{world.day()}、{what.charge}の疑いで、{who}を{tell}。調べでは、{world.day()}{world.time()}、{where}{what.act}疑いがある。",
        f"{where}{what.act}として、{case.station}は{world.day()}、{what.charge}容疑で{who}を{tell}。",
        f"{what.charge}容疑で{who}が{world.day()}、{case.station}に逮捕された。逮捕容疑は{where}{what.act}疑い。",
        f"{who}が{world.day()}、{what.charge}の疑いで逮捕された。{case.station}によると、{world.time()}、{where}{what.act}とみられる。",
    ))  # fmt: skip


def event_first(world: World, case: Case) -> str:
    who, what = listed(world, case.offenders, case.title), case.crime
    return (
        f"{world.day()}{world.time()}、{case.place}の{case.venue}で「{world.one(CALLS)}」と110番通報があった。"
        f"駆けつけた{case.station}の署員が{world.one(('事情を聴き', '付近を捜し', '防犯カメラの映像を調べ'))}、"
        f"{what.act}として、{what.charge}の疑いで{who}を逮捕した。"
    )


def charged(world: World, case: Case) -> str:
    who, what = listed(world, case.offenders, case.title), case.crime
    return (
        f"{world.one(('地検', '地方検察庁', '区検'))}は{world.day()}、{what.charge}の罪で{who}を"
        f"{world.one(('起訴した', '在宅起訴した', '略式起訴した'))}。起訴状などによると、{case.place}の{case.venue}で"
        f"{what.act}とされる。捜査には{case.station}が当たった。"
    )


def on_trial(world: World, case: Case) -> str:
    who, what = listed(world, case.offenders, "被告"), case.crime
    return (
        f"{case.place}の{case.venue}で{what.act}として{what.charge}の罪に問われた{who}の"
        f"{world.one(('初公判', '判決公判', '論告求刑公判'))}が{world.day()}、地裁で開かれた。"
        f"{world.one(VERDICTS)}{case.station}が昨年逮捕していた。"
    )


CALLS = words("助けてほしい 不審な人がいる 男が暴れている 店の物がなくなった けが人がいる 大きな音がした")
VERDICTS = (
    "裁判長は懲役2年、執行猶予4年を言い渡した。", "検察側は懲役3年を求刑した。", "被告側は起訴内容を認めた。",
    "弁護側は無罪を主張した。", "裁判長は罰金30万円を言い渡した。",
)  # fmt: skip
LEADS: tuple[tuple[Callable[[World, Case], str], str, int], ...] = (
    (arrest_first, "arrest", 6), (event_first, "arrest", 3), (charged, "charge", 2), (on_trial, "trial", 3),
)  # fmt: skip
"""How an article begins, what it then reports, and how often."""
STATEMENTS = (
    "「間違いありません」と容疑を認めている。", "「やっていない」と容疑を否認している。", "黙秘している。",
    "「生活費が欲しかった」と供述している。", "「覚えていない」と話している。", "動機を調べている。",
    "余罪があるとみて調べを進めている。", "ほかに関わった人物がいないか調べている。",
)  # fmt: skip


def told_of_victim(world: World, victim: Person) -> str:
    return f"被害に遭ったのは{introduced(world, victim, 'さん')}で、{world.one(INJURIES)}"


def told_by_witness(world: World, witness: Person) -> str:
    return f"{introduced(world, witness, 'さん')}は「{world.one(IMPRESSIONS)}」と{world.one(('話した', '振り返った', '驚いた様子だった'))}。"


def told_by_officer(world: World, officer: Person, station: str) -> str:
    return f"{station}の{officer.name}{officer.position}は「{world.one(WARNINGS)}」と{world.one(('呼びかけた', 'コメントした', '話した'))}。"


INJURIES = ("けがはなかった。", "軽いけがをした。", "全治2週間のけがを負った。", "病院で手当てを受けた。")
IMPRESSIONS = (
    "大声が聞こえて外に出た", "まさか近所で起きるとは思わなかった", "静かな地域なので驚いた", "普段はあいさつをする人だった",
    "パトカーが何台も来た", "早く安心して暮らせるようになってほしい",
)  # fmt: skip
WARNINGS = (
    "戸締まりを徹底してほしい",
    "不審に思ったらすぐに通報を",
    "同様の手口に注意してほしい",
    "地域の見守りを強めたい",
)


def offender_article(world: World) -> Article:
    """One case, told from one of its sides, with up to three persons besides the offenders."""
    case = draw_case(world)
    lead, kind, _ = world.rng.choices(LEADS, [weight for _, _, weight in LEADS])[0]
    sentences, others = [lead(world, case)], []
    if case.victim.name:
        sentences.append(told_of_victim(world, case.victim))
        others.append(case.victim)
    if world.maybe(0.6):
        title = "被告" if kind == "trial" else case.title
        subject = "" if len(case.offenders) > 1 else f"{case.offenders[0].name}{title}は"
        sentences.append(subject + world.one(STATEMENTS))
    if world.maybe(0.25):
        witness = replace(world.person(), address="")
        sentences.append(told_by_witness(world, witness))
        others.append(witness)
    if world.maybe(0.2):
        officer = Person(world.name(), position=world.one(("署長", "副署長", "刑事課長", "地域課長")))
        officer = replace(officer, affiliation=case.station)
        sentences.append(told_by_officer(world, officer, case.station))
        others.append(officer)
    return Article("".join(sentences), kind, (*case.offenders, *others), (case.place,), (case.station,))
