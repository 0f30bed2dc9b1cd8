"""Where the layouts of data sets keep a song's stems.

| layout | a song |
|---|---|
| `musdb18hq` | {train,test}/SONG/{mixture,vocals,drums,bass,other}.wav |
| `musdb18` | {train,test}/SONG.stem.mp4, five audio streams |
| `stems` | [{train,validation,test}/]SONG/, stems at any depth, told by patterns |
| `pairs` | [{train,validation,test}/]SONG/ with mixture and vocals, told by patterns |

What is hidden (.NAME) is not looked at, links are followed. A song that is not as expected, or of
which something cannot be read, is left out by name with the reason.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.builders.patterns import PAIRS, STEMS, Patterns
from data_pipelines.builders.recordings import Findings, Recording, StemFile
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

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
}
"""Names of folders, in any case, that `stems` and `pairs` take as a split."""

_MUSDB_OTHERS = ("drums", "bass", "other")
_STEM_MP4 = ".stem.mp4"
# Its audio streams.
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
    stems = ("vocals", *_MUSDB_OTHERS)

    def song(folder: Path, name: str, split: str) -> Recording | str:
        files = defaultdict(list)
        for path in _entries(folder):
            if path.suffix.lower() in AUDIO_SUFFIXES and not os.path.isdir(path):
                files[path.stem.lower()].append(path)
        for stem in (*stems, "mixture"):
            if len(files[stem]) > 1:
                both = " and ".join(path.name for path in files[stem])
                return f"{folder}: {both} in it; one file of {stem} is expected"
            for path in files[stem]:
                _check_file(path)
        missing = [stem for stem in stems if not files[stem]]
        if missing:
            return f"{folder}: no {' and no '.join(f'{stem}.wav' for stem in missing)} in it"
        others = tuple(StemFile(files[stem][0]) for stem in _MUSDB_OTHERS)
        mixture = StemFile(files["mixture"][0]) if files["mixture"] else None
        return Recording(name, split, (StemFile(files["vocals"][0]),), others, mixture)

    return _collect(root, _musdb_songs(root, _folders, "SONG/vocals.wav"), song)


def musdb18(root: Path) -> Findings:
    """MUSDB18 in Native Instruments' stem format (zenodo.org/records/1117372)."""

    def song(path: Path, name: str, split: str) -> Recording:
        _check_file(path)
        others = tuple(StemFile(path, stream) for stream in _OTHERS)
        return Recording(name, split, (StemFile(path, _VOCALS),), others, StemFile(path, _MIXTURE))

    def stem_files(folder: Path) -> list[Path]:
        return [path for path in _entries(folder) if path.name.endswith(_STEM_MP4)]

    return _collect(root, _musdb_songs(root, stem_files, f"SONG{_STEM_MP4}"), song)


def stems(root: Path, patterns: Patterns) -> Findings:
    """Any folder of songs; each is a folder whose files the patterns tell apart."""

    def song(folder: Path, name: str, split: str) -> Recording | str:
        vocals, others, mixture = patterns.sort(folder, _song_files(folder, patterns))
        if not vocals and not (patterns.instrumentals and others):
            return f"{folder}: none of its files matches the patterns of vocals"
        if not others and mixture is None:
            return f"{folder}: vocals alone; a mixture or other stems are expected beside them"
        return Recording(name, split, vocals, others, mixture)

    places, left_out = _songs(root)
    return _collect(root, places, song, left_out)


def pairs(root: Path, patterns: Patterns) -> Findings:
    """Folders that hold a mixture and its vocals; other stems are not looked at."""

    def song(folder: Path, name: str, split: str) -> Recording | str:
        vocals, _, mixture = patterns.sort(folder, _song_files(folder, patterns))
        if not vocals or mixture is None:
            lacking = "mixture" if vocals else "vocals"
            return f"{folder}: none of its files matches the patterns of {lacking}"
        return Recording(name, split, vocals, (), mixture)

    places, left_out = _songs(root)
    return _collect(root, places, song, left_out)


Place = tuple[Path, str, str]
"""Where a song is, its name, its split."""


def _collect(
    root: Path,
    places: Iterable[Place],
    song: Callable[[Path, str, str], Recording | str],
    left_out: dict[str, str] | None = None,
) -> Findings:
    """`song` gives a reason, or raises UserError with it, for what is left out."""
    recordings, left_out = [], dict(left_out or {})
    for path, name, split in places:
        try:
            found = song(path, name, split)
        except UserError as error:
            found = str(error)
        if isinstance(found, str):
            # Not by its name, which two songs of train and test may share.
            left_out[path.relative_to(root).as_posix().removesuffix(_STEM_MP4)] = found
        else:
            recordings.append(found)
    return Findings(tuple(recordings), left_out)


def _musdb_songs(root: Path, songs: Callable[[Path], list[Path]], expected: str) -> list[Place]:
    _check_folder(root)
    places = []
    for part in ("train", "test"):
        for path in songs(root / part) if (root / part).is_dir() else ():
            name = path.name.removesuffix(_STEM_MP4)
            held_out = part == "train" and name in MUSDB_VALIDATION
            places.append((path, name, "validation" if held_out else part))
    if not places:
        raise UserError(f"{root}: no songs in it; {{train,test}}/{expected} is expected")
    return places


def _songs(root: Path) -> tuple[list[Place], dict[str, str]]:
    """Sub-folders of the splits' folders, or of `root` itself where it has none of these.

    With them what lies beside the splits' folders, and so is left out.
    """
    _check_folder(root)
    folders = _folders(root)
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    told = " and ".join(part.name for part in parts)
    left_out = {
        folder.name: f"{folder}: beside {told}; songs are expected in these"
        for folder in folders
        if parts and folder not in parts
    }
    places = [
        (folder, folder.relative_to(root).as_posix(), SPLIT_FOLDERS[part.name.lower()])
        for part in parts
        for folder in _folders(part)
    ] or [(folder, folder.name, "train") for folder in folders if not parts]
    if not places:
        raise UserError(f"{root}: no songs in it; a folder for each song is expected")
    return places, left_out


def _song_files(folder: Path, patterns: Patterns) -> list[Path]:
    """The audio files of a song. UserError where its sub-folders look like songs themselves."""
    files = _audio_files(folder)
    kinds: dict[str, set[str]] = defaultdict(set)
    for path in files:
        part, *below = path.relative_to(folder).parts
        if below:
            kinds[part].add(patterns.kind(folder, path))
    nested = [part for part, of in kinds.items() if "vocals" in of and of & {"mixture", "others"}]
    if len(nested) > 1:
        raise UserError(
            f"{folder}: {nested[0]} and {nested[1]} in it look like songs of their own; songs are"
            f" expected one level below the split's folder, directly in {folder.parent}"
        )
    return files


def _audio_files(folder: Path, above: Sequence[Path] = ()) -> list[Path]:
    """Audio files at any depth, except through a link back to a folder `above`.

    Raises UserError for a link to nothing and for what cannot be read.
    """
    above = (*above, _real(folder))
    files = []
    for path in _entries(folder):
        if os.path.isdir(path):
            if not any(each.is_relative_to(_real(path)) for each in above):
                files += _audio_files(path, above)
        elif path.suffix.lower() in AUDIO_SUFFIXES or not os.path.exists(path):
            _check_file(path)
            files.append(path)
    return files


def _folders(folder: Path) -> list[Path]:
    """Sub-folders; a link to nothing counts, so that it is told."""
    return [p for p in _entries(folder) if os.path.isdir(p) or not os.path.exists(p)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; a readable folder is expected") from None


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; the data set's folder is expected")


def _check_file(path: Path) -> None:
    # Not Path.is_file, which raises where a folder above may not be searched.
    if not os.path.exists(path):
        raise UserError(f"{path}: a link to nothing, or not accessible; mend or delete it")
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise UserError(f"{path}: not a file that can be read; mend or delete it")
