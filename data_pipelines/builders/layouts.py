"""Where the layouts of data sets keep a song's stems.

| layout | a song |
|---|---|
| `musdb18hq` | {train,test}/SONG/{mixture,vocals,drums,bass,other}.wav |
| `musdb18` | {train,test}/SONG.stem.mp4, five audio streams |
| `stems` | [{train,validation,test}/]SONG/, stems at any depth, found by patterns |
| `pairs` | [{train,validation,test}/]SONG/ with mixture and vocals, found by patterns |

Hidden files (.NAME) are ignored, links are followed. A song that is not as expected is left out by
name, with the reason.
"""

import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.builders.patterns import PAIRS, STEMS, Patterns, read_patterns
from data_pipelines.recordings import AUDIO_SUFFIXES, Recording, StemFile, visible
from diffsep_jax.errors import UserError

Layout = Literal["musdb18hq", "musdb18", "stems", "pairs"]

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


@dataclasses.dataclass(frozen=True)
class Findings:
    """What is in a folder.

    Attributes:
        recordings: sorted by name within each split.
        left_out: path below the folder -> reason, for what is no recording but looks like one.
    """

    recordings: tuple[Recording, ...]
    left_out: dict[str, str]


def find(layout: Layout, root: Path, patterns: Path | None = None) -> Findings:
    """The recordings in a folder.

    `patterns`: TOML file that replaces some of the default patterns of `stems` or `pairs`.

    Raises:
        UserError: the folder is missing or has no songs, or the patterns cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected the data set's folder")
    if layout in ("stems", "pairs"):
        default = STEMS if layout == "stems" else PAIRS
        chosen = default if patterns is None else read_patterns(patterns, default)
        places, left_out = _songs(root)
        song = functools.partial(recording_of, patterns=chosen, pairs=layout == "pairs")
        return _collect(root, places, song, left_out)
    if patterns is not None:
        raise UserError(
            f"patterns is {patterns}; expected none for {layout}: only stems and pairs have them"
        )
    return _musdb18hq(root) if layout == "musdb18hq" else _musdb18(root)


def _musdb18hq(root: Path) -> Findings:
    """MUSDB18-HQ, uncompressed (zenodo.org/records/3338373)."""

    def song(folder: Path, name: str, split: str) -> Recording:
        audio = [
            path
            for path in visible(folder)
            if path.suffix.lower() in AUDIO_SUFFIXES and not os.path.isdir(path)
        ]
        _refuse_twins(folder, audio)
        files = {path.stem.lower(): StemFile(path) for path in audio}
        missing = [stem for stem in ("vocals", *_MUSDB_OTHERS) if stem not in files]
        if missing:
            names = " and no ".join(f"{stem}.wav" for stem in missing)
            raise UserError(f"{folder}: no {names} in it")
        others = tuple(files[stem] for stem in _MUSDB_OTHERS)
        return Recording(name, (files["vocals"],), others, files.get("mixture"), split)

    return _collect(root, _musdb_songs(root, _folders, "SONG/vocals.wav"), song)


def _musdb18(root: Path) -> Findings:
    """MUSDB18 in Native Instruments' stem format (zenodo.org/records/1117372)."""

    def song(path: Path, name: str, split: str) -> Recording:
        others = tuple(StemFile(path, stream) for stream in _OTHERS)
        return Recording(name, (StemFile(path, _VOCALS),), others, StemFile(path, _MIXTURE), split)

    def stem_files(folder: Path) -> list[Path]:
        return [path for path in visible(folder) if path.name.endswith(_STEM_MP4)]

    return _collect(root, _musdb_songs(root, stem_files, f"SONG{_STEM_MP4}"), song)


def recording_of(
    folder: Path, name: str, split: str = "train", *, patterns: Patterns, pairs: bool = False
) -> Recording:
    """The song in a folder, by patterns; of `pairs` other stems are ignored.

    Raises UserError if it lacks vocals or all else.
    """
    files = _song_files(folder, patterns)
    _refuse_twins(folder, [path for path in files if patterns.kind(folder, path) != "ignored"])
    vocals, others, mixture = patterns.sort(folder, files)
    if pairs:
        others = ()
    if not vocals and not (patterns.instrumentals and others):
        raise UserError(f"{folder}: no file matches the patterns of vocals")
    if not others and mixture is None:
        expected = "a mixture" if pairs else "a mixture or other stems"
        raise UserError(f"{folder}: holds only vocals; expected {expected} too")
    return Recording(name, vocals, others, mixture, split)


def _refuse_twins(folder: Path, files: Sequence[Path]) -> None:
    """Raises UserError if two files of a song differ in their suffixes or in case alone."""
    known: dict[str, Path] = {}
    for path in files:
        twin = known.setdefault(str(path.with_suffix("")).lower(), path)
        if twin is not path:
            stem = path.stem.lower()
            raise UserError(
                f"{folder}: {twin.name} and {path.name} in it; expected one file of {stem}"
            )


Place = tuple[Path, str, str]
"""Where a song is, its name, its split."""


def _collect(
    root: Path,
    places: Iterable[Place],
    song: Callable[[Path, str, str], Recording],
    left_out: dict[str, str] | None = None,
) -> Findings:
    """`song` raises UserError, with the reason, for what is left out."""
    recordings, left_out = [], dict(left_out or {})
    for path, name, split in places:
        try:
            recordings.append(song(path, name, split))
        except UserError as error:
            # By its path: songs of train and test may share a name.
            left_out[path.relative_to(root).as_posix().removesuffix(_STEM_MP4)] = str(error)
    return Findings(tuple(recordings), left_out)


def _musdb_songs(root: Path, songs: Callable[[Path], list[Path]], expected: str) -> list[Place]:
    places = []
    for part in ("train", "test"):
        for path in songs(root / part) if (root / part).is_dir() else ():
            name = path.name.removesuffix(_STEM_MP4)
            held_out = part == "train" and name in MUSDB_VALIDATION
            places.append((path, name, "validation" if held_out else part))
    if not places:
        raise UserError(f"{root}: no songs in it; expected {{train,test}}/{expected}")
    return places


def _songs(root: Path) -> tuple[list[Place], dict[str, str]]:
    """Sub-folders of the splits' folders, or of `root` itself if there are none.

    Also the folders next to those of the splits, which are left out, with the reason.
    """
    folders = _folders(root)
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    named = " and ".join(part.name for part in parts)
    left_out = {
        folder.name: f"{folder}: next to {named}; songs are expected in these"
        for folder in folders
        if parts and folder not in parts
    }
    places = [
        (folder, folder.relative_to(root).as_posix(), SPLIT_FOLDERS[part.name.lower()])
        for part in parts
        for folder in _folders(part)
    ] or [(folder, folder.name, "train") for folder in folders if not parts]
    if not places:
        raise UserError(f"{root}: no songs in it; expected a folder for each song")
    return places, left_out


def _song_files(folder: Path, patterns: Patterns) -> list[Path]:
    """The audio files of a song. Raises UserError if its sub-folders look like songs."""
    files = audio_files(folder)
    kinds: dict[str, set[str]] = defaultdict(set)
    for path in files:
        part, *below = path.relative_to(folder).parts
        if below:
            kinds[part].add(patterns.kind(folder, path))
    nested = [part for part, of in kinds.items() if "vocals" in of and of & {"mixture", "others"}]
    if len(nested) > 1:
        raise UserError(
            f"{folder}: {nested[0]} and {nested[1]} in it look like songs of their own; expected"
            f" songs one level below the split's folder, directly in {folder.parent}"
        )
    return files


def audio_files(folder: Path, above: Sequence[Path] = ()) -> list[Path]:
    """Audio files at any depth, except through a link back to a folder `above`."""
    above = (*above, Path(os.path.realpath(folder)))  # resolve() fails on a link to itself
    files = []
    for path in visible(folder):
        if not os.path.exists(path):
            raise UserError(f"{path}: a broken link; repair or delete it")
        if os.path.isdir(path):
            if not any(each.is_relative_to(path.resolve()) for each in above):
                files += audio_files(path, above)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            files.append(path)
    return files


def _folders(folder: Path) -> list[Path]:
    """Sub-folders, and links to nothing, which are reported."""
    return [path for path in visible(folder) if os.path.isdir(path) or not os.path.exists(path)]
