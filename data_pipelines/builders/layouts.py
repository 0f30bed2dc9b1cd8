"""Where the layouts of data sets keep a song's stems.

| layout | a song |
|---|---|
| `musdb18hq` | {train,test}/SONG/{mixture,vocals,drums,bass,other}.wav |
| `musdb18` | {train,test}/SONG.stem.mp4, five audio streams |
| `stems` | [{train,validation,test}/]SONG/, stems at any depth, told by patterns |
| `pairs` | [{train,validation,test}/]SONG/ with mixture and vocals, told by patterns |
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from data_pipelines.builders.patterns import PAIRS, STEMS, Patterns
from data_pipelines.builders.recordings import SPLITS, Findings, Recording, StemFile
from diffsep_jax.errors import UserError

Layout = Literal["musdb18hq", "musdb18", "stems", "pairs"]

AUDIO_SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a", ".mp4")

MUSDB_VALIDATION = (
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)
"""The 14 of MUSDB18's 100 training songs that are held out (musdb 0.4.3, configs/mus.yaml)."""

_MUSDB_OTHERS = ("drums", "bass", "other")
# Audio streams of a .stem.mp4.
_MIXTURE, _OTHERS, _VOCALS = 0, (1, 2, 3), 4


def find(layout: Layout, root: Path, patterns: Patterns | None = None) -> Findings:
    """The recordings in a folder; `patterns` are for `stems` and `pairs`, which have defaults.

    Raises UserError where the folder is missing or has no songs.
    """
    if layout == "stems":
        return stems(root, patterns or STEMS)
    if layout == "pairs":
        return pairs(root, patterns or PAIRS)
    if patterns is not None:
        raise UserError(f"{layout} has no patterns; only stems and pairs take them")
    return musdb18hq(root) if layout == "musdb18hq" else musdb18(root)


def musdb18hq(root: Path) -> Findings:
    """MUSDB18-HQ, uncompressed (zenodo.org/records/3338373)."""

    def song(folder: Path, name: str, split: str) -> Recording | str:
        files = {path.stem.lower(): path for path in _audio_files(folder)}
        missing = [stem for stem in ("vocals", *_MUSDB_OTHERS) if stem not in files]
        if missing:
            return f"{folder}: no {' and no '.join(f'{stem}.wav' for stem in missing)} in it"
        others = tuple(StemFile(files[stem]) for stem in _MUSDB_OTHERS)
        mixture = StemFile(files["mixture"]) if "mixture" in files else None
        return Recording(name, split, (StemFile(files["vocals"]),), others, mixture)

    return _collect(_musdb_songs(root, "*/"), song)


def musdb18(root: Path) -> Findings:
    """MUSDB18 in Native Instruments' stem format (zenodo.org/records/1117372)."""

    def song(path: Path, name: str, split: str) -> Recording:
        others = tuple(StemFile(path, stream) for stream in _OTHERS)
        return Recording(name, split, (StemFile(path, _VOCALS),), others, StemFile(path, _MIXTURE))

    return _collect(_musdb_songs(root, "*.stem.mp4"), song)


def stems(root: Path, patterns: Patterns) -> Findings:
    """Any folder of songs; each is a folder whose files the patterns tell apart."""

    def song(folder: Path, name: str, split: str) -> Recording | str:
        vocals, others, mixture = patterns.sort(folder, _audio_files(folder))
        if not vocals and not (patterns.instrumentals and others):
            return f"{folder}: none of its files matches the patterns of vocals"
        if not others and mixture is None:
            return f"{folder}: vocals alone; a mixture or other stems are expected beside them"
        return Recording(name, split, vocals, others, mixture)

    return _collect(_songs(root), song)


def pairs(root: Path, patterns: Patterns) -> Findings:
    """Folders that hold a mixture and its vocals; other stems are not looked at."""

    def song(folder: Path, name: str, split: str) -> Recording | str:
        vocals, _, mixture = patterns.sort(folder, _audio_files(folder))
        if not vocals or mixture is None:
            lacking = "mixture" if vocals else "vocals"
            return f"{folder}: none of its files matches the patterns of {lacking}"
        return Recording(name, split, vocals, (), mixture)

    return _collect(_songs(root), song)


Place = tuple[Path, str, str]
"""Where a song is, its name, its split."""


def _collect(
    places: Iterable[Place], song: Callable[[Path, str, str], Recording | str]
) -> Findings:
    recordings, left_out = [], {}
    for path, name, split in places:
        found = song(path, name, split)
        if isinstance(found, str):
            left_out[name] = found
        else:
            recordings.append(found)
    return Findings(tuple(recordings), left_out)


def _musdb_songs(root: Path, pattern: str) -> list[Place]:
    _check_folder(root)
    places = []
    for part in ("train", "test"):
        for path in sorted((root / part).glob(pattern)):
            if not path.name.startswith("."):
                name = path.name.removesuffix(".stem.mp4")
                held_out = part == "train" and name in MUSDB_VALIDATION
                places.append((path, name, "validation" if held_out else part))
    if not places:
        expected = "SONG/vocals.wav" if pattern == "*/" else "SONG.stem.mp4"
        raise UserError(f"{root}: no songs in it; {{train,test}}/{expected} is expected")
    return places


def _songs(root: Path) -> list[Place]:
    """Sub-folders of the splits' folders, or of `root` itself where it has none of these."""
    _check_folder(root)
    parts = [split for split in SPLITS if (root / split).is_dir()]
    places = [
        (folder, folder.name if part == root else f"{part.name}/{folder.name}", split)
        for part, split in ([(root / s, s) for s in parts] or [(root, "train")])
        for folder in sorted(part.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    if not places:
        raise UserError(f"{root}: no songs in it; a folder for each song is expected")
    return places


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; the data set's folder is expected")


def _audio_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    )
