"""The page: one HTML file with players, pictures and levels, which loads nothing from anywhere."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig
from data_pipelines.inspect.contents import Contents, dbfs, decibels
from data_pipelines.inspect.examples import DrawnExample
from data_pipelines.source import ACTIVITY_BLOCK, SILENCE
from diffsep_jax.pages import picture
from diffsep_jax.pages.document import audio_uri, clock, document, escape

PLAYBACK_PEAK_DB = -1.0
"""Peak of the loudest of an example's players, in dBFS."""

_STYLE = """\
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fafafa; --card: #fff; --line: #ddd;
  --soft: #666; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e8; --paper: #17171a; --card: #202024; --line: #3a3a40; --soft: #a0a0a6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 82rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 1rem 0 .25rem; }
article h2 { margin-top: 0; }
h3 { font-size: 1rem; margin: .75rem 0 .25rem; text-transform: capitalize; }
p { margin: .25rem 0; max-width: 70ch; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; margin: .75rem 0; }
th, td { padding: .2rem .75rem .2rem 0; text-align: left; font-weight: normal;
  vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); }
td { overflow-wrap: anywhere; }
article { margin: 1rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.parts { display: grid; gap: 0 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
audio { display: block; width: 100%; margin: .4rem 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 13px; }
.wave { fill: var(--ink); }
"""


def render(contents: Contents, examples: Sequence[DrawnExample], *, augment: AugmentConfig) -> str:
    """The whole page as HTML."""
    name = escape(contents.spec)
    rows = "".join(
        f"<tr><th scope='row'>{what}</th><td>{escape(value)}</td></tr>\n"
        for what, value in contents.rows()
    )
    used = ", ".join(
        f"{field.name} {getattr(augment, field.name)}"
        for field in dataclasses.fields(augment)
        if getattr(augment, field.name) != getattr(NO_AUGMENTATION, field.name)
    )
    treatment = f"augmented by {used}" if used else "without augmentation, as in validation"
    body = (
        f"<h1>What is in {name}</h1>\n<table>\n{rows}</table>\n"
        "<h2>Random examples, as the model gets them</h2>\n"
        f"<p>Drawn as training draws them, {treatment}. Every song's "
        "mixture is brought to an RMS of 0 dBFS, so peaks lie above full scale, and the players "
        f"are turned down. Vocals are active in a block of {ACTIVITY_BLOCK} samples where their "
        f"RMS is above {decibels(SILENCE):.0f} dBFS. The three waveforms of an example share one "
        f"scale, and its spectrograms one range of colours, {picture.RANGE_DB:.0f} dB.</p>\n"
        + "".join(_article(each) for each in examples)
    )
    title = f"{contents.spec}: {contents.split}"
    return document(title=title, style=_STYLE, body=body)


def _article(example: DrawnExample) -> str:
    peak = max(float(np.abs(audio).max()) for audio in example.audio.values())
    gain_db = PLAYBACK_PEAK_DB - decibels(peak) if peak > 0.0 else 0.0
    powers = {
        name: picture.band_power(audio, example.sample_rate)
        for name, audio in example.audio.items()
    }
    loudest = max(float(power.max()) for power in powers.values())
    places = " and ".join(f"{escape(name)} at {clock(at)}" for name, at in example.places)
    heading = f"Example {example.number:,}"
    parts = []
    for name, audio in example.audio.items():
        rms = decibels(float(np.sqrt(np.square(audio, dtype=np.float64).mean())))
        levels = f"peak {dbfs(decibels(float(np.abs(audio).max())))}, RMS {dbfs(rms)}"
        image = picture.svg(
            f"Waveform and spectrogram: {name} of example {example.number:,}",
            audio,
            powers[name],
            example.sample_rate,
            peak=peak or 1.0,
            loudest=loudest or 1.0,
        )
        played = audio * np.float32(10.0 ** (gain_db / 20.0))
        sound = audio_uri(played, example.sample_rate, "flac")
        parts.append(
            f"<section>\n<h3>{name}</h3>\n<p class='soft'>{levels}</p>\n{image}\n"
            f"<audio controls aria-label='{heading}: {name}' src='{sound}'></audio>\n</section>\n"
        )
    return (
        f"<article>\n<h2>{heading}</h2>\n<p>From {places}.</p>\n"
        f"<p class='soft'>Vocals active in {example.active_share:.0%} of blocks. For playback only,"
        f" turned {'up' if gain_db > 0.0 else 'down'} by {abs(gain_db):.1f} dB.</p>\n"
        f"<div class='parts'>\n{''.join(parts)}</div>\n</article>\n"
    )
