"""The page: one HTML file with players, pictures, levels and the augmentations of each example.

Its template is page.html.jinja.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import pipeline
from data_pipelines.augment import StemChanges
from data_pipelines.dsp import Stereo
from data_pipelines.examples import ExamplePlan, render
from data_pipelines.inspect.contents import dbfs, decibels
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.source import Source
from diffsep_jax import pages
from diffsep_jax.errors import printable

PLAYBACK_PEAK_DB = -1.0
"""Peak of the loudest of an example's players, in dBFS."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A row of a batch, as the model gets it.

    Attributes:
        heading: step and row.
        applied: its origin and the changes that were applied, a line each.
        audio: mixture, vocals and accompaniment (mixture - vocals), float32.
        sample_rate: Hz.
    """

    heading: str
    applied: tuple[str, ...]
    audio: Mapping[str, Stereo]
    sample_rate: int


def draw(
    source: Source,
    config: PipelineConfig,
    *,
    segment: int,
    num_steps: int,
    num_examples: int,
    seed: int,
) -> Iterator[Example]:
    """Draws different examples of a training of `num_steps`, in their order."""
    pipeline.check_lengths(source, config, segment)
    total = num_steps * config.batch_size
    rng = np.random.default_rng(seed)
    for index in sorted(rng.choice(total, min(num_examples, total), replace=False).tolist()):
        plan = pipeline.plan(source, config, segment, index)
        vocals, accompaniment = render(plan, source)
        mixture = vocals + accompaniment
        step, row = divmod(index, config.batch_size)
        yield Example(
            heading=f"Step {step:,}, row {row}",
            applied=tuple(describe(plan, source)),
            audio={"mixture": mixture, "vocals": vocals, "accompaniment": mixture - vocals},
            sample_rate=source.sample_rate,
        )


def describe(plan: ExamplePlan, source: Source) -> Iterator[str]:
    """What a plan reads and does, a line each."""
    changes, stretch = plan.changes, plan.stretch

    def place(at: tuple[int, int]) -> str:
        return f"{printable(source.name(at[0]))} at {pages.clock(at[1] / source.sample_rate)}"

    def stem(change: StemChanges) -> str:
        parts = ["polarity inverted"] * change.inverted + ["channels swapped"] * change.swapped
        parts += [f"gain {change.gain_db:+.1f} dB"] * (change.gain_db != 0.0)
        parts += [f"tilt {change.tilt_db:+.1f} dB"] * changes.tilts
        return "".join(f"; {part}" for part in parts)

    silenced = "; silenced" if plan.silent else ""
    yield f"vocals: {place(plan.vocals)}{silenced}{stem(changes.vocals)}"
    remixed = "; remixed" if plan.accompaniment != plan.vocals else ""
    yield f"accompaniment: {place(plan.accompaniment)}{remixed}{stem(changes.accompaniment)}"
    for layer, db in plan.layers:
        yield f"layer on the accompaniment: {place(layer)}, {db:+.1f} dB"
    if stretch.read != stretch.made:
        yield f"speed {stretch.read / stretch.made - 1.0:+.1%}"
    if plan.backing != stretch:
        yield f"accompaniment's speed {plan.backing.read / plan.backing.made - 1.0:+.1%}"
    if changes.semitones is not None:
        yield f"pitch {changes.semitones:+.2f} semitones"
    if changes.bus_db is not None:
        yield f"accompaniment saturated, drive {changes.bus_db:.1f} dB"
    if changes.limiter_db is not None:
        yield f"limiter on the mixture, {changes.limiter_db:.1f} dB"
    if changes.low_pass_hz is not None:
        yield f"low-pass of the mixture at {changes.low_pass_hz:,.0f} Hz"
    if changes.fade_db is not None:
        yield "fade of the mixture from {:.0f} dB to {:.0f} dB".format(*changes.fade_db)


def to_html(spec: str, rows: Mapping[str, str], examples: Sequence[Example]) -> str:
    """The whole page: the data set's summary, then the examples.

    Raises UserError if a package that pages need is not installed.
    """
    return pages.render(
        "data_pipelines.inspect",
        "page.html.jinja",
        spec=spec,
        rows=rows,
        examples=map(_article, examples),
    )


def _article(example: Example) -> dict[str, Any]:
    """What the template shows of an example."""
    from diffsep_jax import plots

    audio, rate = example.audio, example.sample_rate
    peak = max(float(np.abs(each).max()) for each in audio.values()) or 1.0
    playback = np.float32(10.0 ** (PLAYBACK_PEAK_DB / 20.0) / peak)
    sounds = []
    for name, each in audio.items():
        levels = [np.abs(each).max(), np.sqrt(np.square(each, dtype=np.float64).mean())]
        top, rms = (dbfs(decibels(float(level))) for level in levels)
        uri = pages.audio_uri(each * playback, rate, "flac")
        sounds.append({"name": name, "levels": f"peak {top}, RMS {rms}", "uri": uri})
    return {
        "heading": example.heading,
        "applied": example.applied,
        "sounds": sounds,
        "picture": pages.data_uri("image/png", plots.spectrograms(audio, rate)),
    }
