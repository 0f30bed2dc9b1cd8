"""Words to sing and to say: English and Japanese sentences."""

from numpy.random import Generator

_ENGLISH = str.split("""
love night day heart way time fire light home rain sea moon star dream fall run feel hold stay go
down high blue sky soul free mine you me all now here there more gone long road wind song know see
hear say wait break shine cold warm new old good bad world fly cry lie far near left right eyes hand
face name game play pray stone bone tears years fear low grow slow snow show dance chance sand land
stand air arm back ball bank beat bed bell bird black blood boat body book born both boy bread bring
brother build burn call came care carry change child city clean clear climb close cloud come corner
count country cover cross crown dark daughter dead deep different dirt door doubt draw drink drive
drop dry dust early earth easy empty end enough evening ever every father feather field fight find
finger fish flag flame floor flower follow food foot forest forget found friend garden ghost girl
give glass gold grass gray great green ground guess hair half hammer happy hard hate heaven heavy
hello help hero hill honey hope horse hot hour house hundred hungry ice island join jump just keep
key kill kind king kiss kitchen knife lady lake laugh lazy lead learn leave letter level life lion
listen little lonely lose loud machine magic make man many matter maybe mean meet memory metal
middle mile milk million mind mirror mission money monster morning mother mountain mouth move music
must nature neck need never nobody noise north nothing number ocean only open orange other outside
over paper party pass peace people perfect picture place plan poor power promise pull pure push
queen question quick quiet radio reach ready reason red remember rich ride ring rise river rock roll
room rose round rule safe said sail salt same save school scream second secret seven shadow shake
shape share ship shoot short shoulder shout sick silence silver simple sing sister sit six skin
sleep small smile smoke snake soft soldier someone sorry sound south space spin spirit spring star
start steal step stop storm story strange street strong stupid such suddenly sugar summer sun sure
sweet swim table take talk tall taste teach tell ten thank thing think thirty thousand three thunder
ticket tiger tiny today together tomorrow tongue touch tower town train travel tree trouble true
trust truth try turn twenty under until use valley very village visit voice walk wall want war watch
water wave weather week welcome west wheel white whole wild window wing winter wish without woman
wonder wood word work worry write wrong yellow yes yesterday young
""")
_JOINTS = str.split("the a my your and in on of to with we I it is was will can so but no")
_NOUNS = str.split("""
空 海 風 花 夢 星 月 光 雨 雪 川 山 道 町 声 歌 心 涙 朝 夜 春 夏 秋 冬 森 鳥 魚 犬 猫 船 窓 扉 鏡
時計 手紙 言葉 笑顔 約束 世界 未来 記憶 季節 太陽 友達 子供 電車 公園 学校 音楽 写真 魔法 勇気
""")
_VERBS = str.split("""
消える 光る 歌う 走る 泣く 笑う 眠る 落ちる 流れる 揺れる 見える 聞こえる 始まる 終わる 飛んでいく
帰ってくる 待っている 燃えている 変わらない 忘れない
""")


def english(rng: Generator) -> str:
    """Words in a row as a statement, a question or a call; eight to twelve syllables or so."""
    words = [str(rng.choice(_JOINTS if rng.random() < 0.3 else _ENGLISH)) for _ in range(8)]
    return " ".join(words[: int(rng.integers(6, 9))]) + str(rng.choice([".", ".", ".", "?", "!"]))


def japanese(rng: Generator) -> str:
    """A sentence of about twelve syllables."""
    first, second, third = (str(word) for word in rng.choice(_NOUNS, 3))
    joint = str(rng.choice(["が", "は", "も"]))
    case = str(rng.choice(["に", "で", "と", "を"]))
    verb, end = str(rng.choice(_VERBS)), str(rng.choice(["。", "。", "!", "?"]))
    return f"{first}の{second}{joint}{third}{case}{verb}{end}"
