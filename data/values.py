"""Pools of values: mostly lists, so that a model of a few million parameters can learn to copy them.

Many kinds have an English and a Japanese pool. Few kinds contain digits: each digit is a token of its
own, and random digits would make up most of the loss without teaching anything about formats.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Scalar = str | int | float | bool


def words(text: str) -> list[str]:
    """A pool written as one line: apart at bars if there are any, else at spaces."""
    return text.split("|" if "|" in text else None)


FIRST = words(
    "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Quinn Rosa "
    "Sam Tina Uma Victor Wendy Yusuf Zoe Aiko Bruno Chloe Daniel Elena"
)
LAST = words(
    "Adams Baker Carter Davis Evans Fischer Garcia Hughes Ito Jones King Lopez Miller Novak Olsen Park "
    "Reed Silva Tanaka Underwood Vega Walker Young Zhang Moreau Kowalski Rossi Larsen"
)
FIRST_JA = words(
    "太郎 花子 健一 美咲 翔太 陽子 大輔 恵子 直樹 由美 拓也 真理 和夫 愛 誠 幸子 剛 彩 悠斗 結衣"
)
LAST_JA = words(
    "佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤 吉田 山田 松本 井上 木村 清水 森 池田 橋本 石川"
)

ENGLISH: dict[str, list[str]] = {
    "city": words(
        "London|Paris|Berlin|Madrid|Rome|Vienna|Oslo|Lisbon|Dublin|Prague|Warsaw|Athens|Boston|Chicago|"
        "Denver|Seattle|Toronto|Lima|Bogota|Cairo|Nairobi|Lagos|Delhi|Mumbai|Seoul|Tokyo|Osaka|Kyoto|"
        "Sydney|New York|Cape Town|Hong Kong"
    ),
    "country": words(
        "France|Germany|Spain|Italy|Norway|Portugal|Ireland|Poland|Greece|Canada|Peru|Egypt|Kenya|"
        "India|Japan|Australia|Brazil|Mexico|South Africa|New Zealand"
    ),
    "product": words(
        "desk lamp|office chair|coffee mug|water bottle|laptop stand|keyboard|monitor|headphones|"
        "backpack|notebook|fountain pen|wall clock|tea pot|camera bag|phone case|garden hose|tool box|"
        "rain coat|running shoes|bread knife"
    ),
    "company": words(
        "Acme|Northwind|Blue River|Green Leaf|Sunrise Foods|Harbor Tech|Silver Oak|Red Stone|"
        "Bright Path|Cloud Nine|Iron Works|Polar Star|Golden Gate|Maple Street|Open Field"
    ),
    "color": words("red blue green yellow black white orange purple silver brown pink gray"),
    "status": words("active pending closed open draft done failed ready paused shipped new archived"),
    "level": words("low medium high urgent normal basic advanced expert beginner critical"),
    "topic": words(
        "history music science travel cooking sports health finance nature art design language robots "
        "weather gardens"
    ),
    "tag": words(
        "summer winter sale online fresh local daily weekly remote public private fast slow large "
        "small light heavy simple modern classic"
    ),
    "title": words(
        "The Quiet Sea|River of Glass|A Winter Song|The Last Garden|Stone and Sky|Night Train|"
        "Seven Letters|The Open Door|Paper Boats|Morning Light|The Long Road|City of Bells|Deep Forest|"
        "A Small Fire|Summer Rain"
    ),
    "note": words(
        "arrives in the morning|needs a second check|sent by mail|keep in a dry place|"
        "call before delivery|paid in full|waiting for parts|moved to next week|handle with care|"
        "works as expected|no comment yet|left at the front desk|approved by the team|"
        "please reply soon|first visit"
    ),
    "animal": words("cat dog horse rabbit parrot turtle goat sheep owl fox duck hamster"),
    "food": words(
        "rice bread soup salad pasta cheese noodles curry apples tomatoes chicken tofu salmon mushrooms"
    ),
    "unit": words("kg gram liter meter hour day piece box cup mile"),
    "material": words("wood steel cotton glass paper leather plastic copper wool clay"),
    "language": words("English French German Spanish Japanese Italian Korean Hindi Arabic Dutch"),
    "weekday": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "host": words(
        "web-main db-main cache-one mail-out api-edge file-store log-sink auth-node test-box build-farm"
    ),
}
JAPANESE: dict[str, list[str]] = {
    "city": words("東京 大阪 京都 名古屋 札幌 福岡 神戸 仙台 広島 横浜 奈良 金沢 長崎 那覇 新潟 松山"),
    "country": words("日本 フランス ドイツ イタリア スペイン カナダ インド ブラジル エジプト 韓国"),
    "product": words("机 椅子 電気スタンド 水筒 鉛筆 手帳 時計 急須 傘 鞄 茶碗 自転車 冷蔵庫 掃除機"),
    "company": words("山川商事 青空工業 桜食品 富士電機 海風運輸 若葉書店 北斗建設 光通信 丸山製作所"),
    "color": words("赤 青 緑 黄色 黒 白 紫 茶色 銀色 桃色"),
    "status": words("有効 保留 完了 下書き 失敗 準備中 発送済み 新規 停止"),
    "level": words("低 中 高 緊急 初級 中級 上級 普通"),
    "topic": words("歴史 音楽 科学 旅行 料理 運動 健康 経済 自然 美術 天気 言語"),
    "tag": words("夏 冬 特売 新鮮 地元 毎日 毎週 公開 限定 軽量 定番 人気"),
    "title": words(
        "静かな海 硝子の川 冬の歌 最後の庭 石と空 夜の汽車 七つの手紙 紙の舟 朝の光 長い道 鐘の町 夏の雨"
    ),
    "note": words(
        "午前中に届きます|再確認が必要です|郵便で送りました|支払い済みです|部品を待っています|"
        "来週に変更しました|取扱いに注意|問題はありません|受付に預けました|返事をお願いします|"
        "初めての訪問"
    ),
    "animal": words("猫 犬 馬 兎 亀 山羊 羊 狐 鳥 鹿"),
    "food": words("ご飯 パン 味噌汁 うどん 豆腐 鮭 りんご トマト 卵 茶 カレー"),
    "unit": words("個 箱 枚 本 杯 時間 日"),
    "material": words("木 鉄 綿 硝子 紙 革 銅 土"),
    "language": words("日本語 英語 仏語 独語 中国語 韓国語"),
    "weekday": words("月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日"),
}
# Strings that a naive writer gets wrong in at least one of the five formats.
TRICKY = [
    'the "big" one', 'say "hi"', "it's here", "don't move", "salt & pepper", "R&D", "a < b", "x > y",
    "if a < b & c", "red, blue", "one, two, three", "Reed, Sam", "key: value", "note: call back",
    "# not a comment", "C# and F#", "C:\\temp", "path\\to\\file", "- dash first", "* star", "[draft]",
    "{open}", "50% off", "@home", "!important", "a = b", "yes or no", "to be, or not", 'size 5"', "a|b",
    "100 %", "<b>bold</b>", "Q&A", "back\\slash", "`code`", "&amp;", "'single'", '"double"', "AT&T, Inc.",
    "x, \"y\", z", "a: b, c: d", "end.", "wait...", "hello, world",
]  # fmt: skip
TRICKY_JA = [
    "「静かな海」", "赤、青、緑", "東京(本社)", "価格:未定", "佐藤&鈴木", "冬 < 夏", '"特売"', "机, 椅子",
    "雨・風", "注意!", "# 見出し", "名前: 田中", "『紙の舟』", "大阪/京都", "茶 & パン", "朝, 昼, 夜",
]  # fmt: skip
COUNTS = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    12,
    15,
    16,
    18,
    20,
    24,
    25,
    30,
    32,
    40,
    45,
    48,
    50,
    60,
    64,
    75,
    80,
    90,
    100,
]
PRICES = [0.5, 1.5, 2.5, 4.5, 7.5, 9.5, 12.5, 19.5, 24.5, 49.5, 99.5, 3.25, 6.75, 8.25]
YEARS = [1998, 2005, 2010, 2012, 2015, 2018, 2019, 2020, 2021, 2022, 2023, 2024, 2025]
CODE_HEADS = words("AX BK CD EV FM GT HR KL MN PQ RS TX")
SYLLABLES = words(
    "ka ro mi te su no la vi do pe ra ti mo ne sa lu fi go ba zu ke ri ta no xi wa hu jo el an or in "
    "us et om ar"
)
SYLLABLES_JA = list(
    "アイウエオカキクケコサシスセソタチツテトナニネノハヒフヘホマミムメモラリルレロワン"
    "あおかきくさしたてとなのはまみやゆよらり"
)

Draw = Callable[[random.Random, bool], Scalar]


def person(rng: random.Random, japanese: bool) -> str:
    if japanese:
        return rng.choice(LAST_JA) + rng.choice(FIRST_JA)
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def made_up_word(rng: random.Random, japanese: bool = False) -> str:
    """A word from no list: only real copying can reproduce it."""
    if japanese:
        return "".join(rng.choice(SYLLABLES_JA) for _ in range(rng.randint(2, 4)))
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def tricky(rng: random.Random, japanese: bool) -> str:
    return rng.choice(TRICKY_JA if japanese else TRICKY)


def from_pool(kind: str) -> Draw:
    def draw(rng: random.Random, japanese: bool) -> Scalar:
        pool = JAPANESE.get(kind) if japanese else None
        return rng.choice(pool or ENGLISH[kind])

    return draw


KINDS: dict[str, Draw] = {
    **{kind: from_pool(kind) for kind in ENGLISH},
    "person": person,
    "tricky": tricky,
    "word": made_up_word,
    "count": lambda rng, _: rng.choice(COUNTS),
    "price": lambda rng, _: rng.choice(PRICES),
    "year": lambda rng, _: rng.choice(YEARS),
    "bool": lambda rng, _: rng.random() < 0.5,
    "code": lambda rng, _: f"{rng.choice(CODE_HEADS)}-{rng.choice(COUNTS)}",
}
TEXT_KINDS = [kind for kind in KINDS if kind not in {"count", "price", "year", "bool"}]


def draw_value(rng: random.Random, kind: str, japanese: bool) -> Scalar:
    """One value of a kind; Japanese where the kind has a Japanese pool and `japanese` asks for it."""
    return KINDS[kind](rng, japanese)
