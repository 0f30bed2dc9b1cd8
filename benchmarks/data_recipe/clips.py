"""The clips that runs are scored on, and their scores."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.folders import FolderSongs
from diffsep_jax import metrics

SAMPLE_RATE = 44_100
MIDDLE_HZ = (250.0, 3000.0)
"""Where voices lie, and where bands leak into them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip of the development set."""

    part: str
    vocals: Float[np.ndarray, "time 2"]
    accompaniment: Float[np.ndarray, "time 2"]

    @property
    def mixture(self) -> Float[np.ndarray, "time 2"]:
        return self.vocals + self.accompaniment


def read_devset(folder: Path) -> dict[str, Clip]:
    """Every clip by its name."""
    facts = json.loads((folder / "meta.json").read_text())
    songs = FolderSongs(path=str(folder))
    clips = {}
    for song in range(len(songs)):
        vocals, accompaniment = songs.segment(song, 0, songs.num_samples(song))
        name = songs.name(song)
        part = facts[name].get("part", "all")
        clips[name] = Clip(part=part, vocals=vocals, accompaniment=accompaniment)
    return clips


def score(clip: Clip, vocals: Float[np.ndarray, "time 2"]) -> dict[str, Any]:
    """Utterance SDR, leakage, and what share of voice and band is in the middle of the output."""
    voice, band = _middle_shares(clip, vocals)
    return {
        "part": clip.part,
        "sdr": metrics.sdr(clip.vocals, vocals),
        "mr_stft": metrics.mr_stft(clip.vocals, vocals),
        "leakage_db": metrics.leakage_db(clip.vocals, clip.mixture, vocals),
        "voice_kept": voice,
        "band_passed": band,
    }


def _middle_shares(clip: Clip, estimate: Float[np.ndarray, "time 2"]) -> tuple[float, float]:
    """Least-squares shares of vocals and accompaniment in an estimate between `MIDDLE_HZ`."""
    frequencies = np.fft.rfftfreq(len(estimate), 1 / SAMPLE_RATE)
    inside = (frequencies >= MIDDLE_HZ[0]) & (frequencies < MIDDLE_HZ[1])
    voice, band, output = (
        np.fft.rfft(x, axis=0)[inside].ravel() for x in (clip.vocals, clip.accompaniment, estimate)
    )
    stems = np.stack([voice, band])
    gram = (stems @ stems.conj().T).real
    shares = np.linalg.solve(gram, (stems.conj() @ output).real)
    return float(shares[0]), float(shares[1])


def parts_of(scores: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The names of the clips of each part, then of all."""
    parts: dict[str, list[str]] = {}
    for name, clip in scores.items():
        parts.setdefault(clip["part"], []).append(name)
    yield from sorted(parts.items())
    yield "all", list(scores)


def medians(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{part} {np.median([scores[name]['sdr'] for name in names]):.2f} dB"
        for part, names in parts_of(scores)
    )
