"""Our BSS Eval against museval's: do they agree, and which is faster.

    python -m benchmarks.bss_eval --agreement
    python -m benchmarks.bss_eval --seconds 240

The first prints a table of the largest differences on every case of `benchmarks.museval_cases`,
and beside them by how much museval differs from itself when all signals are three times as loud,
which should change nothing: that is the rounding of its own sums. The second scores one stereo
track of noise with both, in turns in one process, and prints the times and their ratios. Needs the
`dev` extra.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.museval_cases import (
    cases,
    largest_difference,
    largest_difference_of_medians,
    museval,
)
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.bss_eval import bss_eval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared.

    Attributes:
        agreement: print the table of differences.
        seconds: length of the track for the times; 0 for none.
        rounds: how often each is timed.
        sample_rate: in Hz.
        num_taps: of the filters.
    """

    agreement: bool = False
    seconds: float = 0.0
    rounds: int = 1
    sample_rate: int = 44_100
    num_taps: int = 512


def main(options: Options) -> None:
    """Print what was asked for."""
    if not options.agreement and not options.seconds > 0:
        raise UserError("nothing to do: give --agreement, --seconds SECONDS, or both")
    if options.agreement:
        _print_agreement(options.sample_rate, options.num_taps)
    if options.seconds > 0:
        _print_times(options)


def _print_agreement(sample_rate: int, num_taps: int) -> None:
    print("| case | SDR | ISR | SIR | SAR | track | museval, louder |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(sample_rate, num_taps):
        ours = bss_eval(case.references, case.estimates, sample_rate, num_taps=num_taps)
        theirs = museval(case.references, case.estimates, sample_rate, num_taps)
        louder = museval(
            3 * case.references.astype(np.float64),
            3 * case.estimates.astype(np.float64),
            sample_rate,
            num_taps,
        )
        differences = [
            *largest_difference(ours, theirs).values(),
            largest_difference_of_medians(ours, theirs),
            max(largest_difference(louder, theirs).values()),
        ]
        name = case.name + (" (singular)" if case.singular else "")
        print(
            f"| {name} | " + " | ".join(f"{value:.0e}" for value in differences) + " |", flush=True
        )


def _print_times(options: Options) -> None:
    rng = np.random.default_rng(0)
    num_samples = round(options.seconds * options.sample_rate)
    references = rng.normal(0, 0.1, (2, num_samples, 2)).astype(np.float32)
    estimates = references + rng.normal(0, 0.05, references.shape).astype(np.float32)

    def ours() -> object:
        return bss_eval(references, estimates, options.sample_rate, num_taps=options.num_taps)

    def theirs() -> object:
        return museval(references, estimates, options.sample_rate, options.num_taps)

    first = _measure(ours)
    warm, reference = [_measure(ours)], []
    for _ in range(options.rounds):
        reference.append(_measure(theirs))
        warm.append(_measure(ours))
    base = _median(reference)
    print(f"{options.seconds:g} s of stereo at {options.sample_rate} Hz, {options.num_taps} taps")
    print("| | seconds | museval / this | processor seconds | museval / this |")
    print("|---|---|---|---|---|")
    for name, times in (
        ("museval", base),
        ("ours", _median(warm)),
        ("ours, first call, with compiling", first),
    ):
        columns = [
            f"{mine:.1f} | {museval_time / mine:.1f}"
            for mine, museval_time in zip(times, base, strict=True)
        ]
        print(f"| {name} | {' | '.join(columns)} |")


class Times(NamedTuple):
    """Of one call, in seconds: by the clock, and of all processors in this process."""

    clock: float
    processor: float


def _median(times: Sequence[Times]) -> Times:
    return Times(*(statistics.median(column) for column in zip(*times, strict=True)))


def _measure(work: Callable[[], object]) -> Times:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - clock, time.process_time() - processor)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options, description=__doc__))
