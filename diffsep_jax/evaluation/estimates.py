"""Finished estimates of other programs, found in a folder by the name of the track.

Layouts, all recognised without being told (X is any name that audio files have):

    DIR/<track>/vocals.X              diffsep separate, Open-Unmix, MSST, Demucs's DIR/<model>
    DIR/<model>/<track>/vocals.X      Demucs, where DIR holds one model's tracks
    DIR/<track>_vocals.X              MSST of before, Demucs with --filename {track}_{stem}.{ext}
    DIR/<track>_(Vocals)_<model>.X    audio-separator
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from diffsep_jax.errors import UserError

SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".ogg", ".opus", ".m4a", ".mp3")
"""Of files that may be estimates; of the same stem the first of these is taken."""

_ACCOMPANIMENT = ("accompaniment", "no_vocals", "no vocals", "instrumental", "minus_vocals")
_INSTRUMENTS = ("drums", "bass", "guitar", "piano", "other")
_LOOKED_FOR = "{0}/vocals.*, */{0}/vocals.*, {0}_vocals.*, {0}_(Vocals)_*.*"


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


class EstimateFolder:
    """A folder of estimates, listed once. UserError if it is no folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder, expected one of finished estimates")
        self.folder = folder
        self._flat = _audio_files(folder)
        self._models = sorted(path for path in folder.iterdir() if path.is_dir())

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
        places = [self.folder / track, *(model / track for model in self._models)]
        named = ((place, _audio_files(place)) for place in places if place.is_dir())
        candidates = [(place, files) for place, files in named if files]
        by_model: dict[str, dict[str, Path]] = {}
        for stem, model, path in self._flat_stems(track):
            by_model.setdefault(model, {})[stem] = path
        candidates += [(Path(f"*{model}"), stems) for model, stems in by_model.items()]
        return candidates

    def _flat_stems(self, track: str) -> Iterator[tuple[str, str, Path]]:
        """(stem, model, file) of the files that begin with the track's name."""
        for name, path in self._flat.items():
            rest = name.removeprefix(f"{track.lower()}_")
            if rest == name:
                continue
            if match := re.fullmatch(r"\(([^()]+)\)(_.+)?", rest):
                yield match[1], match[2] or "", path
            elif rest in ("vocals", *_ACCOMPANIMENT, *_INSTRUMENTS):
                yield rest, "", path


def _audio_files(folder: Path) -> dict[str, Path]:
    """Files by their names in lower case without the suffix."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    found.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem.lower(): path for path in found}
