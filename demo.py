"""Shows what the shipped model does, in about two minutes on two CPU cores:  python demo.py

Scores it on songs not used in training and separates a real song.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tyro
from rich import progress
from rich.console import Console

from data_pipelines.embedded import excerpt
from data_pipelines.sources import EmbeddedSongs
from diffsep_jax import metrics
from diffsep_jax.arguments import arguments
from diffsep_jax.audio.write import write_wav
from diffsep_jax.errors import one_line_errors
from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.evaluation.tables import Table, rich_table
from diffsep_jax.files import check_writable, make_folder, write_bytes
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE
from diffsep_jax.inference.pretrained import WEIGHTS_FILE, load_model, model_file
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerSettings
from diffsep_jax.runtime import use_compilation_cache, use_cores

SONG_SECONDS = 60.0

SAMPLE = SamplerSettings(sampler="ab2", steps=8, schedule=3.0)
DIRECT, DIFFUSION = "direct estimate", "diffusion, T=8"
ESTIMATES = {DIRECT: PRESETS["fast"], DIFFUSION: SAMPLE}
MORE_ESTIMATES = {
    "preset balanced": PRESETS["balanced"],
    "diffusion, T=2": dataclasses.replace(SAMPLE, steps=2),
    "the paper's sampler, T=20": SamplerSettings(steps=20),
    "8 draws' mean, T=8": dataclasses.replace(SAMPLE, ensemble=8),
}

PLAN = f"""\
Separates vocals from music by diffusion: about two minutes, nothing to download.
  1  score the model {{model}} on {{num_songs}} embedded songs not used in training
  2  separate a real song: {excerpt.TITLE},
     {excerpt.ORIGIN}, {excerpt.LICENCE}
"""

WHAT_TO_EXPECT = """
[bold]What to expect.[/] The shipped model, small, was trained for ten hours on two CPU cores, \
on songs sung by synthesisers and on instrumental music; no singer was recorded for any of them. \
In real recordings, expect instruments that leak, lost syllables, and missed voices under music \
unlike its training data: it shows that the method works, and is no tool for production. The \
paper's models have 16 to 22 times its parameters and took a week on four A100s.

[bold]Why the direct estimate scores higher.[/] SDR rewards the mean of all the vocals that a \
mixture allows, and the direct estimate is trained to be that mean. Diffusion draws one of these \
vocals, and even a perfect draw has twice the error: about 3 dB less, by design. With few steps it \
is near the mean, and the mean of several draws approaches it."""

YOUR_SONGS = """
Your own song:  .venv/bin/diffsep SONG.mp3
To train on your own songs, SONGS/<song>/vocals.wav with mixture.wav or any other stems:
  .venv/bin/python train.py small --workdir runs/mine --data.source SONGS"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Scores the shipped model and separates a real song.

    Attributes:
        out: folder for the audio and the picture.
        model: name of a shipped model, a model directory, or its URL.
        num_songs: embedded test songs to score, 60 s each.
    """

    out: pathlib.Path = pathlib.Path("demo_output")
    model: str = "small"
    num_songs: int = 10


def main(command: Demo) -> None:
    """Runs the demo."""
    # Here, as it raises UserError where matplotlib is missing.
    from diffsep_jax.plots import spectrograms

    use_cores(DEFAULT_BATCH_SIZE)
    use_compilation_cache()
    begin = time.perf_counter()
    out = command.out
    check_writable(out)
    songs = EmbeddedSongs(split="test", num_songs=command.num_songs, seconds=SONG_SECONDS)
    vocals, accompaniment, rate = excerpt.load_excerpt()
    mixture = vocals + accompaniment
    model, params = load_model(command.model)
    console = Console(highlight=False)
    # Brackets in what the user typed are no markup.
    console.print(PLAN.format(model=command.model, num_songs=command.num_songs), markup=False)

    console.print("[bold]1[/]  compiling, rendering the songs, scoring")
    separator = Separator(model, params)
    for name in (DIRECT, DIFFUSION):
        separator.warm_up(settings=ESTIMATES[name])
    rows = []
    for i in progress.track(range(len(songs)), "   songs", console=console):
        sung, played = songs.segment(i, 0, songs.num_samples(i))
        rows += score("embedded", separator, sung, played, songs.sample_rate, ESTIMATES)[0]

    scored = time.perf_counter()
    console.print("[bold]2[/]  separating the real song")
    estimates = ESTIMATES | MORE_ESTIMATES
    real, separated = score("real song", separator, vocals, accompaniment, rate, estimates)
    rows += real
    stems = {
        "mixture": mixture,
        "reference_vocals": vocals,
        "vocals": separated[DIFFUSION],
        "accompaniment": mixture - separated[DIFFUSION],
        "vocals_direct": separated[DIRECT],
    }
    make_folder(out)
    for name, audio in stems.items():
        write_wav(out / f"{name}.wav", audio, rate)
    sdr = {row["condition"]: row["utterance_sdr"] for row in real}
    panels = {
        f"mixture: utterance SDR {real[0]['mixture_sdr']:.1f} dB": mixture,
        "vocals, reference": vocals,
    }
    for name in (DIFFUSION, DIRECT):
        panels[f"vocals, {name}: utterance SDR {sdr[name]:.1f} dB"] = separated[name]
    write_bytes(out / "demo.png", spectrograms(panels, rate, columns=2))

    console.print(rich_table(table_of(rows)))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    megabytes = model_file(command.model, WEIGHTS_FILE).stat().st_size / 1e6
    console.print(
        f"{METRICS['utterance_sdr'].protocol}; median over tracks. Seconds are without compiling."
    )
    about_model = f"Model {command.model}: {num_params:.2f}M parameters, {megabytes:.1f} MB."
    console.print(about_model, markup=False)
    written = ", ".join(("demo.png", *(f"{name}.wav" for name in stems)))
    console.print(f"Wrote to {out}: {written};", markup=False)
    console.print(f"made from {excerpt.TITLE}, they stay under {excerpt.LICENCE}.")
    console.print(WHAT_TO_EXPECT)
    console.print(YOUR_SONGS)
    end = time.perf_counter()
    parts = f"{scored - begin:.0f} s for the embedded songs, {end - scored:.0f} s for the real one"
    console.print(f"\nThe demo took {end - begin:.0f} s: {parts}.")


def score(
    songs: str,
    separator: Separator,
    vocals: np.ndarray,
    accompaniment: np.ndarray,
    sample_rate: int,
    estimates: Mapping[str, SamplerSettings],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """A row of scores for each of the named estimates of a song, and the estimates themselves.

    A score is None where the true vocals are silent.
    """
    mixture = vocals + accompaniment
    silent = metrics.is_silent(vocals)
    rows, separated = [], {}
    for name, settings in estimates.items():
        start = time.perf_counter()
        separated[name] = separator.separate(mixture, sample_rate, settings=settings).vocals
        rows.append(
            {
                "songs": songs,
                "condition": name,
                "seconds": time.perf_counter() - start,
                "audio_seconds": len(mixture) / sample_rate,
                "mixture_sdr": None if silent else metrics.sdr(vocals, mixture),
                "utterance_sdr": None if silent else metrics.sdr(vocals, separated[name]),
            }
        )
    return rows, separated


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each set of songs and condition, with medians over the tracks that have vocals."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["songs"], row["condition"]), []).append(row)
    lines = []
    for (songs, condition), tracks in groups.items():
        sung = [track for track in tracks if track["utterance_sdr"] is not None]
        decibels = ["silent", "silent", ""]
        if sung:
            mixture, output = (
                statistics.median(track[key] for track in sung)
                for key in ("mixture_sdr", "utterance_sdr")
            )
            decibels = [f"{mixture:.2f}", f"{output:.2f}", f"{output - mixture:+.2f}"]
        seconds = sum(track["seconds"] for track in tracks)
        factor = seconds / sum(track["audio_seconds"] for track in tracks)
        lines.append([songs, condition, *decibels, f"{seconds:.1f}", f"{factor:.2f}"])
    return Table(
        "utterance SDR of the vocals, dB",
        ["songs", "vocals", "mixture", "output", "gain", "seconds", "RTF"],
        lines,
        "mixture: the mixture as the estimate; silence would score 0 dB\n"
        "RTF: real-time factor, seconds of work per second of song",
        num_left=2,
    )


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Demo, args=arguments()))
