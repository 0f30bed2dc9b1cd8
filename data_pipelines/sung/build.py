"""Renders a data set of sung songs. Run it again to resume, or to add hours."""

import dataclasses
import functools
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
from rich.progress import track

from data_pipelines.processes import map_unordered
from data_pipelines.song_folders import check_output, check_same, wav_of_16_bits, write_folder
from data_pipelines.sung import oneshots, soundfont, voices
from data_pipelines.sung.song import SAMPLE_RATE, VERSION, VOICE_SHARES, SongConfig, render
from diffsep_jax.errors import UserError, check_at_least
from diffsep_jax.files import write_bytes
from diffsep_jax.lock import only_run

SETTINGS = "sung.json"
"""In the data set's folder: what its songs were rendered with."""

FACTS = "song.json"
"""In each song's folder: who sings, what plays, and how it was mixed."""

MIN_SECONDS = 10.0

_VALIDATION_EVERY = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildSung:
    """Renders songs sung by synthesised voices, for training: a folder of stems.

    Attributes:
        out: gets train/ and validation/ with a folder for each song; give it to --data.source.
        hours: total length of the songs; with more of them later, finished songs are kept.
        seed: seed of the data set.
        song_seconds: length of a song.
        workers: processes, one core each.
        voices: kinds of voices that sing: procedural, world.
        fonts: sound fonts that play the instruments; default: those that are installed.
    """

    out: Path
    hours: float = 1.0
    seed: int = 0
    song_seconds: float = 30.0
    workers: int = 1
    voices: tuple[str, ...] = tuple(VOICE_SHARES)
    fonts: tuple[Path, ...] = ()


def build_sung(command: BuildSung) -> None:
    """Renders what is missing. Raises UserError, before any rendering, for bad options."""
    config = _check(command)
    settings = {
        "version": VERSION,
        "seed": config.seed,
        "song_seconds": config.seconds,
        "voices": list(config.voices),
        "fonts": [[font.name, _digest(font)] for font in config.fonts],
        "packages": voices.versions(config.voices),
        "one_shots": oneshots.FOLDER.is_dir(),
    }
    if (command.out / SETTINGS).exists():
        check_same(command.out / SETTINGS, settings)
    if not settings["one_shots"]:
        print("note: no drums and noises of sonic-pi-samples; `make voices` installs them")
    count = math.ceil(command.hours * 3600 / command.song_seconds)
    with only_run(command.out):
        missing = [song for song in range(count) if not _folder(command.out, song).exists()]
        write_bytes(command.out / SETTINGS, json.dumps(settings, indent=2).encode())
        start = time.monotonic()
        job = functools.partial(_render_one, config, command.out)
        for _ in track(map_unordered(job, missing, command.workers), "rendering", len(missing)):
            pass
    speed = len(missing) * command.song_seconds / (time.monotonic() - start)
    print(
        f"{count} songs in {command.out}, {len(missing)} of them rendered now"
        + (f" ({speed:.1f} times real time)" if missing else "")
        + f"; train on them with --data.source {command.out}"
    )


def _check(command: BuildSung) -> SongConfig:
    check_at_least(command, workers=1, seed=0, song_seconds=MIN_SECONDS)
    if not 0 < command.hours < math.inf:
        raise UserError(f"hours is {command.hours}; expected more than 0")
    if not command.voices or not set(command.voices) <= set(VOICE_SHARES):
        given, expected = " ".join(command.voices) or "empty", ", ".join(VOICE_SHARES)
        raise UserError(f"voices is {given}; expected some of {expected}")
    check_output(command.out, SETTINGS)
    voices.check(command.voices)
    fonts = command.fonts or soundfont.find_fonts()
    for font in fonts:
        soundfont.check(font)
    return SongConfig(
        seed=command.seed,
        seconds=command.song_seconds,
        voices=tuple(name for name in VOICE_SHARES if name in command.voices),
        fonts=fonts,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _folder(out: Path, song: int) -> Path:
    split = "validation" if song % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
    return out / split / f"song-{song:06d}"


def _render_one(config: SongConfig, out: Path, number: int) -> None:
    song = render(config, number)
    files = {
        "vocals.wav": _wav(song.vocals),
        # Dither must not come out as voice, so it belongs to the accompaniment.
        "accompaniment.wav": _wav(song.accompaniment, np.random.default_rng(number)),
        FACTS: json.dumps(song.facts, indent=1).encode(),
    }
    write_folder(_folder(out, number), files)


def _wav(stem: np.ndarray, dither: np.random.Generator | None = None) -> bytes:
    """16 bits; with `dither`, triangular noise of one step goes in before rounding."""
    scaled = stem * np.float32(32768)
    if dither is not None:
        scaled += dither.random(stem.shape, np.float32) - dither.random(stem.shape, np.float32)
    samples = np.clip(np.round(scaled), -32768, 32767).astype(np.int16)
    return wav_of_16_bits(samples, SAMPLE_RATE)
