"""The report on a data set: a table on the terminal, and a page of training examples.

The page is one HTML file with players, pictures, levels and the augmentations of each example. Its
template is page.html.jinja.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipelines import pipeline
from data_pipelines.augment import StemChanges
from data_pipelines.dsp import Stereo
from data_pipelines.examples import ExamplePlan, render
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.source import Source, active_blocks
from diffsep_jax import pages
from diffsep_jax.errors import UserError, printable
from diffsep_jax.files import check_writable, write_bytes

PLAYBACK_PEAK_DB = -1.0
"""Peak of the loudest of an example's players, in dBFS."""


def report(
    source: Source,
    config: PipelineConfig,
    *,
    spec: str,
    segment: int,
    num_steps: int,
    out: Path,
    num_examples: int = 6,
    seed: int = 0,
) -> None:
    """Prints the songs in numbers; writes the page `out` with training examples.

    `seed` selects the examples among those of a training of `num_steps`; `spec` names the songs in
    the heading.

    Raises:
        UserError: the page cannot be written, a song is damaged or shorter than an example.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder; expected the name of an HTML file")
    check_writable(out.parent)
    if missing := pages.missing_packages():
        raise UserError(missing)
    pipeline.check_lengths(source, config, segment)
    rows = measure(source, spec)
    table = Table(show_header=False)
    for heading, value in rows.items():
        table.add_row(heading, Text(value))
    Console().print(table)
    examples = draw(
        source,
        config,
        segment=segment,
        num_steps=num_steps,
        num_examples=num_examples,
        seed=seed,
    )
    data = to_html(spec, rows, list(examples)).encode()
    write_bytes(out, data)
    print(f"wrote {out} ({len(data) / 1e6:.1f} MB); open it in a browser")


def measure(source: Source, spec: str) -> dict[str, str]:
    """Measures every song, with a progress bar on stderr; returns a text for each heading.

    The songs of a folder are read in full the first time, and later found in the cache, by training
    too. A block of vocals is silent as `source.active_blocks` says.

    Raises:
        UserError: naming the file, for one that is damaged.
    """
    numbers = rich.progress.track(
        range(len(source)), "songs", console=Console(stderr=True), transient=True
    )
    rows = [
        (
            source.num_samples(song) / source.sample_rate,
            decibels(source.level(song)),
            1.0 - active_blocks(source.activity(song), source.level(song)).mean(),
        )
        for song in numbers
    ]
    seconds, level_db, silent = np.array(rows).T

    def song(number: np.intp) -> str:
        return printable(source.name(int(number)))

    shortest, longest = np.argmin(seconds), np.argmax(seconds)
    quietest, loudest = np.argmin(level_db), np.argmax(level_db)
    return {
        "data set": printable(spec),
        "songs": f"{len(source):,}",
        "hours": f"{seconds.sum() / 3600:,.3f}",
        "sample rate": f"{source.sample_rate:,} Hz",
        "shortest song": f"{pages.clock(seconds[shortest])}, {song(shortest)}",
        "longest song": f"{pages.clock(seconds[longest])}, {song(longest)}",
        "blocks with silent vocals": f"{np.average(silent, weights=seconds):.1%}",
        "median level of a mixture": dbfs(np.median(level_db)),
        "quietest mixture": f"{dbfs(level_db[quietest])}, {song(quietest)}",
        "loudest mixture": f"{dbfs(level_db[loudest])}, {song(loudest)}",
    }


def decibels(amplitude: float) -> float:
    """20 log10 of an amplitude, -inf for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0.0 else -math.inf


def dbfs(level_db: float) -> str:
    """A level in words: "-12.3 dBFS", or "silence"."""
    return f"{level_db:+.1f} dBFS" if math.isfinite(level_db) else "silence"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A row of a batch, as the model gets it, and what the template shows of it.

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

    def sounds(self) -> Iterator[dict[str, str]]:
        """Name, levels and player of each stem; all are played at one gain."""
        peak = max(float(np.abs(each).max()) for each in self.audio.values()) or 1.0
        playback = np.float32(10.0 ** (PLAYBACK_PEAK_DB / 20.0) / peak)
        for name, each in self.audio.items():
            levels = [np.abs(each).max(), np.sqrt(np.square(each, dtype=np.float64).mean())]
            top, rms = (dbfs(decibels(float(level))) for level in levels)
            uri = pages.audio_uri(each * playback, self.sample_rate, "flac")
            yield {"name": name, "levels": f"peak {top}, RMS {rms}", "uri": uri}

    def picture(self) -> str:
        """Spectrograms of the stems."""
        from diffsep_jax import plots  # needs matplotlib, which `report` asks for

        picture = plots.spectrograms(self.audio, self.sample_rate)
        return pages.data_uri("image/png", picture)


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
        "data_pipelines.inspect", "page.html.jinja", spec=spec, rows=rows, examples=examples
    )
