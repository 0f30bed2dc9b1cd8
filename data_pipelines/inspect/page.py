"""The page: one HTML file with players, pictures, levels and the augmentations of each example."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from data_pipelines import pipeline
from data_pipelines.augment import StemChanges
from data_pipelines.examples import Plan, render
from data_pipelines.inspect.contents import dbfs, decibels
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.source import Source
from diffsep_jax.pages import picture
from diffsep_jax.pages.document import audio_uri, clock, document, escape, printable

PLAYBACK_PEAK_DB = -1.0
"""Peak of the loudest of an example's players, in dBFS."""

_STYLE = """\
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 82rem; font: 1rem/1.45 system-ui, sans-serif; }
h1, h2, h3, p, ul { margin: .5rem 0; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2, h3 { font-size: 1.1rem; }
th, td { padding: .2rem .75rem .2rem 0; text-align: left; font-weight: normal;
  overflow-wrap: anywhere; }
article { margin: 1rem 0; border-top: 1px solid GrayText; }
article > div { display: grid; gap: 0 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
audio, svg { display: block; width: 100%; height: auto; min-height: 2.5rem; }
svg text { fill: GrayText; font-size: 13px; }
.wave { fill: CanvasText; }
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A row of a batch, as the model gets it.

    Attributes:
        heading: step and row.
        applied: where it comes from and what was done to it, a line each.
        audio: mixture, vocals and accompaniment (mixture - vocals), float32.
        sample_rate: Hz.
    """

    heading: str
    applied: tuple[str, ...]
    audio: Mapping[str, Float[np.ndarray, "time 2"]]
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


def describe(plan: Plan, source: Source) -> Iterator[str]:
    """What a plan reads and does, a line each."""
    changes, stretch = plan.changes, plan.stretch

    def place(at: tuple[int, int]) -> str:
        return f"{printable(source.name(at[0]))} at {clock(at[1] / source.sample_rate)}"

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
    """The whole page: the data set's summary, then the examples."""
    summary = "".join(
        f"<tr><th scope='row'>{name}</th><td>{escape(value)}</td></tr>\n"
        for name, value in rows.items()
    )
    body = (
        f"<h1>What is in {escape(spec)}</h1>\n<table>\n{summary}</table>\n"
        "<p>Random examples, as the model gets them. Every song's mixture is brought to an RMS of"
        " 0 dBFS, so peaks lie above full scale, and the players are turned down. The three"
        " waveforms of an example share one scale, and its spectrograms one range of colours,"
        f" {picture.RANGE_DB:.0f} dB.</p>\n"
    )
    body += "".join(map(_article, examples))
    return document(title=spec, style=_STYLE, body=body)


def _article(example: Example) -> str:
    audio, rate = example.audio, example.sample_rate
    peak = max(float(np.abs(each).max()) for each in audio.values()) or 1.0
    playback = np.float32(10.0 ** (PLAYBACK_PEAK_DB / 20.0) / peak)
    powers = {name: picture.band_power(each, rate) for name, each in audio.items()}
    loudest = max(float(power.max()) for power in powers.values()) or 1.0
    applied = "".join(f"<li>{escape(line)}</li>" for line in example.applied)
    parts = []
    for name, each in audio.items():
        label = f"{example.heading}: {name}"
        image = picture.svg(label, each, powers[name], rate, peak=peak, loudest=loudest)
        levels = [np.abs(each).max(), np.sqrt(np.square(each, dtype=np.float64).mean())]
        top, rms = (dbfs(decibels(float(level))) for level in levels)
        sound = audio_uri(each * playback, rate, "flac")
        parts.append(
            f"<section>\n<h3>{name}</h3>\n<p>peak {top}, RMS {rms}</p>\n{image}\n"
            f"<audio controls aria-label='{label}' src='{sound}'></audio>\n</section>\n"
        )
    return (
        f"<article>\n<h2>{example.heading}</h2>\n<ul>{applied}</ul>\n"
        f"<div>\n{''.join(parts)}</div>\n</article>\n"
    )
