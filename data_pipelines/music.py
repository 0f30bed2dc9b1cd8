"""Real instrumental music for training: recordings in Debian packages that allow it.

Each track becomes a song without vocals. `augment.remix_probability` and `layer_probability` put it
under other data sets' voices; `augment.silent_share`, as config `small` has it, keeps it from being
drawn for its vocals.
"""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from rich.progress import track

from data_pipelines.packages import fetch
from data_pipelines.song_folders import check_output, wav_of_16_bits, write_folder
from diffsep_jax.files import write_bytes
from diffsep_jax.lock import only_run

SAMPLE_RATE = 44_100
FACTS = "song.json"
MARK = "music.json"
"""In the data set's folder: marks it as one of this kind."""
_VALIDATION_EVERY = 18


class Album(NamedTuple):
    """Tracks of one package under one licence, which the package states.

    Attributes:
        files: path of a track below the package's root, its name as {}; "ARCHIVE!MEMBER" in a zip.
        tracks: names of the tracks.
    """

    package: str
    licence: str
    authors: str
    files: str
    tracks: str


_CLONK = "usr/share/games/openclonk/Music.ocg/{}.ogg"
_NAEV = "usr/share/naev/dat/snd/music/{}.ogg"
_UFO = "usr/share/games/ufoai/base/0music.pk3!music/{}.ogg"
_WHALLON = """ambient1 ambient2 ambient2_5 ambient3 automat battlesomething1 battlesomething2
collective1 collective2 empire1 empire2 flf_battle1 intrigue intro nebu_battle1 nebu_battle2
sirius1 tension upbeat zalek1 zalek2"""
_REEVES = "David01 David02 David03 David04 David05"
_MARINO = "van_geoscape van_mission van_mission2 van_mission3 van_mission4 van_theme"
_STROHMEIER = (
    "@CrushedIceCocktail IslandDreams LucidDream Motorway Offshore TheSkylands UrbanBolero"
)

ALBUMS = (
    Album("naev-data", "CC-BY-3.0", "Nikola Whallon", _NAEV, _WHALLON),
    Album("naev-data", "CC-BY-3.0", "Zeropage", _NAEV, "ambiphonic void_sensor"),
    Album("naev-data", "CC-BY-3.0", "Matthew Pablo", _NAEV, "blackmoor_tides imminent_threat"),
    Album("naev-data", "CC-BY-3.0", "Alexandr Zhelanov", _NAEV, "heartofmachine"),
    Album("naev-data", "CC-BY-3.0", "Muncheybobo", _NAEV, "dark_city"),
    Album("naev-data", "CC0-1.0", "Dizzy Crow", _NAEV, "pirates_orchestra"),
    Album("naev-data", "CC0-1.0", "Olivier Bérubé", _NAEV, "pirate1_theme1"),
    Album("ufoai-music", "CC-BY-3.0", "David Reeves", _UFO, _REEVES),
    Album("ufoai-music", "CC-BY-3.0", "Manuel Marino", _UFO, _MARINO),
    Album("ufoai-music", "CC-BY-3.0", "azrael1322", _UFO, "azrael1"),
    Album("ufoai-music", "CC-BY-3.0", "Karl Macklin", _UFO, "karlmacklin_geoscape"),
    Album("ufoai-music", "public domain", "Crack dot Com", _UFO, "alBasrahM greecei turinItalyM"),
    Album("openclonk-data", "CC-BY-3.0", "Martin Strohmeier", _CLONK, _STROHMEIER),
    Album(
        "renpy-demo", "public domain", "United States Marine Band",
        "usr/share/games/renpy/demo/game/{}.ogg", "sunflower-slow-drag",
    ),
    Album(
        "pax-britannica-data", "Expat", "Ben Abraham and others",
        "usr/share/pax-britannica/audio/{}.ogg", "music",
    ),
    Album(
        "funnyboat", "Expat", "Joona Karjalainen",
        "usr/share/games/funnyboat/data/{}.ogg", "JDruid-Trip_on_the_Funny_Boat",
    ),
    Album("vonsh", "CC0-1.0", "Juhani Junkala", "usr/share/games/vonsh/{}.mp3", "idle_tune"),
    Album("vonsh", "CC-BY-3.0", "Przemyslaw Sikorski", "usr/share/games/vonsh/{}.mp3", "play_tune"),
)  # fmt: skip
"""Screened for voices by title, credits and the spectrogram of 14 s of each.

None is in the development set.
"""


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
    check_output(out, MARK)
    tracks = [(album, name) for album in albums for name in album.tracks.split()]
    with only_run(out):
        write_bytes(out / MARK, b"{}\n")
        for album, name in track(tracks, "tracks"):
            song = f"{album.package}-{name.strip('@')}"
            # By its name, so that it stays where it is when others are added.
            validation = zlib.crc32(song.encode()) % _VALIDATION_EVERY == 0
            folder = out / ("validation" if validation else "train") / song
            if folder.exists():
                continue
            package, file = fetch(album.package, command.downloads), album.files.format(name)
            samples, rate = package.read(file)
            music = soxr.resample(samples[:, [0, -1]], rate, SAMPLE_RATE).clip(-1, 1)
            facts = {
                "package": package.name,
                "version": package.version,
                "file": file,
                "authors": album.authors,
                "licence": album.licence,
            }
            files = {
                "vocals.wav": wav_of_16_bits(np.zeros_like(music), SAMPLE_RATE),
                "accompaniment.wav": wav_of_16_bits(music, SAMPLE_RATE),
                FACTS: json.dumps(facts, indent=1).encode(),
            }
            write_folder(folder, files)
    print(f"{len(tracks)} tracks in {out}; give it to --data.source with songs that are sung")
