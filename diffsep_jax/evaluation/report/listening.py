"""The worst and the best tracks: a few seconds of each to see and hear, with the error."""

import pathlib
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.report.values import (
    estimate_value,
    gain,
    number,
    reference_value,
)
from diffsep_jax.evaluation.result_files import excerpt_file
from diffsep_jax.evaluation.results import Excerpt, Result, Track
from diffsep_jax.pages import picture
from diffsep_jax.pages.document import audio_uri, clock, escape

MOST_TRACKS = 3
"""Worst, and best: with their sound and pictures each takes some 0.8 MB of the page."""

PLAYBACK_PEAK_DB = -1.0

_STEMS = (("mixture", "mixture"), ("vocals", "reference"), ("estimate", "estimate"))
_ERROR = "error"


class Heard(NamedTuple):
    """A track of the listening section and the estimate's utterance SDR in dB."""

    track: Track
    excerpt: Excerpt
    sdr: float


def chosen(result: Result) -> dict[str, list[Heard]]:
    """Of the tracks that have an excerpt and a score the worst and the best, under headings."""
    found = []
    for track in result.tracks:
        if track.excerpt is not None:
            sdr = estimate_value(track, track.excerpt.condition)
            if sdr is not None:
                found.append(Heard(track, track.excerpt, sdr))
    found.sort(key=lambda heard: heard.sdr)
    if not found:
        return {}
    if len(found) <= 2 * MOST_TRACKS:
        return {"From the worst to the best": found}
    return {"Worst": found[:MOST_TRACKS], "Best": found[-MOST_TRACKS:][::-1]}


def section(result: Result, out: pathlib.Path) -> str:
    """The excerpts of the worst and the best tracks of the result in folder `out`.

    Raises UserError if a file is missing or damaged.
    """
    body = "".join(
        f"<h3>{name}</h3>\n{''.join(_card(each, out) for each in heard)}"
        for name, heard in chosen(result).items()
    )
    if not body:
        body = "<p>No track has a score and an excerpt.</p>\n"
    return (
        '<section id="listen">\n<h2>Listen</h2>\n'
        "<p>Where the vocals are loudest. The error is the reference less the estimate: what the"
        " SDR measures. The players of a track share one gain, and its waveforms and spectrograms"
        " one scale.</p>\n"
        f'<p class="key"><span>&minus;{picture.RANGE_DB:.0f} dB</span><span class="ramp"></span>'
        f"<span>0 dB, the track's loudest</span></p>\n{body}</section>\n"
    )


def _card(heard: Heard, out: pathlib.Path) -> str:
    track, excerpt = heard.track, heard.excerpt
    sounds, sample_rate = _read(track, out)
    peak = max(float(np.abs(audio).max()) for audio in sounds.values())
    volume = np.float32(10 ** (PLAYBACK_PEAK_DB / 20) / peak if peak > 0 else 1.0)
    powers = {name: picture.band_power(audio, sample_rate) for name, audio in sounds.items()}
    loudest = max(float(power.max()) for power in powers.values()) or 1.0
    parts = []
    for name, audio in sounds.items():
        label = f"{name} of {track.name}"
        image = picture.svg(
            label, audio, powers[name], sample_rate, peak=peak or 1.0, loudest=loudest
        )
        uri = audio_uri(audio * volume, sample_rate, "mp3")
        parts.append(
            f'<figure class="sound">\n<figcaption>{name}</figcaption>\n{image}\n'
            f'<audio controls aria-label="{escape(label)}" src="{uri}"></audio>\n</figure>\n'
        )
    floor = reference_value(track, "mixture")
    over = f", {gain(heard.sdr - floor)} over the mixture" if floor is not None else ""
    end = excerpt.start_seconds + excerpt.seconds
    repeats = len(track.estimates[excerpt.condition])
    which = f", the first of {repeats} repeats" if repeats > 1 else ""
    return (
        f"<article>\n<h4>{escape(track.name)}</h4>\n"
        f"<p><strong>{number(heard.sdr)} dB</strong> utterance SDR{over}"
        f' <span class="soft">· {clock(excerpt.start_seconds)} to {clock(end)} of'
        f" {clock(track.audio_seconds)} · {escape(excerpt.condition)}{which}</span></p>\n"
        f'<div class="sounds">\n{"".join(parts)}</div>\n</article>\n'
    )


def _read(
    track: Track, out: pathlib.Path
) -> tuple[dict[str, Float32[np.ndarray, "time channel"]], int]:
    sounds = {}
    sample_rate = 0
    for stem, name in _STEMS:
        path = excerpt_file(out, track.name, stem)
        try:
            sounds[name], sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError):
            raise UserError(
                f"{path}: missing or damaged, expected the excerpt that eval.py wrote; copy the"
                " whole result folder, or score again into another one"
            ) from None
    if len({audio.shape for audio in sounds.values()}) > 1 or not sounds["mixture"].size:
        raise UserError(
            f"{path.parent}: the excerpts differ in shape or are empty; score again into another"
            " folder"
        )
    sounds[_ERROR] = sounds["reference"] - sounds["estimate"]
    return sounds, sample_rate
