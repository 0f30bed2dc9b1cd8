"""Finished estimates of other programs, found in a folder by the name of the track.

Layouts, all recognised without being told (X is any name that audio files have):

    DIR/<track>/vocals.X              diffsep separate, Open-Unmix, MSST, Demucs's DIR/<model>
    DIR/<model>/<track>/vocals.X      Demucs, where DIR holds one model's tracks
    DIR/<track>_vocals.X              MSST of before
    DIR/<model>/<track>_vocals.X      Demucs with --filename {track}_{stem}.{ext}
    DIR/<track>_(Vocals)_<model>.X    audio-separator
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffsep_jax.errors import UserError

SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".ogg", ".opus", ".m4a", ".mp3")
"""Of files that may be estimates; of the same stem the first of these is taken."""

_ACCOMPANIMENT = ("accompaniment", "no_vocals", "no vocals", "instrumental", "minus_vocals")
_INSTRUMENTS = ("drums", "bass", "guitar", "piano", "other")
_LOOKED_FOR = "{0}/vocals.*, {0}_vocals.*, {0}_(Vocals)_*.*, and */ before each"


class Estimate(NamedTuple):
    """The files of a track.

    The accompaniment is the sum of its files; there may be none.
    """

    vocals: Path
    accompaniment: tuple[Path, ...]

    def stamp(self) -> str:
        """Changes when a file does: names, sizes and times."""
        files = (self.vocals, *self.accompaniment)
        stats = [(path, path.stat()) for path in files]
        return " ".join(f"{path}:{s.st_size}:{s.st_mtime_ns}" for path, s in stats)


class _Listing(NamedTuple):
    """What is in a folder; `audio` by the names in lower case without the suffix."""

    folders: list[Path]
    audio: dict[str, Path]


class EstimateFolder:
    """A folder of estimates, its folders listed once. UserError if it is none."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder, expected one of finished estimates")
        self.folder = folder
        self._listed: dict[Path, _Listing] = {}

    def find(self, track: str) -> Estimate | None:
        """The files of a track; None if there are none.

        Raises UserError if more than one estimate of it is there.
        """
        found = [
            (str(place), stems["vocals"], stems)
            for place, stems in self._candidates(track)
            if "vocals" in stems
        ]
        if len(found) > 1:
            places = ", ".join(sorted(place for place, *_ in found))
            raise UserError(
                f"{track}: {len(found)} estimates of its vocals in {self.folder} ({places}),"
                " expected one; give the folder of one model"
            )
        if not found:
            return None
        _, vocals, stems = found[0]
        whole = [stems[name] for name in _ACCOMPANIMENT if name in stems]
        return Estimate(
            vocals, tuple(whole[:1] or (stems[name] for name in _INSTRUMENTS if name in stems))
        )

    def looked_for(self, track: str) -> str:
        """Where `find` looks, in words."""
        return f"{_LOOKED_FOR.format(track)} in {self.folder}"

    def check(self, tracks: list[str]) -> None:
        """UserError unless there is an estimate of at least one of the tracks."""
        if not any(self._candidates(track) for track in tracks):
            raise UserError(
                f"{self.folder}: an estimate of none of the {len(tracks)} tracks;"
                f" looked for {_LOOKED_FOR.format(tracks[0])} and so on"
            )

    def _candidates(self, track: str) -> list[tuple[Path, dict[str, Path]]]:
        """Where an estimate of the track may be, and the files of its stems."""
        names = _plain(track).split("/")  # of a song in folders below folders it has several
        roots = (self.folder, *self._folders(self.folder))
        places = [place for root in roots for place in self._below(root, names)]
        named = ((place, self._audio_files(place)) for place in places)
        candidates = [(place, files) for place, files in named if files]
        for root in roots:
            by_model: dict[str, dict[str, Path]] = {}
            for stem, model, path in self._flat_stems(root, track):
                by_model.setdefault(model, {})[stem] = path
            candidates += [(root / f"*{model}", stems) for model, stems in by_model.items()]
        return candidates

    def _below(self, root: Path, names: Sequence[str]) -> list[Path]:
        """The folders root/name/name/... in whichever form their names are."""
        places = [root]
        for name in names:
            children = [child for place in places for child in self._folders(place)]
            places = [child for child in children if _plain(child.name) == name]
        return places

    def _folders(self, folder: Path) -> list[Path]:
        return self._list(folder).folders

    def _audio_files(self, folder: Path) -> dict[str, Path]:
        return self._list(folder).audio

    def _list(self, folder: Path) -> _Listing:
        if folder not in self._listed:
            try:
                self._listed[folder] = _listing(folder)
            except OSError as error:
                raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None
        return self._listed[folder]

    def _flat_stems(self, folder: Path, track: str) -> Iterator[tuple[str, str, Path]]:
        """(stem, model, file) of the files in a folder that begin with the track's name."""
        start = f"{_plain(track).lower()}_"
        for name, path in self._audio_files(folder).items():
            rest = name.removeprefix(start)
            if rest == name:
                continue
            if match := re.fullmatch(r"\(([^()]+)\)(_.+)?", rest):
                yield match[1], match[2] or "", path
            elif rest in ("vocals", *_ACCOMPANIMENT, *_INSTRUMENTS):
                yield rest, "", path


def _listing(folder: Path) -> _Listing:
    entries = sorted(folder.iterdir())
    audio = [path for path in entries if path.suffix.lower() in SUFFIXES]
    audio.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return _Listing(
        folders=[path for path in entries if path.is_dir()],
        audio={_plain(path.stem).lower(): path for path in audio},
    )


def _plain(name: str) -> str:
    """One form of a name: in file names "ä" is one character, or on a Mac often two."""
    return unicodedata.normalize("NFC", name)
