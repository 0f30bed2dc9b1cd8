"""What a data set of sung songs holds, beside the development set.

    python -m benchmarks.sung_songs SUNG DEVSET --pictures 12 --out SUMMARY

Prints, and writes into SUMMARY: who sings and what plays, tempi, keys, programs, how much is sung,
how loud the voice is, and the long-term spectra of vocals and band against the development set's;
and spectrograms of some songs' mixtures, vocals and accompaniments.
"""

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
import scipy.signal
import tyro
from jaxtyping import Float

from data_pipelines.folders import FolderSongs
from data_pipelines.sources import open_source
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.files import make_folder

EDGES_HZ = (100, 250, 1000, 3000, 5000, 10_000, 16_000)
SAMPLE_RATE = 44_100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Describes a data set of sung songs.

    Attributes:
        sung: folder of `python -m data_pipelines.build sung`.
        devset: folder of `python -m data_pipelines.build devset`.
        num_songs: how many are looked at.
        pictures: how many songs get a spectrogram.
        out: folder for the summary and the pictures.
    """

    sung: tyro.conf.Positional[Path]
    devset: tyro.conf.Positional[Path]
    num_songs: int = 200
    pictures: int = 12
    out: Path


def main(arguments: Arguments) -> None:
    """Prints the tables and writes the pictures."""
    songs, devset = open_source(str(arguments.sung)), open_source(str(arguments.devset))
    if not isinstance(songs, FolderSongs) or not isinstance(devset, FolderSongs):
        raise UserError(f"{arguments.sung}, {arguments.devset}: expected folders of stems")
    numbers = range(min(arguments.num_songs, len(songs)))
    make_folder(arguments.out)
    facts = [json.loads((songs.songs[n].vocals.parent / "song.json").read_text()) for n in numbers]
    with (arguments.out / "summary.txt").open("w") as file:
        for console in (
            rich.console.Console(width=120),
            rich.console.Console(file=file, width=120),
        ):
            console.print(_counts(facts), _ranges(facts), _spectra(songs, numbers, devset))
    for number in numbers[: arguments.pictures]:
        _draw(songs, number, arguments.out / f"{songs.name(number)}.png", facts[number])


def _counts(facts: Sequence[dict[str, Any]]) -> rich.table.Table:
    """How many songs have each value of what is named."""
    table = rich.table.Table("", "different", "songs with each", title=f"{len(facts)} songs")
    values: dict[str, list[Iterable[str]]] = {
        "kind of voice": [[fact["engine"]] for fact in facts],
        "speaker": [[fact["voice"]["source"]] for fact in facts],
        "effort": [[fact["voice"]["effort"]] for fact in facts],
        "delivery": [[str(fact["voice"].get("delivery"))] for fact in facts],
        "style": [[fact["style"]] for fact in facts],
        "effects": [fact["effects"] for fact in facts],
        "kind of band": [[fact["band"]["kind"]] for fact in facts],
        "programs": [map(str, set(fact["band"].get("programs", ()))) for fact in facts],
        "tempo (rounded)": [[str(round(fact["tempo_bpm"]))] for fact in facts],
        "key": [[fact["key"]] for fact in facts],
        "codec": [[fact["master"].get("codec", "none")] for fact in facts],
    }
    for name, each in values.items():
        counts = collections.Counter(value for song in each for value in song)
        common = ", ".join(f"{value} {count}" for value, count in counts.most_common(14))
        table.add_row(name, str(len(counts)), common)
    return table


def _ranges(facts: Sequence[dict[str, Any]]) -> rich.table.Table:
    """Percentiles of numbers."""
    table = rich.table.Table("", "5%", "25%", "median", "75%", "95%")
    columns = {
        "tempo, bpm": [fact["tempo_bpm"] for fact in facts],
        "sung share of the time": [fact["sung_share"] for fact in facts],
        "vocals against band while sung, dB": [fact["vocals_to_band_db"] for fact in facts],
    }
    for name, numbers in columns.items():
        shares = np.percentile(numbers, [5, 25, 50, 75, 95])
        table.add_row(name, *(f"{share:.2f}" for share in shares))
    return table


def _spectra(songs: FolderSongs, numbers: Sequence[int], devset: FolderSongs) -> rich.table.Table:
    """Median share of each band's energy, in dB, with the middle half of the songs."""
    names = [f"{a}-{b} Hz" for a, b in itertools.pairwise(EDGES_HZ)]
    table = rich.table.Table("long-term spectrum, dB", *names)
    for what, source, each in (
        ("sung", songs, numbers),
        ("development set", devset, range(len(devset))),
    ):
        stems = [source.segment(n, 0, source.num_samples(n)) for n in each]
        for name in ("vocals", "accompaniment"):
            shares = np.array([_band_shares(getattr(stem, name)) for stem in stems])
            low, middle, high = np.percentile(shares, [25, 50, 75], axis=0)
            cells = zip(low, middle, high, strict=True)
            table.add_row(f"{what}, {name}", *(f"{m:.0f} ({a:.0f}..{b:.0f})" for a, m, b in cells))
    return table


def _band_shares(audio: Float[np.ndarray, "time 2"]) -> Float[np.ndarray, "band"]:
    """Energy of each band of `EDGES_HZ` against the whole, in dB."""
    frequencies, power = scipy.signal.welch(audio, SAMPLE_RATE, nperseg=4096, axis=0)
    power = power.sum(1)
    bands = np.digitize(frequencies, EDGES_HZ)
    energy = np.array([power[bands == band].sum() for band in range(1, len(EDGES_HZ))])
    return 10 * np.log10(np.maximum(energy / (power.sum() + 1e-20), 1e-9))


def _draw(songs: FolderSongs, number: int, path: Path, facts: dict[str, Any]) -> None:
    """Twelve seconds of the mixture and both stems, 50 Hz to 16 kHz."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    length = min(12 * SAMPLE_RATE, songs.num_samples(number))
    start = (songs.num_samples(number) - length) // 2
    vocals, accompaniment = songs.segment(number, start, length)
    figure, axes = plt.subplots(3, 1, figsize=(12, 10), sharex=True, layout="constrained")
    parts = {"mixture": vocals + accompaniment, "vocals": vocals, "accompaniment": accompaniment}
    for axis, (name, audio) in zip(axes, parts.items(), strict=True):
        axis.specgram(
            audio.mean(1) + 1e-7 * np.random.default_rng(0).standard_normal(length),
            NFFT=2048,
            noverlap=1536,
            Fs=SAMPLE_RATE,
            vmin=-130,
            vmax=-40,
        )
        axis.set(ylim=(50, 16_000), ylabel=name, yscale="symlog")
    axes[0].set_title(
        f"{facts['engine']} {facts['voice'].get('delivery', '')}, {facts['style']},"
        f" {' '.join(facts['effects'])}; {facts['band']['kind']}"
    )
    figure.savefig(path, dpi=60)
    plt.close(figure)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments))
