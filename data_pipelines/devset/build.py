"""The command that builds the development set."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from rich.console import Console
from rich.progress import track

from data_pipelines.cache import cache_folder
from data_pipelines.devset.clips import clip_names, make_clips
from data_pipelines.devset.lines import SAMPLE_RATE
from data_pipelines.devset.mixing import Clip, floors, silent_seconds
from data_pipelines.devset.sources import DEBIAN, Table
from diffsep_jax.errors import UserError
from diffsep_jax.output import check_writable, make_folder, write_bytes, write_errors
from diffsep_jax.wav import float_bytes, wav_header

VERSION = "1"
"""Increased when a clip changes."""
META, FLOORS = "meta.json", "floors.tsv"
_COLUMNS = ("part", "voice", "style", "seconds", "silent_seconds", "level_db")
_FLOORS = ("sdr_mixture", "sdr_best_gain", "sdr_ideal_ratio_mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildDevset:
    """Builds the development set: real voices over real bands, to evaluate models.

    It downloads Debian packages (430 MB). Run the same command again after
    an interruption: finished clips are kept.

    Attributes:
        out: gets a folder with vocals and accompaniment for each clip, meta.json and floors.tsv.
        downloads: folder for the packages (1 GB once unpacked), which may be deleted after the
            build; default: one in the user's cache.
    """

    out: Path
    downloads: Path | None = None


def build_devset(command: BuildDevset, table: Table = DEBIAN) -> None:
    """Builds the clips that are missing, and prints the floors.

    Raises `UserError`: no apt, no network, a package that is missing, damaged or lacks a file, a
    full disk, a folder that holds something else.
    """
    names = clip_names(table)
    check_writable(command.out)
    _check_content(command.out, names)
    missing = [name for name in names if not (command.out / name).exists()]
    console = Console(stderr=True)
    made = make_clips(table, command.downloads or cache_folder(None).parent / "packages", missing)
    for name, clip, meta in track(
        made, "clips", total=len(missing), console=console, disable=not console.is_terminal
    ):
        _write(command.out / name, clip, meta)
    stored = {name: _stored(command.out / name) for name in names}
    text = json.dumps(stored, indent=1, ensure_ascii=False)
    write_bytes(command.out / META, f"{text}\n".encode())
    write_bytes(command.out / FLOORS, _floors_table(stored).encode())
    _print(stored, Console())


def _check_content(out: Path, names: list[str]) -> None:
    if not out.exists():
        return
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        if folder.name not in names or _stored(folder).get("version") != VERSION:
            raise UserError(
                f"{folder}: is not a clip of this development set (version {VERSION}); "
                "delete it or choose another folder"
            )


def _stored(folder: Path) -> dict[str, Any]:
    """The metadata of a clip; empty if they cannot be read."""
    try:
        return dict(json.loads((folder / META).read_text()))
    except (OSError, ValueError):
        return {}


def _write(folder: Path, clip: Clip, meta: dict[str, Any]) -> None:
    """The clip's folder, whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    seconds = len(clip.vocals) / SAMPLE_RATE
    silence = silent_seconds(clip.vocals, clip.accompaniment)
    measured = {"seconds": round(seconds, 2), "silent_seconds": round(silence, 2)}
    stored = {"version": VERSION, **meta, **clip.facts, **measured, **floors(clip)}
    try:
        make_folder(part)
        for stem in ("vocals", "accompaniment"):
            audio = getattr(clip, stem)
            header = wav_header(
                "float32", sample_rate=SAMPLE_RATE, num_channels=2, num_frames=len(audio)
            )
            write_bytes(part / f"{stem}.wav", header + float_bytes(audio))
        text = json.dumps(stored, indent=1, ensure_ascii=False)
        write_bytes(part / META, f"{text}\n".encode())
        with write_errors(folder):
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _floors_table(stored: dict[str, dict[str, Any]]) -> str:
    lines = [["clip", *_COLUMNS, *_FLOORS]]
    lines += [
        [name, *(str(meta[column]) for column in (*_COLUMNS, *_FLOORS))]
        for name, meta in stored.items()
    ]
    lines += [
        [f"median {part}", part, *[""] * (len(_COLUMNS) - 1), *(f"{x:.2f}" for x in medians)]
        for part, _, medians in _medians(stored)
    ]
    return "".join("\t".join(line) + "\n" for line in lines)


def _medians(stored: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int, list[float]]]:
    """Of each part, and of all: name, number of clips, median floors."""
    for part in ("sung", "spoken", "demo", "all"):
        rows = [meta for meta in stored.values() if part in (meta["part"], "all")]
        if rows:
            yield part, len(rows), [float(np.median([row[x] for row in rows])) for x in _FLOORS]


def _print(stored: dict[str, dict[str, Any]], console: Console) -> None:
    table = rich.table.Table("part", "clips", *_FLOORS, title="utterance SDR, medians, dB")
    for part, count, medians in _medians(stored):
        table.add_row(part, str(count), *(f"{x:.2f}" for x in medians))
    console.print(table)
