"""What a separation would do, and how long it would take: `diffsep separate --dry-run`."""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffsep_jax.commands.reporting import print_event, real_time_factor
from diffsep_jax.errors import EXIT_USER_ERROR, UserError
from diffsep_jax.inference.files import FileJob, FileOptions, open_job
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import ChunkModel, TrackStream

if TYPE_CHECKING:
    from diffsep_jax.commands.separate import Separate
    from diffsep_jax.inference.separator import Separator


def print_plan(command: "Separate", jobs: Sequence[FileJob], options: FileOptions) -> None:
    """Reads the files through, times a batch on this machine, and prints the plan.

    With `--progress json` each file is an event, and so are the sums. Bad files are told, and the
    exit status is then 2. UserError for a bad model.
    """
    from diffsep_jax.inference.separator import Separator
    from diffsep_jax.runtime import use_compilation_cache

    use_compilation_cache()
    separator = Separator.from_pretrained(command.model, batch_size=command.batch_size)
    refines = command.refine is not None
    settings = command.sampling.settings(separator.default_preset, refines=refines)
    model = separator.chunk_model(settings, command.overlap, refines=refines)
    is_json = command.progress == "json"
    chunks, seconds, failed = 0, 0.0, 0
    for job in jobs:
        try:
            track, guess = open_job(job, options)
            stream = TrackStream(track, model, overlap=command.overlap, guess=guess)
        except UserError as error:
            failed += 1
            if is_json:
                print_event("error", file=str(job.path), message=str(error))
            else:
                print(f"error: {error}", file=sys.stderr)
            continue
        count = len(stream.wanted)
        chunks, seconds = chunks + count, seconds + track.seconds
        outputs = {stem: str(path) for stem, path in job.outputs.items()}
        if is_json:
            work = _work(track.seconds, count, settings)
            print_event("plan", file=str(job.path), outputs=outputs, **work)
        else:
            results = ", ".join(outputs.values())
            print(f"{job.path} -> {results}: {_told(track.seconds, count, settings)}")
    batches = math.ceil(chunks / model.batch_size)
    estimate = 0.0
    if chunks:
        estimate = batches * seconds_per_batch(separator, settings, command.overlap, refines)
    if is_json:
        total = _work(seconds, chunks, settings) | {"batches": batches, "seconds": estimate}
        print_event("total", files=len(jobs) - failed, failed=failed, **total)
    else:
        print(f"in all: {_told(seconds, chunks, settings)}")
        if chunks:
            print(
                f"about {estimate:.0f} s for {batches} batches of {model.batch_size} chunks, by a"
                f" batch timed on this machine{real_time_factor(estimate, seconds)}"
            )
    if failed:
        raise SystemExit(EXIT_USER_ERROR)


def _work(seconds: float, chunks: int, settings: SamplerSettings) -> dict[str, float]:
    return {
        "audio_seconds": seconds,
        "chunks": chunks,
        "conditioner_calls": chunks,
        "generator_calls": chunks * generator_calls(settings),
    }


def _told(seconds: float, chunks: int, settings: SamplerSettings) -> str:
    work = _work(seconds, chunks, settings)
    return (
        f"{seconds:.1f} s of audio, at most {chunks} chunks (silent ones cost nothing),"
        f" {work['conditioner_calls']} conditioner calls, {work['generator_calls']} generator calls"
    )


def generator_calls(settings: SamplerSettings) -> int:
    """Network calls of the generator for a chunk."""
    return 0 if settings.sampler == "direct" else settings.steps * settings.ensemble


def seconds_per_batch(
    separator: "Separator", settings: SamplerSettings, overlap: float, refines: bool
) -> float:
    """Seconds that a batch takes without compiling: a call of one step, and one of two."""

    def run(steps: int) -> float:
        short = dataclasses.replace(settings, steps=steps, ensemble=1)
        model = separator.chunk_model(short, overlap, refines=refines)
        start = time.perf_counter()
        np.asarray(model.separate(*_noise(model, refines)))
        return time.perf_counter() - start

    run(1)  # compiles
    one, two = run(1), run(2)
    return one + max(0.0, two - one) * max(0, generator_calls(settings) - 1)


def _noise(model: ChunkModel, refines: bool) -> tuple[np.ndarray, ...]:
    shape = (model.batch_size, model.segment, 2)
    mixture = np.random.default_rng(0).standard_normal(shape, np.float32)
    arguments = mixture, np.zeros(model.batch_size, np.int32)
    return (*arguments, mixture) if refines else arguments
