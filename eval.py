"""Scores a model:  python eval.py --model NAME_OR_DIR --data SOURCE --out DIR [--steps 50 ...]

Combines a source of songs, estimates of their vocals, and metrics; writes scores and a page into
DIR and prints tables. The same command again continues where it stopped. See docs/evaluation.md.
"""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import rich.console
import tyro

from data_pipelines.sources import available_split, open_source
from diffsep_jax.arguments import arguments, unset
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.protocols import ANCHORS, METRICS
from diffsep_jax.evaluation.sweep import Sweep, label, parse_sweep
from diffsep_jax.files import check_writable
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE, DEFAULT_OVERLAP, check_overlap
from diffsep_jax.inference.settings import DEFAULT_PRESET, SamplerOptions, check_effect
from diffsep_jax.runtime import DeviceOption, DtypeOption, inference_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Scores vocals, by a model or in files, on songs whose vocals are known.

    Attributes:
        model: name of a shipped model, a model directory, or its URL, such as hf://user/name.
        estimates: path of another program's vocals, to be scored instead of a model's; {track}
            stands for the song's name: 'separated/{track}/vocals.wav'.
        name: name of the estimates in tables.
        data: "embedded" (test songs that are not used in training), or a folder of songs.
        out: folder for the result; the same command again continues where it stopped.
        sampling: options of the sampler.
        repeats: separations of each song, with the seeds seed, seed + 1, ...
        sweep: grid of settings, for example steps=20,50 eta=0,0.4 cutoff-hz=none,5000.
        metrics: all; quick (all but BSS Eval, which takes longest); or sdr (only SDR and SI-SDR of
            whole tracks).
        overwrite: replace a result of other settings in --out.
        overlap: least share of each chunk that is cross-faded with the next one, 0 to 0.5.
        limit_vocals: as in diffsep separate, so that what users get is scored.
        batch_size: number of chunks separated at once.
        device: what to compute on; auto: a GPU or TPU where JAX finds one, otherwise the CPU.
        dtype: type in which the networks compute; auto: float32 on CPUs, bfloat16 elsewhere.
        num_songs: number of embedded songs.
        song_seconds: length of an embedded song.
        cache_dir: folder for rendered and resampled songs.
        multihost: share the songs with the other processes that were started with this command.
    """

    model: Annotated[str | None, unset("small")] = None
    estimates: Annotated[str | None, unset("none")] = None
    name: Annotated[str | None, unset("the sampler settings, or --estimates")] = None
    data: str = "embedded"
    out: pathlib.Path
    sampling: Annotated[SamplerOptions, tyro.conf.OmitArgPrefixes] = dataclasses.field(
        default_factory=SamplerOptions
    )
    repeats: int = 1
    sweep: Annotated[tuple[str, ...], unset("none", "KEY=VALUE,...")] = ()
    metrics: Annotated[
        Literal["all", "quick", "sdr"] | None, unset("sdr in a sweep, otherwise all")
    ] = None
    overwrite: bool = False
    overlap: float = DEFAULT_OVERLAP
    limit_vocals: bool = True
    batch_size: int = DEFAULT_BATCH_SIZE
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    num_songs: int = 10
    song_seconds: float = 60.0
    cache_dir: Annotated[str | None, unset("the user's cache folder")] = None
    multihost: bool = False


def main(command: Evaluate) -> None:
    """Scores every song. All options are checked before any song is rendered."""
    sweep = check(command)
    from diffsep_jax.evaluation import estimates, scores, tables
    from diffsep_jax.evaluation.evaluate import evaluate, track_names, weights_digest
    from diffsep_jax.evaluation.report import write_report
    from diffsep_jax.evaluation.summary import summarise
    from diffsep_jax.inference.separator import Separator
    from diffsep_jax.lock import only_run
    from diffsep_jax.pages import missing_packages
    from diffsep_jax.runtime import (
        is_primary,
        join_hosts,
        use_compilation_cache,
        use_cores,
        wait_for_all,
    )

    use_cores(command.batch_size)
    use_compilation_cache()
    join_hosts(command.multihost, command.device)
    split = available_split(command.data, "test")
    if split == "train":
        note = f"note: {command.data} has no test songs; its train songs are scored"
        print(note, file=sys.stderr)
    source = open_source(
        command.data,
        split="test",
        num_songs=command.num_songs,
        seconds=command.song_seconds,
        cache_dir=command.cache_dir,
    )
    notes = read_notes(command.data)
    settings = identity(command, sweep) | {"split": split or "all"}
    model = command.model or "small"
    if command.estimates is None:
        settings |= {"model": model, "weights": weights_digest(model)}
    if not command.overwrite:
        scores.check_same_settings(command.out, settings)
    estimator: estimates.Estimator
    if command.estimates is not None:
        names = track_names(source)
        estimator = estimates.FileEstimates(command.estimates, names, command.name)
    else:
        separator = Separator.from_pretrained(
            model, batch_size=command.batch_size, dtype=command.dtype
        )
        points = estimates.condition_names(sweep.points, command.name)
        estimator = estimates.SeparatorEstimates(
            separator,
            points,
            repeats=command.repeats,
            overlap=command.overlap,
            limit_vocals=command.limit_vocals,
        )
    with only_run(command.out) if is_primary() else contextlib.nullcontext():
        if command.overwrite:  # only after all checks have passed
            if is_primary():
                scores.remove_result(command.out)
            wait_for_all("the earlier result is removed")
        result = evaluate(
            source,
            estimator,
            out=command.out,
            settings=settings,
            metrics=settings["metrics"],
            command=shlex.join(sys.argv),
            notes=notes,
        )
    if result is None:
        return
    summary = summarise(result)
    console = rich.console.Console(highlight=False)
    tables.show(console, result, summary)
    page = command.out / scores.REPORT_FILE
    if missing := missing_packages():
        print(f"note: {missing}; no page was written", file=sys.stderr)
        page = command.out / scores.SCORES_FILE
    else:
        write_report(page, result, summary)
    console.print(f"wrote {command.out}; look at {page}", markup=False, soft_wrap=True)


def check(command: Evaluate) -> Sweep:
    """The points to score, at least one. Raises UserError if the options are wrong."""
    check_overlap(command.overlap)
    if command.name is not None and (not command.name.strip() or command.name in ANCHORS):
        raise UserError(
            f"name is {command.name!r}; expected a name other than {', '.join(ANCHORS)}"
        )
    if command.estimates is not None:
        useless = (
            *("model", "sampling", "overlap", "limit_vocals", "batch_size", "dtype"),
            *("repeats", "sweep"),
        )
        refuse_without_effect(command, "--estimates", useless)
    if command.data != "embedded":
        refuse_without_effect(command, f"--data {command.data}", ("num_songs", "song_seconds"))
    check_writable(command.out)
    preset = DEFAULT_PRESET
    if command.estimates is None:
        from diffsep_jax.inference.pretrained import load_default_preset

        preset = load_default_preset(command.model or "small")
    sweep = parse_sweep(command.sweep, command.sampling, preset)
    if not command.sweep:
        check_effect(command.sampling, sweep.points[0])
    else:
        print(f"{len(sweep.points)} points; {sweep.num_same} equivalent ones left out")
    return sweep


def refuse_without_effect(command: Evaluate, option: str, fields: Sequence[str]) -> None:
    """Raises UserError if one of the fields, which have no effect with `option`, was given."""
    plain = Evaluate(out=command.out)
    for field in fields:
        if getattr(command, field) != getattr(plain, field):
            name = "a sampler option" if field == "sampling" else f"--{field.replace('_', '-')}"
            raise UserError(f"{name} is given with {option}, where it has no effect; leave it out")


def identity(command: Evaluate, sweep: Sweep) -> dict[str, Any]:
    """Everything that determines the numbers, except the model."""
    wanted = command.metrics or ("sdr" if command.sweep else "all")
    groups = {
        "all": ["utterance", "spectral", "chunk"],
        "quick": ["utterance", "spectral"],
        "sdr": ["utterance"],
    }[wanted]
    if command.repeats > 1 and wanted != "sdr":
        groups.append("calibration")
    metrics = [name for name in METRICS if METRICS[name].group in groups]
    settings: dict[str, Any] = {"data": command.data, "metrics": metrics}
    if command.name is not None:
        settings["name"] = command.name
    if command.data == "embedded":
        settings |= {"num_songs": command.num_songs, "song_seconds": command.song_seconds}
    if command.estimates is not None:
        return settings | {"estimates": command.estimates}
    points = {label(point): dataclasses.asdict(point) for point in sweep.points}
    return settings | {
        "overlap": command.overlap,
        "limit_vocals": command.limit_vocals,
        "dtype": inference_dtype(command.dtype),
        "repeats": command.repeats,
        "points": points,
    }


def read_notes(data: str) -> dict[str, dict[str, Any]]:
    """What meta.json at the root of a folder of songs says about them; nothing if there is none.

    It is {name of the song: {"part": text, "bandwidth_hz": number, ...}, ...}; both are optional,
    and other keys are ignored. Raises UserError if it is anything else.
    """
    path = pathlib.Path(data) / "meta.json"
    if data == "embedded" or not path.is_file():
        return {}
    notes = {}
    try:
        for name, found in json.loads(path.read_text(encoding="utf-8")).items():
            part, hz = found.get("part"), found.get("bandwidth_hz")
            if not (part is None or (isinstance(part, str) and part)):
                raise UserError(f"{path}: part of {name} is {part!r}; expected a word")
            if not (hz is None or (isinstance(hz, int | float) and hz > 0)):
                raise UserError(f"{path}: bandwidth_hz of {name} is {hz!r}; expected Hz above 0")
            notes[name] = {"part": part, "bandwidth_hz": hz}
    except UserError:
        raise
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path}: expected a JSON object with an object for each song") from None
    return notes


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Evaluate, args=arguments(), config=(tyro.conf.DisallowNone,)))
