"""A few seconds of each track to listen to, where the singing is loudest."""

import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from diffsep_jax.evaluation.protocols import MIXTURE
from diffsep_jax.evaluation.scoring import Song, Waveform
from diffsep_jax.files import write_bytes

SECONDS = 6.0

MOST_CONDITIONS = 8
"""With more conditions, only the first is kept: an estimate takes about 0.5 MB per track."""

_STEP_SECONDS = 0.1

_LONGEST_NAME = 200  # in bytes: file systems take 255, and a temporary name is longer


def loudest_part(song: Song) -> slice:
    """The samples of its excerpt, to a multiple of 0.1 s: where the vocals have most energy."""
    length = min(len(song.vocals), round(SECONDS * song.sample_rate))
    energy = np.cumsum(np.square(song.vocals, dtype=np.float64).sum(axis=1))
    energy = np.concatenate([[0.0], energy])
    step = max(1, round(_STEP_SECONDS * song.sample_rate))
    starts = np.arange(0, len(song.vocals) - length + 1, step)
    start = int(starts[np.argmax(energy[starts + length] - energy[starts])])
    return slice(start, start + length)


def keep_excerpt(
    out: Path, song: Song, estimates: Mapping[str, Waveform]
) -> dict[str, dict[str, Any]]:
    """Writes the excerpts as 16-bit FLAC files, with one gain for all so that none clips.

    Args:
        out: folder of the result.
        song: its mixture and vocals are written too.
        estimates: `loudest_part` of estimated vocals by condition.

    Returns:
        The `excerpt` of the rows of the mixture and of each condition. The true vocals are in the
        folder of the mixture, as vocals.flac.

    Raises:
        UserError: a file cannot be written.
    """
    part = loudest_part(song)
    stems = {"mixture": song.mixture[part], "vocals": song.vocals[part]}
    files = {MIXTURE: excerpt_name(song.name, "mixture")}
    for condition, audio in estimates.items():
        stem = f"estimate {condition}" if len(estimates) > 1 else "estimate"
        stems[stem] = audio
        files[condition] = excerpt_name(song.name, stem)
    gain = 1 / max(1.0, *(float(np.abs(audio).max()) for audio in stems.values()))
    for stem, audio in stems.items():
        file = io.BytesIO()  # libsndfile would not say that a disk is full
        samples = audio * np.float32(gain)
        soundfile.write(file, samples, song.sample_rate, format="FLAC", subtype="PCM_16")
        write_bytes(out / excerpt_name(song.name, stem), file.getvalue())
    start = part.start / song.sample_rate
    return {
        condition: {"file": file, "start_seconds": start, "gain": gain}
        for condition, file in files.items()
    }


def excerpt_name(track: str, stem: str) -> str:
    """The file of an excerpt, relative to the result's folder."""
    return f"excerpts/{_file_name(track)}/{_file_name(stem)}.flac"


def _file_name(name: str) -> str:
    """A name that any system accepts: special characters percent-encoded, long names hashed."""
    encoded = re.sub(r'[/\\:*?"<>|%\x00-\x1f]|^\.', lambda m: f"%{ord(m[0]):02X}", name)
    data = os.fsencode(encoded)
    if len(data) <= _LONGEST_NAME:
        return encoded
    return f"{encoded[:40]}~{hashlib.sha256(data).hexdigest()[:16]}"
