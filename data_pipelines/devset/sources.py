"""Which voices and instrumentals of Debian packages the development set is made of.

Each excerpt of a band was screened for voices, by spectrogram and with a separator as detector.
Licences are those that the packages' own copyright files state.
"""

import dataclasses
from collections.abc import Callable

_KLETTRES = "usr/share/klettres"
_HEDGEWARS = "usr/share/games/hedgewars/Data"
_FILLETS = "usr/share/games/fillets-ng/sound"
_MULDJORD = "usr/share/games/fretsonfire/data/songs/muldjord/internal_degeneration"
_NEXUIZ = "usr/share/games/nexuiz/data/music.pk3"
_HYPERROGUE = "usr/share/hyperrogue/music"

EXCERPT_SECONDS = 10.1
"""Length of what was screened of a band."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """One person's recordings in a package.

    Attributes:
        kind: what it sounds like.
        language: code of ISO 639.
        files: pattern of the files below the package's root.
        speed: of playback; below 1 the voice is lower and slower.
        sample_rate: of the files, in Hz.
        sung: whether the recordings are of singing.
    """

    kind: str
    language: str
    package: str
    licence: str
    files: str
    speed: float = 1.0
    sample_rate: int = 44_100
    sung: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """One instrumental.

    Attributes:
        files: what is summed, below the package's root; "ARCHIVE!MEMBER" lies in a zip archive.
        starts: of the screened excerpts, in seconds.
    """

    style: str
    package: str
    licence: str
    files: tuple[str, ...]
    starts: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Everything in the set except the excerpt of the demo.

    Attributes:
        spoken: the voice of each clip whose voice stays as it is; the bands take turns, and so do
            each band's excerpts.
        pitched: the voice and the band of each clip whose voice is pitched to the band.
    """

    voices: dict[str, Voice]
    bands: dict[str, Band]
    spoken: tuple[str, ...]
    pitched: tuple[tuple[str, str], ...]


def _klettres(language: str, kind: str, files: str = "*/*") -> Voice:
    return Voice(
        kind=kind,
        language=language,
        package="klettres-data",
        licence="GPL-2+",
        files=f"{_KLETTRES}/{language}/{files}.ogg",
    )


def _hedgewars(
    folder: str, kind: str, language: str = "en", *, speed: float = 1.0, sung: bool = False
) -> Voice:
    return Voice(
        kind=kind,
        language=language,
        package="hedgewars-data",
        licence="GFDL-1.3",
        files=f"{_HEDGEWARS}/Sounds/voices/{folder}/*.ogg",
        speed=speed,
        sung=sung,
    )


def _fillets(language: str, kind: str, letter: str) -> Voice:
    return Voice(
        kind=kind,
        language=language,
        package=f"fillets-ng-data-{language}",
        licence="GPL-2",
        files=f"{_FILLETS}/*/{language}/*-{letter}-*.ogg",
        sample_rate=22_050,
    )


def _bands(package: str, licence: str, path: str) -> Callable[..., Band]:
    """Bands of a package, each made of its style, its file's place in `path` and its starts."""
    return lambda style, file, *starts: Band(
        style=style, package=package, licence=licence, files=(path.format(file),), starts=starts
    )


_hedgewars_band = _bands("hedgewars-data", "GPL-2", f"{_HEDGEWARS}/Music/{{}}.ogg")
_nexuiz_band = _bands("nexuiz-music", "GPL-2+", f"{_NEXUIZ}!sound/cdtracks/{{}}.ogg")
_hyperrogue_band = _bands("hyperrogue-music", "CC-BY-SA-3.0", f"{_HYPERROGUE}/{{}}.ogg")


DEBIAN = Table(
    voices={
        "singer": _hedgewars("Singer", "held notes with vibrato, high", sung=True),
        "singerlow": _hedgewars("Singer", "the same singer, lower", speed=0.75, sung=True),
        "british": _hedgewars("British", "exclaimed, male, comic"),
        "hillbilly": _hedgewars("HillBilly", "exclaimed and yelled, male"),
        "spaniard": _hedgewars("Default_es", "exclaimed, male", "es"),
        "ml": _klettres("ml", "chanted, held syllables, male", "syllab/*"),
        "tn": _klettres("tn", "held syllables, a woman or a child"),
        "pt": _klettres("pt_BR", "syllables, like a child (330 Hz)"),
        "cs": _klettres("cs", "letters, partly held, female", "alpha/*"),
        "nds": _klettres("nds", "syllables, male, low"),
        "uk": _klettres("uk", "syllables, female"),
        "fr": _klettres("fr", "syllables, male"),
        "it": _klettres("it", "syllables, female"),
        "lt": _klettres("lt", "syllables, male"),
        "zh": Voice(
            kind="syllables with tones, female",
            language="zh",
            package="gcin-voice",
            licence="CC-BY-3",
            files="usr/share/gcin-voice/ogg/*/5.ogg",
        ),
        "csfish": _fillets("cs", "acted lines, female", "m"),
        "csbig": _fillets("cs", "acted lines, male", "v"),
        "nlfish": _fillets("nl", "acted lines, female", "m"),
        "nlbig": _fillets("nl", "acted lines, male", "v"),
    },
    bands={
        "metal": Band(
            style="death metal",
            package="fretsonfire-songs-muldjord",
            licence="CC-BY-SA-3.0",
            files=(f"{_MULDJORD}/song.ogg", f"{_MULDJORD}/guitar.ogg"),
            starts=(134.0, 2.0),
        ),
        "earth": _hedgewars_band("synthesizers", "EarthRise", 52.0, 105.0),
        "oriental": _hedgewars_band("oriental folk", "oriental", 124.0, 62.0),
        "pirate": _hedgewars_band("sea folk", "pirate", 78.0, 156.0),
        "noir": _hedgewars_band("spy jazz", "sdmusic", 38.0, 29.0),
        "rock": _hedgewars_band("rock", "City", 179.0, 185.0),
        "bach": Band(
            style="baroque orchestra",
            package="gamine-data",
            licence="public domain",
            files=(
                "usr/share/games/gamine/sounds/BachJSBrandenburgConcertNo2inFMajorBWV1047mvmt1.ogg",
            ),
            starts=(92.0, 185.0),
        ),
        "dance": _nexuiz_band("techno", "stairs", 100.0, 108.0),
        "beast": _nexuiz_band("industrial", "beast-of-insanity", 91.0, 45.0),
        "jungle": _hyperrogue_band("ambient percussion", "hr3-jungle", 23.0, 46.0),
        "hunting": _hyperrogue_band("film orchestra", "hr-domina-hunting", 21.0, 42.0),
        "palace": _hyperrogue_band("chamber strings", "hr-savino-palace", 19.0, 10.0),
        "carib": _hyperrogue_band("island dance", "hr-savino-caribbean", 18.0, 5.0),
        "french": Band(
            style="synth pop",
            package="csmash-demosong",
            licence="EFF OAL 1.0",
            files=("usr/share/games/csmash/danslatristesse2-48.ogg",),
            starts=(39.0, 78.0),
        ),
    },
    spoken=(
        *("singer", "ml", "csfish", "tn", "british", "zh", "singer"),
        *("nds", "pt", "singerlow", "nlbig", "uk", "hillbilly", "cs"),
        *("csbig", "singer", "fr", "ml", "pt", "singerlow", "spaniard"),
        *("csfish", "zh", "singer", "it", "tn", "lt", "nlfish"),
    ),
    pitched=(
        *(("uk", "earth"), ("spaniard", "metal"), ("tn", "oriental"), ("nds", "pirate")),
        *(("it", "noir"), ("british", "rock"), ("cs", "bach"), ("pt", "dance")),
        *(("lt", "beast"), ("ml", "jungle"), ("fr", "hunting"), ("csfish", "palace")),
        *(("zh", "carib"), ("hillbilly", "french")),
    ),
)
