"""Which voices and instrumentals of Debian packages the development set is made of.

Each excerpt of a band was screened for voices, by spectrogram and with a separator as detector.
Licences are those that the packages' own copyright files state.
"""

import dataclasses
from typing import Any

_Source = tuple[str, str, str]
"""Package, licence, and path to a file or files in the package."""
_KLETTRES = ("klettres-data", "GPL-2+", "usr/share/klettres/{language}/{}.ogg")
_FISH = "usr/share/games/fillets-ng/sound/*/{language}/*-{}-*.ogg"
_FILLETS = ("fillets-ng-data-{language}", "GPL-2", _FISH)
_GCIN = ("gcin-voice", "CC-BY-3", "usr/share/gcin-voice/ogg/{}.ogg")
_HEDGEWARS = "usr/share/games/hedgewars/Data"
_SOLDIERS = ("hedgewars-data", "GFDL-1.3", f"{_HEDGEWARS}/Sounds/voices/{{}}/*.ogg")
_BATTLE = ("hedgewars-data", "GPL-2", f"{_HEDGEWARS}/Music/{{}}.ogg")
_GAMINE = ("gamine-data", "public domain", "usr/share/games/gamine/sounds/{}.ogg")
_BRANDENBURG = "BachJSBrandenburgConcertNo2inFMajorBWV1047mvmt1"
_MUSIC = "usr/share/games/nexuiz/data/music.pk3!sound/cdtracks/{}.ogg"
_NEXUIZ = ("nexuiz-music", "GPL-2+", _MUSIC)
_HYPERROGUE = ("hyperrogue-music", "CC-BY-SA-3.0", "usr/share/hyperrogue/music/{}.ogg")
_CSMASH = ("csmash-demosong", "EFF OAL 1.0", "usr/share/games/csmash/{}.ogg")
_MULDJORD = "usr/share/games/fretsonfire/data/songs/muldjord/internal_degeneration"

EXCERPT_SECONDS = 10.1
"""Length of what was screened of a band."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """One person's recordings in a package.

    Attributes:
        kind: description of its sound.
        language: code of ISO 639.
        files: pattern of the files below the package's root.
        speed: speed of playback; below 1 the voice is lower and slower.
        bandwidth_hz: bandwidth of the recordings, if it is less than the set's.
        sung: whether the recordings are of singing.
    """

    kind: str
    language: str
    package: str
    licence: str
    files: str
    speed: float = 1.0
    bandwidth_hz: int | None = None
    sung: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """One instrumental.

    Attributes:
        files: what is summed, below the package's root; "ARCHIVE!MEMBER" lies in a zip archive.
        starts: starts of the screened excerpts, in seconds.
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


def _voice(source: _Source, files: str, language: str, kind: str, **about: Any) -> Voice:
    package, licence, path = (text.format(files, language=language) for text in source)
    return Voice(
        kind=kind, language=language, package=package, licence=licence, files=path, **about
    )


def _band(source: _Source, style: str, file: str, *starts: float) -> Band:
    package, licence, path = source
    return Band(
        style=style, package=package, licence=licence, files=(path.format(file),), starts=starts
    )


DEBIAN = Table(
    voices={
        "singer": _voice(_SOLDIERS, "Singer", "en", "held notes with vibrato, high", sung=True),
        "singerlow": _voice(
            _SOLDIERS, "Singer", "en", "the same singer, lower", speed=0.75, sung=True
        ),
        "british": _voice(_SOLDIERS, "British", "en", "exclaimed, male, comic"),
        "hillbilly": _voice(_SOLDIERS, "HillBilly", "en", "exclaimed and yelled, male"),
        "spaniard": _voice(_SOLDIERS, "Default_es", "es", "exclaimed, male"),
        "ml": _voice(_KLETTRES, "syllab/*", "ml", "chanted, held syllables, male"),
        "tn": _voice(_KLETTRES, "*/*", "tn", "held syllables, a woman or a child"),
        "pt": _voice(_KLETTRES, "*/*", "pt_BR", "syllables, like a child (330 Hz)"),
        "cs": _voice(_KLETTRES, "alpha/*", "cs", "letters, partly held, female"),
        "nds": _voice(_KLETTRES, "*/*", "nds", "syllables, male, low"),
        "uk": _voice(_KLETTRES, "*/*", "uk", "syllables, female"),
        "fr": _voice(_KLETTRES, "*/*", "fr", "syllables, male"),
        "it": _voice(_KLETTRES, "*/*", "it", "syllables, female"),
        "lt": _voice(_KLETTRES, "*/*", "lt", "syllables, male"),
        "zh": _voice(_GCIN, "*/5", "zh", "syllables with tones, female"),
        "csfish": _voice(_FILLETS, "m", "cs", "acted lines, female", bandwidth_hz=11_025),
        "csbig": _voice(_FILLETS, "v", "cs", "acted lines, male", bandwidth_hz=11_025),
        "nlfish": _voice(_FILLETS, "m", "nl", "acted lines, female", bandwidth_hz=11_025),
        "nlbig": _voice(_FILLETS, "v", "nl", "acted lines, male", bandwidth_hz=11_025),
    },
    bands={
        "metal": Band(
            style="death metal",
            package="fretsonfire-songs-muldjord",
            licence="CC-BY-SA-3.0",
            files=(f"{_MULDJORD}/song.ogg", f"{_MULDJORD}/guitar.ogg"),
            starts=(134.0, 2.0),
        ),
        "earth": _band(_BATTLE, "synthesizers", "EarthRise", 52.0, 105.0),
        "oriental": _band(_BATTLE, "oriental folk", "oriental", 124.0, 62.0),
        "pirate": _band(_BATTLE, "sea folk", "pirate", 78.0, 156.0),
        "noir": _band(_BATTLE, "spy jazz", "sdmusic", 38.0, 29.0),
        "rock": _band(_BATTLE, "rock", "City", 179.0, 185.0),
        "bach": _band(_GAMINE, "baroque orchestra", _BRANDENBURG, 92.0, 185.0),
        "dance": _band(_NEXUIZ, "techno", "stairs", 100.0, 108.0),
        "beast": _band(_NEXUIZ, "industrial", "beast-of-insanity", 91.0, 45.0),
        "jungle": _band(_HYPERROGUE, "ambient percussion", "hr3-jungle", 23.0, 46.0),
        "hunting": _band(_HYPERROGUE, "film orchestra", "hr-domina-hunting", 21.0, 42.0),
        "palace": _band(_HYPERROGUE, "chamber strings", "hr-savino-palace", 19.0, 10.0),
        "carib": _band(_HYPERROGUE, "island dance", "hr-savino-caribbean", 18.0, 5.0),
        "french": _band(_CSMASH, "synth pop", "danslatristesse2-48", 39.0, 78.0),
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
