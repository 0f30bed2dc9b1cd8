"""Peak memory and time of `diffsep separate` on a short and a long file.

    python -m benchmarks.long_file [--minutes 1 60] [-- OPTIONS OF diffsep separate]

The files are 16-bit stereo wav at 44.1 kHz that repeat a minute of an embedded test song. Each is
separated by its own process, whose peak resident memory the kernel reports. The direct estimate is
the default: with it, reading and writing take the largest share.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile as sf
import tyro

from data_pipelines.sources import EmbeddedSongs
from diffsep_jax.errors import UserError, one_line_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured.

    Attributes:
        minutes: lengths of the files.
        options: options of `diffsep separate`.
    """

    minutes: tuple[int, ...] = (1, 60)
    options: tuple[str, ...] = ("--sampler", "direct")


def main(args: Arguments) -> None:
    """Prints a line for each length."""
    if not args.minutes or min(args.minutes) < 1:
        raise UserError(f"--minutes is {args.minutes}; expected 1 or more")
    song = EmbeddedSongs(split="test", num_songs=1, seconds=60.0)
    minute = sum(song.segment(0, 0, song.num_samples(0)), np.float32(0))
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "long.wav"
            with sf.SoundFile(path, "w", song.sample_rate, 2, "PCM_16") as file:
                for _ in range(minutes):
                    file.write(minute)
            seconds, peak = separate(path, pathlib.Path(folder) / "out", args.options)
        print(
            f"{minutes} min: {seconds:.1f} s, real-time factor {seconds / minutes / 60:.3f},"
            f" peak resident memory {peak:.0f} MiB"
        )


def separate(
    path: pathlib.Path, out: pathlib.Path, options: tuple[str, ...]
) -> tuple[float, float]:
    """Seconds and peak MiB of a process that separates a file."""
    command = [sys.executable, "-m", "diffsep_jax.cli", "separate", str(path), "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--progress", "quiet", *options])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(command)}: ended with status {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024  # Linux counts in KiB


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
