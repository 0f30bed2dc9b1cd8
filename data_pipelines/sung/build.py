"""Renders a data set of sung songs; run it again to go on where it ended, or for more hours."""

import dataclasses
import functools
import io
import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from data_pipelines.processes import obey_parent
from data_pipelines.sung import oneshots, soundfont, voices
from data_pipelines.sung.song import SAMPLE_RATE, VERSION, VOICE_SHARES, SongConfig, render
from diffsep_jax.errors import UserError
from diffsep_jax.output import check_writable, write_bytes, write_errors

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
        hours: of songs in all; with more of them later, the songs that are there stay.
        seed: of the songs.
        song_seconds: length of a song.
        workers: processes, one core each.
        voices: kinds of voices that sing: procedural, hibari, world, sinsy.
        fonts: sound fonts to play the instruments; unset: those that are installed.
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
        "fonts": [font.name for font in config.fonts],
        "one_shots": oneshots.FOLDER.is_dir(),
    }
    _check_same(command.out, settings)
    if not settings["one_shots"]:
        print("note: without the drums and noises of sonic-pi-samples; `make voices` installs them")
    for leftover in command.out.glob("*/.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    count = math.ceil(command.hours * 3600 / command.song_seconds)
    missing = [song for song in range(count) if not _folder(command.out, song).exists()]
    if not (command.out / SETTINGS).exists():
        write_bytes(command.out / SETTINGS, json.dumps(settings, indent=2).encode())
    start = time.monotonic()
    for _ in track(
        _render_all(config, command.out, missing, command.workers), "rendering", len(missing)
    ):
        pass
    seconds = time.monotonic() - start
    speed = len(missing) * command.song_seconds / seconds
    print(
        f"{count} songs in {command.out}, {len(missing)} of them rendered now"
        + (f" ({speed:.1f} times real time)" if missing else "")
        + f"; train on them with --data.source {command.out}"
    )


def _check(command: BuildSung) -> SongConfig:
    for name, least in (("workers", 1), ("seed", 0), ("song_seconds", MIN_SECONDS)):
        value = getattr(command, name)
        if not least <= value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected at least {least:g}")
    if not 0 < command.hours < math.inf:
        raise UserError(f"--hours {command.hours}: expected more than 0")
    for name in command.voices:
        if name not in VOICE_SHARES:
            raise UserError(f"--voices {name}: expected some of {', '.join(VOICE_SHARES)}")
    if not command.voices:
        raise UserError(f"--voices: expected some of {', '.join(VOICE_SHARES)}")
    check_writable(command.out)
    voices.check(command.voices)
    for font in command.fonts:
        soundfont.check(font)
    fonts = command.fonts or soundfont.find_fonts()
    return SongConfig(
        seed=command.seed,
        seconds=command.song_seconds,
        voices=tuple(name for name in VOICE_SHARES if name in command.voices),
        fonts=fonts,
    )


def _check_same(out: Path, settings: dict) -> None:
    """UserError if the folder holds something else, or songs of other settings."""
    path = out / SETTINGS
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out}: holds something else; choose a new folder")
        return
    with write_errors(path):
        stored = json.loads(path.read_text())
    for name, value in settings.items():
        if stored.get(name) != value:
            raise UserError(
                f"{out}: its songs have {name} {stored.get(name)}, not {value}; "
                "choose the same, or another --out"
            )


def _folder(out: Path, song: int) -> Path:
    split = "validation" if song % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
    return out / split / f"song-{song:06d}"


def _render_all(
    config: SongConfig, out: Path, songs: Sequence[int], workers: int
) -> Iterator[None]:
    job = functools.partial(_render_one, config, out)
    if workers == 1:
        yield from map(job, songs)
        return
    # Spawned, as forking a process that has threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers, obey_parent) as pool:
        yield from pool.imap_unordered(job, songs)


def _render_one(config: SongConfig, out: Path, number: int) -> None:
    """Writes a song's folder, whole or not at all."""
    song = render(config, number)
    folder = _folder(out, number)
    temporary = folder.with_name(f".{folder.name}.tmp")
    rng = np.random.default_rng(number)
    files = {
        "vocals.wav": _wav(song.vocals),
        # Dither, of which a master has some, belongs to neither voice nor band: to what is left.
        "accompaniment.wav": _wav(song.accompaniment, rng),
        FACTS: json.dumps(song.facts, indent=1).encode(),
    }
    with write_errors(folder):
        try:
            temporary.mkdir(parents=True)
            for name, data in files.items():
                with (temporary / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _wav(stem: np.ndarray, dither: np.random.Generator | None = None) -> bytes:
    """16 bits; with `dither`, triangular noise of one step goes in before rounding."""
    scaled = stem * np.float32(32768)
    if dither is not None:
        scaled += dither.random(stem.shape, np.float32) - dither.random(stem.shape, np.float32)
    samples = np.clip(np.round(scaled), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
