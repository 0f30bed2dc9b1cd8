"""Scores a model's direct estimate on the development set, for curves of training.

    python -m benchmarks.data_recipe score MODEL --devset DEVSET --out RUNS

DEVSET is what `python -m data_pipelines.build devset` makes. RUNS/NAME.json gets every clip's
scores; a table of each part's is printed. Paired comparisons of models, with intervals, are
`eval.py`'s and `python -m diffsep_jax.evaluation.report A B`; what is measured here alone is how
much of the voice is kept and how much of the band is passed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rich.box
import rich.console
import rich.table
import tyro
from jaxtyping import Float

from data_pipelines.folders import FolderSongs
from diffsep_jax import metrics
from diffsep_jax.errors import one_line_errors
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.inference.separator import Separator
from diffsep_jax.runtime import use_compilation_cache

SAMPLE_RATE = 44_100
MIDDLE_HZ = (250.0, 3000.0)
"""Where voices lie, and where bands leak into them."""

Stereo = Float[np.ndarray, "time 2"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is scored.

    Attributes:
        command: score.
        model: shipped model or model directory; the results are named after it and its folder.
        devset: folder of the development set.
        out: folder of the results.
    """

    command: tyro.conf.Positional[Literal["score"]]
    model: tyro.conf.Positional[str]
    devset: Path
    out: Path


def main(options: Options) -> None:
    """Separates and scores every clip, writes the scores and prints a table."""
    check_writable(options.out)
    use_compilation_cache()
    separator = Separator.from_pretrained(options.model)
    facts = json.loads((options.devset / "meta.json").read_text())
    songs = FolderSongs(path=str(options.devset))
    scores = {}
    for song in range(len(songs)):
        vocals, accompaniment = songs.segment(song, 0, songs.num_samples(song))
        mixture = vocals + accompaniment
        estimate = separator.separate(mixture, SAMPLE_RATE, sampler="direct").vocals
        part = facts[songs.name(song)].get("part", "all")
        scores[songs.name(song)] = {"part": part, **score(vocals, accompaniment, estimate)}
    path = options.out / f"{'_'.join(Path(options.model).parts[-2:])}.json"
    write_bytes(path, json.dumps({"scores": {"1.0": scores}}, indent=1).encode())
    print_table(scores)


def score(vocals: Stereo, accompaniment: Stereo, estimate: Stereo) -> dict[str, float]:
    """Utterance SDR, MR-STFT distance, leakage, and the shares of voice and band in the output."""
    voice, band = middle_shares(vocals, accompaniment, estimate)
    return {
        "sdr": metrics.sdr(vocals, estimate),
        "mr_stft": metrics.mr_stft(vocals, estimate),
        "leakage_db": metrics.leakage_db(vocals, vocals + accompaniment, estimate),
        "voice_kept": voice,
        "band_passed": band,
    }


def middle_shares(vocals: Stereo, accompaniment: Stereo, estimate: Stereo) -> tuple[float, float]:
    """Least-squares shares of vocals and accompaniment in an estimate between `MIDDLE_HZ`."""
    frequencies = np.fft.rfftfreq(len(estimate), 1 / SAMPLE_RATE)
    inside = (frequencies >= MIDDLE_HZ[0]) & (frequencies < MIDDLE_HZ[1])
    voice, band, output = (
        np.fft.rfft(x, axis=0)[inside].ravel() for x in (vocals, accompaniment, estimate)
    )
    stems = np.stack([voice, band])
    gram = (stems @ stems.conj().T).real
    shares = np.linalg.solve(gram, (stems.conj() @ output).real)
    return float(shares[0]), float(shares[1])


def print_table(scores: dict[str, dict[str, Any]]) -> None:
    """Mean and median SDR and the medians of the rest, for each part and for all clips."""
    others = ("mr_stft", "leakage_db", "voice_kept", "band_passed")
    columns = ("part", "clips", "SDR, mean", "median", *(name.replace("_", " ") for name in others))
    grid = rich.table.Table(*columns, box=rich.box.MARKDOWN)
    parts = sorted({clip["part"] for clip in scores.values()} - {"all"})
    for part in [*parts, "all"]:
        clips = [clip for clip in scores.values() if part in (clip["part"], "all")]
        sdr = [clip["sdr"] for clip in clips]
        # The leakage of a clip without silence is NaN.
        medians = [np.nanmedian([clip[name] for clip in clips]) for name in others]
        figures = [np.mean(sdr), np.median(sdr), *medians]
        grid.add_row(part, str(len(clips)), *(f"{figure:.2f}" for figure in figures))
    rich.console.Console(width=120, highlight=False).print(grid)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options, description=__doc__))
