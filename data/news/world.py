"""An invented country: prefectures, towns, people, employers and police stations that do not exist."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data.news.records import Person
from data.values import FIRST_JA, LAST_JA, words

PREFECTURES = words("青嶺県 白瀬県 東浜県 南雲県 北咲県 西湊県 千歳川県 若芽県")
TOWN_HEADS = words(
    "桜雲 緑葉 朝凪 水鏡 星影 月見 鶴舞 松風 藤波 梅香 霧雨 雪灯 花霞 夕凪 竜胆 若草 茜空 銀鈴 常夏 黒岩"
)
TOWN_TAILS = words("ヶ原市 川市 浦市 野市 崎市 沢町 台市 里町 島市 坂市")
QUARTERS = words("本町 栄町 中央 港 東 西 南 北 大通 新町 旭 泉 宮前 若松")
FAMILY = LAST_JA + words(
    "阿久根 有馬 飯塚 石動 宇都 榎並 小野塚 柏木 蒲田 菊地原 久我 栗栖 郷田 斎木 桜庭 宍戸 白鳥 菅沼 瀬良 "
    "高瀬 館林 津久井 寺門 徳永 鳥飼 名倉 錦織 野々村 羽生田 東雲 日下部 福士 古賀 真鍋 三雲 村瀬 諸星 "
    "柳生 結城 湯浅 脇坂"
)
GIVEN = FIRST_JA + words(
    "亮介 浩一 智子 隆 美穂 英樹 千尋 勇気 栞 正明 裕子 修平 香織 達也 みどり 啓太 久美子 光 俊彦 奈緒 "
    "康平 里奈 茂 遥 義男 菜々子 伸二 瑠美 哲夫 さくら"
)
JOBS = words("会社員 無職 アルバイト 自営業 飲食店経営 農業 大学生 運転手 作業員 団体職員 専門学校生")
POSITIONS = words("社員 店長 課長 教諭 職員 代表 役員 係長 看護師 記者 監督 理事長 部長")
EMPLOYERS = words(
    "山川商事 青空工業 桜食品 海風運輸 若葉書店 北斗建設 光通信 丸山製作所 夕日銀行 緑野病院 松風小学校 "
    "市立第二高校 星見新聞 川端農協 朝霧警備 花園学院大学 常盤バス 黒岩鉄工"
)
VENUES = words(
    "コンビニエンスストア 駐車場 住宅 飲食店 路上 公園 駅のホーム 商業施設 集合住宅 倉庫 銀行 図書館 病院"
)


@dataclass(frozen=True)
class Place:
    """A quarter of a town. Heads and tails of town names are put together so that none is a real town's."""

    prefecture: str
    town: str
    quarter: str

    @property
    def full(self) -> str:
        return f"{self.prefecture}{self.town}{self.quarter}"

    @property
    def station(self) -> str:
        return f"{self.town[:-1]}署"


class World:
    """Draws what an article needs; the same state of `rng` draws the same."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._names: set[str] = set()

    def one(self, pool: list[str] | tuple[str, ...]) -> str:
        return self.rng.choice(pool)

    def maybe(self, probability: float) -> bool:
        return self.rng.random() < probability

    def place(self) -> Place:
        quarter = self.one(QUARTERS) + self.one(("", "1丁目", "2丁目", "3丁目", "4丁目"))
        return Place(self.one(PREFECTURES), self.one(TOWN_HEADS) + self.one(TOWN_TAILS), quarter)

    def name(self) -> str:
        """Nobody twice in one article."""
        while (name := self.one(FAMILY) + self.one(GIVEN)) in self._names:
            pass
        self._names.add(name)
        return name

    def person(self) -> Person:
        """With an occupation of its own or a position somewhere, an age and an address, or without them."""
        employed = self.maybe(0.4)
        return Person(
            name=self.name(),
            age=str(self.rng.randint(18, 84)) if self.maybe(0.9) else "",
            position=self.one(POSITIONS) if employed else self.one(JOBS) if self.maybe(0.8) else "",
            affiliation=self.one(EMPLOYERS) if employed else "",
            address=self.place().full if self.maybe(0.6) else "",
        )

    def day(self) -> str:
        return f"{self.rng.randint(1, 28)}日"

    def time(self) -> str:
        return f"{self.one(('午前', '午後'))}{self.rng.randint(1, 11)}時{self.one(('', '半', '15分', '40分'))}ごろ"

    def yen(self) -> str:
        return f"約{self.one((f'{self.rng.randint(1, 98)}万', f'{self.rng.randint(1, 9)}千'))}円"
