"""A few seconds of each track to listen to, where the singing is loudest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32

from diffsep_jax.evaluation.protocols import MIXTURE
from diffsep_jax.evaluation.scores import excerpt_name
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.files import replacing

Waveform = Float32[np.ndarray, "time channel"]

SECONDS = 6.0

MOST_CONDITIONS = 8
"""Of more conditions only the first is kept: an estimate takes some 0.5 MB of each track."""

_STEP_SECONDS = 0.1


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
    """Writes the excerpts' files as 16-bit FLAC, with one gain for all so that none clips.

    Args:
        out: folder of the result.
        song: whose mixture and vocals are written too.
        estimates: `loudest_part` of estimated vocals by their conditions.

    Returns:
        For the mixture and each condition what its row keeps as `excerpt`. The true vocals lie
        beside the mixture, as vocals.flac.

    Raises:
        UserError: a file cannot be written.
    """
    part = loudest_part(song)
    heard: list[tuple[str | None, str, Waveform]] = [
        (MIXTURE, "mixture", song.mixture[part]),
        (None, "vocals", song.vocals[part]),
    ]
    for condition, audio in estimates.items():
        stem = f"estimate {condition}" if len(estimates) > 1 else "estimate"
        heard.append((condition, stem, audio))
    gain = 1 / max(1.0, *(float(np.abs(audio).max()) for _, _, audio in heard))
    excerpts = {}
    for name, stem, audio in heard:
        file = excerpt_name(song.name, stem)
        with replacing(out / file) as temporary:
            samples = audio * np.float32(gain)
            soundfile.write(temporary, samples, song.sample_rate, format="FLAC", subtype="PCM_16")
        if name is not None:
            start = part.start / song.sample_rate
            excerpts[name] = {"file": file, "start_seconds": start, "gain": gain}
    return excerpts
