"""Trains a separation model:  python train.py CONFIG --workdir DIR [--train.num-steps 100 ...]

Composes an experiment, from `configs/` or a file of your own, its data and the training loop. Run
the same command again to resume from the newest checkpoint in the work folder.
"""

import contextlib
import dataclasses
import functools
import pathlib
import signal
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from diffsep_jax.errors import UserError, one_line_errors

with one_line_errors():
    import absl.flags
    import grain
    import jax
    import tyro

    import configs
    from data_pipelines import pipeline, sources
    from data_pipelines.augment import NO_AUGMENTATION
    from data_pipelines.inspect.page import report
    from data_pipelines.source import Source
    from diffsep_jax.arguments import arguments
    from diffsep_jax.inference.pretrained import (
        CONFIG_FILE,
        StoredDtype,
        load_default_preset,
        load_model,
        save_model,
    )
    from diffsep_jax.inference.settings import DEFAULT_PRESET, Preset
    from diffsep_jax.lock import only_run_of_all
    from diffsep_jax.models.model import Params, SeparationModel, model_to_json
    from diffsep_jax.runtime import is_primary, join_hosts, use_compilation_cache
    from diffsep_jax.training.checkpoint import check_path, has_checkpoint, load_trained
    from diffsep_jax.training.interrupt import raise_preempted
    from diffsep_jax.training.loop import train
    from diffsep_jax.training.mirror import MODEL_FOLDER, Mirror, local_folder, mirrored
    from diffsep_jax.training.run_config import differences, has_untrained_generator
    from diffsep_jax.training.sharding import BatchLayout, make_mesh
    from diffsep_jax.training.tracker import load_tracker
    from diffsep_jax.urls import is_url


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(configs.Experiment):
    """The command line: a config, any field of which can be overridden by its name, and more.

    Attributes:
        config: name of an experiment in configs/, or the path of a file like those; comes first.
        workdir: folder for checkpoints, the log and the exported model, or its URL, such as
            gs://BUCKET/RUN; the run then works in the user's cache and copies what it saves.
        init_from: name, folder or URL of a model whose parameters a new run starts from; the
            optimiser state and the step count are reset.
        export_only: write WORKDIR/model from the run's newest checkpoint, without training.
        export_preset: default preset of WORKDIR/model; unset: that of an earlier export, else fast
            if the generator is untrained, else balanced.
        export_dtype: type of the parameters in WORKDIR/model; float16 halves it and rounds them.
        tracker: module:attribute of functions start(config), log(step, metrics) and finish() that
            pass the log's records on, for instance to Weights & Biases; see docs/scaling.md.
        best: with --export-only: export the best checkpoint, by --train.best-by, not the newest.
        inspect: write a page of this run's training examples, to see and hear, and exit.
        multihost: join the other processes of the run, on this host or others.
    """

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    workdir: str
    init_from: str | None = None
    export_only: bool = False
    export_preset: Preset | None = None
    export_dtype: StoredDtype = "float32"
    tracker: str | None = None
    best: bool = False
    inspect: pathlib.Path | None = None
    multihost: bool = False

    @property
    def folder(self) -> pathlib.Path:
        """The work folder; for a URL, the local one."""
        return local_folder(self.workdir) if is_url(self.workdir) else pathlib.Path(self.workdir)


def parse(args: list[str]) -> Run:
    """The command line over the config that it names. Raises UserError for an unknown one."""
    asks_for_help = not {"-h", "--help"}.isdisjoint(args)
    named = bool(args) and not args[0].startswith("-")
    if not named and not asks_for_help:
        raise UserError(
            f"config is missing; expected {', '.join(configs.NAMES)}, or the path of a .py file, as"
            " the first argument: train.py CONFIG --workdir DIR"
        )
    experiment = configs.get(args[0] if named else "small")
    fields = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment)}
    missing = tyro.MISSING  # config and workdir have no defaults
    return tyro.cli(
        Run,
        args=args,
        default=Run(**fields, config=missing, workdir=missing),
        description="Trains a separation model; any field of CONFIG can be overridden by its name."
        f"\n\nThe defaults below are those of the config {args[0] if named else 'small'}.",
    )


def open_songs(run: Run) -> tuple[Source, Source]:
    """The songs to train on and to validate on."""
    data = run.data
    open_sources = functools.partial(
        sources.open_sources,
        seconds=data.song_seconds,
        seed=data.seed,
        cache_dir=data.cache_dir,
        sample_rate=run.model.sample_rate,
    )
    songs = open_sources(data.source, data.weights, split="train", num_songs=data.num_songs)
    held_out = open_sources(
        data.validation_source or data.source,
        None if data.validation_source else data.weights,
        split="validation",
        num_songs=data.validation_songs,
    )
    if held_out == songs and is_primary():
        print(f"{', '.join(data.source)}: no validation songs; validating on training songs")
    return songs, held_out


def open_data(run: Run, rows: Sequence[int]) -> tuple[grain.MapDataset, grain.MapDataset]:
    """These rows of the batches of the training and of the validation songs."""
    data = run.data
    songs, held_out = open_songs(run)
    batches = functools.partial(pipeline.batches, segment=run.model.segment, rows=rows)
    plain = dataclasses.replace(data.pipeline, augment=NO_AUGMENTATION)
    return batches(songs, data.pipeline), batches(held_out, plain)


def inspect_run(run: Run, out: pathlib.Path) -> None:
    """Writes a page of what the run will train on."""
    songs, _ = open_songs(run)
    report(
        songs,
        run.data.pipeline,
        spec=f"{' '.join(run.data.source)} for {run.config}",
        segment=run.model.segment,
        num_steps=run.train.num_steps,
        out=out,
    )


def train_run(run: Run, mirror: Mirror | None = None) -> None:
    """Trains, in all of the run's processes; process 0 exports the model."""
    signal.signal(signal.SIGTERM, raise_preempted)
    tracker = load_tracker(run.tracker) if run.tracker else None
    mesh = make_mesh(run.train.mesh)
    layout = BatchLayout(mesh, run.data.pipeline.batch_size, run.train.micro_batches)
    training, validation = open_data(run, layout.rows)

    def batches_from(step: int) -> Iterator:
        return pipeline.iterate(training, step, run.data.pipeline)

    state = train(
        run.model,
        run.train,
        layout=layout,
        train_batches=batches_from,
        validation_batches=[validation[i] for i in range(run.train.validation_batches)],
        workdir=run.folder,
        initial_params=initial_params(run),
        init_from=run.init_from,
        tracker=tracker,
        on_saved=mirror.start if mirror else lambda: None,
        settings={
            "config": run.config,
            "train": dataclasses.asdict(run.train),
            "data": dataclasses.asdict(run.data),
            "compute": dataclasses.asdict(run.model.compute),
        },
    )
    params = jax.jit(lambda ema: ema, out_shardings=layout.everywhere)(state.ema)
    if is_primary():
        export(run, run.model, params)


def initial_params(run: Run) -> Params | None:
    """The parameters of `--init-from`; None without it, and for a run that resumes.

    Raises UserError unless the models are equal except for the length of their segments.
    """
    if run.init_from is None or has_checkpoint(run.folder):
        return None
    model, params = load_model(run.init_from)
    model = dataclasses.replace(model, segment=run.model.segment)
    for name, there, here in differences(model_to_json(model), model_to_json(run.model)):
        raise UserError(
            f"--init-from {run.init_from}: {name} is {there} there, {here} in this config; the"
            " models must be the same but for the segment"
        )
    return params


def export(run: Run, model: SeparationModel, params: Params) -> None:
    """Writes WORKDIR/model."""
    folder = run.folder / MODEL_FOLDER
    preset = run.export_preset
    if preset is None and (folder / CONFIG_FILE).is_file():
        preset = load_default_preset(str(folder))
    elif preset is None and has_untrained_generator(run.folder):
        preset = "fast"  # such a generator samples noise
    save_model(
        folder, model, params, default_preset=preset or DEFAULT_PRESET, dtype=run.export_dtype
    )
    print(f"wrote {run.folder / MODEL_FOLDER}")


def refuse_without_effect(run: Run) -> None:
    """Raises UserError for an option that has no effect, given the others."""
    data, plain = run.data, configs.get(run.config).data
    names = ("num_songs", "validation_songs", "song_seconds", "seed")
    of_embedded = {
        f"--data.{name.replace('_', '-')}": getattr(data, name) != getattr(plain, name)
        for name in names
    }
    is_threaded = data.pipeline.num_threads != plain.pipeline.num_threads
    elsewhere = {
        "--init-from": run.init_from is not None,
        "--export-preset": run.export_preset is not None,
        "--export-dtype": run.export_dtype != "float32",
        "--tracker": run.tracker is not None,
        "--multihost": run.multihost,
    }
    of_training = {name: elsewhere[name] for name in ("--init-from", "--tracker", "--multihost")}
    has_embedded = "embedded" in (*data.source, *(data.validation_source or ()))
    useless: dict[str, dict[str, Any]] = {
        "without --export-only": {"--best": run.best and not run.export_only},
        "with --export-only": of_training | {"--inspect": run.inspect} if run.export_only else {},
        "with --inspect": elsewhere if run.inspect else {},
        "without embedded songs": {} if has_embedded else of_embedded,
        "with worker processes": {
            "--data.pipeline.num-threads": is_threaded and data.pipeline.num_workers
        },
    }
    for option, given in useless.items():
        for name, is_given in given.items():
            if is_given:
                raise UserError(f"{name} has no effect {option}; leave it out")
    for name in ("export_only", "multihost"):
        if getattr(run, name) and is_url(run.workdir):
            raise UserError(
                f"--workdir is {run.workdir}; expected a folder with --{name.replace('_', '-')}."
                " Copy or mount the data"
            )


def main(args: list[str]) -> None:
    """Parses the command line, trains, exports."""
    run = parse(args)
    refuse_without_effect(run)
    if run.inspect is not None:
        inspect_run(run, run.inspect)
        return
    use_compilation_cache()
    if run.export_only:
        export(run, *load_trained(run.folder, run.train.best_by if run.best else None))
        return
    join_hosts(run.multihost)
    check_path(run.folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_run_of_all(run.folder))
        at_url = is_url(run.workdir)
        train_run(run, stack.enter_context(mirrored(run.workdir, run.folder)) if at_url else None)


if __name__ == "__main__":
    absl.flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    with one_line_errors("--data.pipeline.batch-size (or raise --train.micro-batches)"):
        main(arguments())
