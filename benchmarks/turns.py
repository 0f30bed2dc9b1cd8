"""Times programs in turns, so that other load on the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

Name = TypeVar("Name")


class Seconds(NamedTuple):
    """Medians over the turns by the clock and in processor time; the fastest and slowest turn."""

    clock: float
    processor: float
    fastest: float
    slowest: float


def take_turns(
    runs: Mapping[Name, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[Name, Seconds]:
    """Each program's seconds over `repeats` turns, after `warm_up` turns that do not count."""
    taken: dict[Name, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in runs.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            elapsed = time.perf_counter() - clock, time.process_time() - processor
            if turn >= warm_up:
                taken[name].append(elapsed)
    seconds = {}
    for name, each in taken.items():
        clocks, processors = zip(*each, strict=True)
        seconds[name] = Seconds(
            statistics.median(clocks), statistics.median(processors), min(clocks), max(clocks)
        )
    return seconds
