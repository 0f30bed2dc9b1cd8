"""The worst and the best tracks: a few seconds of each to see and hear, with the error."""

import pathlib
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.report.values import (
    best_condition,
    estimate_value,
    gain,
    number,
    reference_value,
)
from diffsep_jax.evaluation.result_files import estimate_file, excerpt_file
from diffsep_jax.evaluation.results import Excerpt, Result, Track
from diffsep_jax.pages import picture
from diffsep_jax.pages.document import audio_uri, clock, escape

MOST_TRACKS = 3
"""Worst, and best: with their sound and pictures each takes some 0.8 MB of the page."""

PLAYBACK_PEAK_DB = -1.0

_ERROR = "error"


class Heard(NamedTuple):
    """A track of the listening section, whose estimate is played, and its utterance SDR in dB."""

    track: Track
    excerpt: Excerpt
    condition: str
    sdr: float


def heard_condition(result: Result) -> str:
    """Whose estimates are played: the best condition's, or of too many to keep the first's."""
    best = best_condition(result)
    kept = {name for track in result.tracks if track.excerpt for name in track.excerpt.conditions}
    return best if best in kept or not kept else result.conditions[0].name


def chosen(result: Result) -> dict[str, list[Heard]]:
    """The worst and the best tracks under headings, of those whose estimate can be played.

    They are ranked as the table of tracks is, by the best condition.
    """
    best, condition = best_condition(result), heard_condition(result)
    found, ranks = [], {}
    for track in result.tracks:
        if track.excerpt is not None and condition in track.excerpt.conditions:
            sdr, rank = (estimate_value(track, name) for name in (condition, best))
            if sdr is not None and rank is not None:
                found.append(Heard(track, track.excerpt, condition, sdr))
                ranks[track.name] = rank
    found.sort(key=lambda heard: ranks[heard.track.name])
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
    condition = heard_condition(result)
    several = len(result.conditions) > 1
    heading = f"Listen: {escape(condition)}" if several else "Listen"
    whose = _whose(result, condition) if several else ""
    return (
        f'<section id="listen">\n<h2>{heading}</h2>\n'
        f"<p>{whose}Where the vocals are loudest. The error is the reference less the estimate:"
        " what the SDR measures. The players of a track share one gain, and its waveforms and"
        " spectrograms one scale.</p>\n"
        f'<p class="key"><span>&minus;{picture.RANGE_DB:.0f} dB</span><span class="ramp"></span>'
        f"<span>0 dB, the track's loudest</span></p>\n{body}</section>\n"
    )


def _whose(result: Result, condition: str) -> str:
    """Whose estimates are played, where there are several conditions."""
    best, number_of = best_condition(result), len(result.conditions)
    if condition == best:
        return f"The estimates are those of the best of {number_of} settings. "
    return (
        f"The estimates are those of the first of {number_of} settings: of so many, no other's are"
        f" kept. Worst and best go by {escape(best)}, the best setting, as everywhere on this page;"
        " the numbers beside the players are of what is played. "
    )


def _card(heard: Heard, out: pathlib.Path) -> str:
    track, excerpt = heard.track, heard.excerpt
    sounds, sample_rate = _read(heard, out)
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
    floor = reference_value(track, "gain")
    over = f", {gain(heard.sdr - floor)} over the best constant gain" if floor is not None else ""
    end = excerpt.start_seconds + excerpt.seconds
    repeats = len(track.estimates[heard.condition])
    which = f", the first of {repeats} repeats" if repeats > 1 else ""
    return (
        f"<article>\n<h4>{escape(track.name)}</h4>\n"
        f"<p><strong>{number(heard.sdr)} dB</strong> utterance SDR{over}"
        f' <span class="soft">· {clock(excerpt.start_seconds)} to {clock(end)} of'
        f" {clock(track.audio_seconds)} · {escape(heard.condition)}{which}</span></p>\n"
        f'<div class="sounds">\n{"".join(parts)}</div>\n</article>\n'
    )


def _read(
    heard: Heard, out: pathlib.Path
) -> tuple[dict[str, Float32[np.ndarray, "time channel"]], int]:
    sounds = {}
    sample_rate = 0
    name = heard.track.name
    for stem, path in (
        ("mixture", excerpt_file(out, name, "mixture")),
        ("reference", excerpt_file(out, name, "vocals")),
        ("estimate", estimate_file(out, name, heard.excerpt, heard.condition)),
    ):
        try:
            sounds[stem], sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
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
