"""Our BSS Eval against museval's: which is faster.

    python -m benchmarks.bss_eval --seconds 240
    python -m benchmarks.bss_eval --data DEVSET --seconds 60

Scores one stereo track, of noise or of songs, with both in turns in one process, and prints the
times, their ratios and the largest difference. Needs the `dev` extra. That the two agree is tested
(`tests/test_bss_eval.py`).
"""

import dataclasses
import functools
import importlib.util
import time
import types
from pathlib import Path

import numpy as np
import soundfile
import tyro
from jaxtyping import Float32

from benchmarks.turns import Seconds, take_turns
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.bss_eval import BssEval, FrameScores
from diffsep_jax.inference.track import STEMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is timed.

    Attributes:
        seconds: length of the track.
        data: a folder of songs, each with vocals.wav and accompaniment.wav, which are joined; noise
            by default. The estimates hold a tenth of the other stem, and noise.
        rounds: turns of each.
        sample_rate: sample rate in Hz.
        num_taps: length of the filters.
        centred: both channels of the vocals are equal.
    """

    seconds: float = 60.0
    data: Path | None = None
    rounds: int = 1
    sample_rate: int = 44_100
    num_taps: int = 512
    centred: bool = False


def main(options: Options) -> None:
    """Prints a table."""
    rng = np.random.default_rng(0)
    num_samples = round(options.seconds * options.sample_rate)
    if options.data is None:
        references = rng.normal(0, 0.1, (2, num_samples, 2)).astype(np.float32)
    else:
        references = joined_songs(options.data)[:, :num_samples]
    if options.centred:
        references[0, :, 1] = references[0, :, 0]
    leak, noise = (0.0, 0.05) if options.data is None else (0.1, 0.005)
    estimates = references + leak * references[::-1]
    estimates += rng.normal(0, noise, references.shape).astype(np.float32)
    scores = {}

    def ours() -> None:
        scored = BssEval(references, options.sample_rate, num_taps=options.num_taps)
        scores["ours"] = scored(estimates)

    def theirs() -> None:
        scores["museval"] = museval(references, estimates, options.sample_rate, options.num_taps)

    clock, processor = time.perf_counter(), time.process_time()
    ours()
    elapsed = time.perf_counter() - clock
    seconds = {
        "ours, first call, with compiling": Seconds(
            elapsed, time.process_time() - processor, elapsed, elapsed
        ),
        **take_turns({"museval": theirs, "ours": ours}, options.rounds, warm_up=0),
    }
    base = seconds["museval"]
    length = references.shape[1] / options.sample_rate
    difference = np.nanmax(np.abs(np.array(scores["ours"]) - np.array(scores["museval"])))
    print(f"{length:.1f} s of stereo at {options.sample_rate} Hz, {options.num_taps} taps")
    print(f"largest difference: {difference:.2g} dB")
    print("| | seconds | museval / this | processor seconds | museval / this |")
    print("|---|---|---|---|---|")
    for name, each in seconds.items():
        print(
            f"| {name} | {each.clock:.1f} | {base.clock / each.clock:.1f}"
            f" | {each.processor:.1f} | {base.processor / each.processor:.1f} |"
        )


def joined_songs(folder: Path) -> Float32[np.ndarray, "stem time 2"]:
    """Vocals and accompaniment of the folder's songs, one after another."""
    songs = [
        [soundfile.read(song / f"{stem}.wav", dtype="float32")[0] for stem in STEMS]
        for song in sorted(folder.iterdir())
        if song.is_dir()
    ]
    if not songs:
        raise UserError(
            f"data is {folder}; expected a folder of songs, vocals.wav and accompaniment.wav"
        )
    return np.stack([np.concatenate(stem) for stem in zip(*songs, strict=True)])


def museval(
    references: np.ndarray, estimates: np.ndarray, sample_rate: int, num_taps: int = 512
) -> FrameScores:
    """museval's scores, mode v4, windows and hops of 1 s. Raises UserError if not installed."""
    evaluate = _museval_metrics().bss_eval
    scores = evaluate(
        references, estimates, window=sample_rate, hop=sample_rate, filters_len=num_taps
    )
    return FrameScores(*scores[:4])


@functools.cache
def _museval_metrics() -> types.ModuleType:
    """museval's module of metrics alone: the package imports stempeg, which needs ffmpeg."""
    spec = importlib.util.find_spec("museval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("museval is not installed; pip install museval")
    path = Path(spec.submodule_search_locations[0]) / "metrics.py"
    module_spec = importlib.util.spec_from_file_location("museval_metrics", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    # museval 0.4.1 uses numpy.linalg.linalg, which new versions of numpy lack: it gets a copy of
    # numpy's names that has it.
    linalg = types.SimpleNamespace(**vars(np.linalg), linalg=np.linalg)
    vars(module)["np"] = types.SimpleNamespace(**{**vars(np), "linalg": linalg})
    return module


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options, description=__doc__))
