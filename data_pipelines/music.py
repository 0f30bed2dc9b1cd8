"""Real instrumental music for training: recordings in Debian packages that allow it.

Each track becomes a song without vocals. `augment.remix_probability` and `layer_probability` then
put other data sets' voices over it.
"""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float
from rich.progress import track

from data_pipelines.cache import cache_folder
from data_pipelines.packages import fetch
from diffsep_jax.errors import UserError
from diffsep_jax.output import check_writable, write_folder

SAMPLE_RATE = 44_100
FACTS = "song.json"
_VALIDATION_EVERY = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Album:
    """Tracks of one package under one licence, which its copyright file states."""

    package: str
    licence: str
    authors: str
    files: str
    """Path of a track below the package's root, its name as {}; "ARCHIVE!MEMBER" in a zip."""
    tracks: tuple[str, ...]


_UFO = "usr/share/games/ufoai/base/0music.pk3!music/{}.ogg"

ALBUMS = (
    Album(
        package="naev-data",
        licence="CC-BY-3.0",
        authors="Nikola Whallon",
        files="usr/share/naev/dat/snd/music/{}.ogg",
        tracks=(
            *("ambient1", "ambient2", "ambient2_5", "ambient3", "automat", "battlesomething1"),
            *("battlesomething2", "collective1", "collective2", "empire1", "empire2"),
            *("flf_battle1", "intrigue", "intro", "nebu_battle1", "nebu_battle2", "sirius1"),
            *("tension", "upbeat", "zalek1", "zalek2"),
        ),
    ),
    Album(
        package="naev-data",
        licence="CC-BY-3.0",
        authors="Zeropage",
        files="usr/share/naev/dat/snd/music/{}.ogg",
        tracks=("ambiphonic", "void_sensor"),
    ),
    Album(
        package="ufoai-music",
        licence="CC-BY-3.0",
        authors="David Reeves",
        files=_UFO,
        tracks=("David01", "David02", "David03", "David04", "David05"),
    ),
    Album(
        package="ufoai-music",
        licence="CC-BY-3.0",
        authors="Manuel Marino",
        files=_UFO,
        tracks=(
            *("van_geoscape", "van_mission", "van_mission2", "van_mission3", "van_mission4"),
            "van_theme",
        ),
    ),
    Album(
        package="ufoai-music",
        licence="CC-BY-3.0",
        authors="azrael1322",
        files=_UFO,
        tracks=("azrael1",),
    ),
    Album(
        package="ufoai-music",
        licence="CC-BY-3.0",
        authors="Karl Macklin",
        files=_UFO,
        tracks=("karlmacklin_geoscape",),
    ),
    Album(
        package="ufoai-music",
        licence="public domain",
        authors="Crack dot Com (Golgotha)",
        files=_UFO,
        tracks=("alBasrahM", "greecei", "turinItalyM"),
    ),
    Album(
        package="openclonk-data",
        licence="CC-BY-3.0",
        authors="Martin Strohmeier",
        files="usr/share/games/openclonk/Music.ocg/{}.ogg",
        tracks=(
            *("@CrushedIceCocktail", "IslandDreams", "LucidDream", "Motorway", "Offshore"),
            *("TheSkylands", "UrbanBolero"),
        ),
    ),
    Album(
        package="renpy-demo",
        licence="public domain",
        authors="United States Marine Band",
        files="usr/share/games/renpy/demo/game/{}.ogg",
        tracks=("sunflower-slow-drag",),
    ),
    Album(
        package="pax-britannica-data",
        licence="Expat",
        authors="Ben Abraham and others",
        files="usr/share/pax-britannica/audio/{}.ogg",
        tracks=("music",),
    ),
    Album(
        package="funnyboat",
        licence="Expat",
        authors="Joona Karjalainen",
        files="usr/share/games/funnyboat/data/{}.ogg",
        tracks=("JDruid-Trip_on_the_Funny_Boat",),
    ),
    Album(
        package="vonsh",
        licence="CC0-1.0",
        authors="Juhani Junkala",
        files="usr/share/games/vonsh/{}.mp3",
        tracks=("idle_tune",),
    ),
    Album(
        package="vonsh",
        licence="CC-BY-3.0",
        authors="Przemyslaw Sikorski",
        files="usr/share/games/vonsh/{}.mp3",
        tracks=("play_tune",),
    ),
)
"""Screened for voices by title, credits and spectrogram; none is in the development set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildMusic:
    """Builds a data set of real instrumental music, to train with songs that are sung.

    It downloads Debian packages (410 MB). Run the same command again after an interruption:
    finished tracks are kept.

    Attributes:
        out: gets train/ and validation/ with a folder for each track, with its author and licence;
            give it to --data.source with other data sets.
        downloads: folder for the unpacked packages, which may be deleted after the build;
            default: one in the user's cache.
    """

    out: Path
    downloads: Path | None = None


def build_music(command: BuildMusic, albums: tuple[Album, ...] = ALBUMS) -> None:
    """Builds the tracks that are missing.

    Raises `UserError`: no apt, no network, a package that is missing, damaged or lacks a file, a
    full disk, a folder that holds something else.
    """
    out = command.out
    check_writable(out)
    if out.exists() and {path.name for path in out.iterdir()} - {"train", "validation"}:
        raise UserError(f"{out}: holds something else; choose a new folder")
    downloads = command.downloads or cache_folder(None).parent / "packages"
    tracks = [(album, name) for album in albums for name in album.tracks]
    for number, (album, name) in enumerate(track(tracks, "tracks")):
        split = "validation" if number % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
        folder = out / split / f"{album.package}-{name.strip('@')}"
        if folder.exists():
            continue
        package, file = fetch(album.package, downloads), album.files.format(name)
        samples, rate = package.read(file)
        music = soxr.resample(samples[:, [0, -1]], rate, SAMPLE_RATE)
        facts = {
            "package": package.name,
            "version": package.version,
            "file": file,
            "authors": album.authors,
            "licence": album.licence,
        }
        files = {
            "vocals.wav": _wav(np.zeros_like(music)),
            "accompaniment.wav": _wav(music),
            FACTS: json.dumps(facts, indent=1).encode(),
        }
        write_folder(folder, files)
    print(f"{len(tracks)} tracks in {out}; give it to --data.source with songs that are sung")


def _wav(x: Float[np.ndarray, "time 2"]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(x, -1, 1), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
