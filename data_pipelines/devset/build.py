"""The command that builds the development set."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import scipy.io.wavfile
from rich.progress import track

from data_pipelines.devset.clips import clip_names, make_clips
from data_pipelines.devset.lines import SAMPLE_RATE
from data_pipelines.devset.sources import DEBIAN, Table
from data_pipelines.dsp import Stereo
from data_pipelines.song_folders import check_output, write_folder
from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.lock import only_run

VERSION = "1"
"""Increased when a clip changes."""
META = "meta.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildDevset:
    """Builds the development set: real voices over real bands, to evaluate models.

    It downloads Debian packages (430 MB). Run the same command again after an interruption:
    finished clips are kept.

    Attributes:
        out: gets a folder with vocals and accompaniment for each clip, and meta.json.
        downloads: folder for the unpacked packages (510 MB), which may be deleted after the
            build; default: one in the user's cache.
    """

    out: Path
    downloads: Path | None = None


def build_devset(command: BuildDevset, table: Table = DEBIAN) -> None:
    """Builds the clips that are missing.

    Raises `UserError`: no apt, no network, a package that is missing, damaged or lacks a file, a
    full disk, a folder that holds something else.
    """
    out, names = command.out, clip_names(table)
    check_output(out, META)
    with only_run(out):
        facts = _read_facts(out)
        missing = [name for name in names if not (out / name).exists()]
        made = make_clips(table, command.downloads, missing)
        for name, clip in track(made, "clips", total=len(missing)):
            facts[name] = {"version": VERSION, **clip.facts}
            text = json.dumps(dict(sorted(facts.items())), indent=1, ensure_ascii=False)
            write_bytes(out / META, f"{text}\n".encode())
            files = {
                f"{stem}.wav": _wav(getattr(clip, stem)) for stem in ("vocals", "accompaniment")
            }
            write_folder(out / name, files)
    print(f"{len(names)} clips in {out}; score a model with python eval.py --data {out}")


def _read_facts(out: Path) -> dict[str, Any]:
    """What is known of the clips. Raises UserError for another version of the set."""
    if not (out / META).exists():
        return {}
    facts: dict[str, Any] = json.loads((out / META).read_text())
    versions = {clip["version"] for clip in facts.values()} - {VERSION}
    if versions:
        raise UserError(
            f"{out}: holds version {versions.pop()} of the development set; expected {VERSION}:"
            " delete it or choose another folder"
        )
    return facts


def _wav(x: Stereo) -> bytes:
    file = io.BytesIO()
    scipy.io.wavfile.write(file, SAMPLE_RATE, x)  # libsndfile would add the time of day
    return file.getvalue()
