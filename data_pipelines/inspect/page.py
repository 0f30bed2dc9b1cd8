"""The page: one HTML file with players, spectrograms and levels, which loads nothing from anywhere.

Its template is page.html.jinja.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.inspect.contents import Contents, dbfs, decibels
from data_pipelines.inspect.examples import DrawnExample
from data_pipelines.segments import ACTIVITY_BLOCK, SILENCE
from diffsep_jax import pages

PLAYBACK_PEAK_DB = -1.0
"""Peak of the loudest of an example's players, in dBFS."""


def render(contents: Contents, examples: Sequence[DrawnExample], *, augment: AugmentConfig) -> str:
    """The whole page as HTML. Raises UserError if a package that pages need is not installed."""
    used = [
        f"{field.name} {getattr(augment, field.name)}"
        for field in dataclasses.fields(augment)
        if getattr(augment, field.name) != getattr(NO_AUGMENTATION, field.name)
    ]
    return pages.render(
        "data_pipelines.inspect",
        "page.html.jinja",
        contents=contents,
        augmentation=", ".join(used),
        activity_block=ACTIVITY_BLOCK,
        silence_db=decibels(SILENCE),
        examples=map(_article, examples),
    )


def _article(example: DrawnExample) -> dict[str, Any]:
    """What the template shows of an example."""
    from diffsep_jax import plots

    rate = example.sample_rate
    peaks = {name: float(np.abs(audio).max()) for name, audio in example.audio.items()}
    loudest = max(peaks.values())
    gain_db = PLAYBACK_PEAK_DB - decibels(loudest) if loudest > 0.0 else 0.0
    sounds = []
    for name, audio in example.audio.items():
        rms = decibels(float(np.sqrt(np.square(audio, dtype=np.float64).mean())))
        played = audio * np.float32(10.0 ** (gain_db / 20.0))
        sounds.append(
            {
                "name": name,
                "levels": f"peak {dbfs(decibels(peaks[name]))}, RMS {dbfs(rms)}",
                "uri": pages.audio_uri(played, rate, "flac"),
            }
        )
    return {
        "heading": f"Example {example.number:,}",
        "places": [f"{name} at {pages.clock(at)}" for name, at in example.places],
        "active_share": f"{example.active_share:.0%}",
        "gain_db": gain_db,
        "sounds": sounds,
        "picture": pages.data_uri("image/png", plots.spectrograms(example.audio, rate)),
    }
