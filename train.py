"""Trains a separation model:  python train.py CONFIG --workdir DIR [--train.num-steps 100 ...]

Composes an experiment from `configs/`, its data and the training loop. Run the same command again
to go on from the newest checkpoint in the work folder.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator

import absl.flags
import grain
import tyro

import configs
from data_pipelines import pipeline, sources
from data_pipelines.augment import NO_AUGMENTATION
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.output import check_writable
from diffsep_jax.training.loop import load_trained, train

MODEL_FOLDER = "model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(configs.Experiment):
    """Trains a separation model; any field of the config can be overridden by its name.

    Attributes:
        config: name of an experiment in configs/; comes first.
        workdir: folder for checkpoints, the log and the exported model.
        export_only: write WORKDIR/model from the run's newest checkpoint, without training.
    """

    config: tyro.conf.Positional[str]
    workdir: pathlib.Path
    export_only: bool = False


def parse(arguments: list[str]) -> Run:
    """The command line over the config that it names. Raises UserError for an unknown one."""
    asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not asks_for_help:
        raise UserError(
            f"no config; give one of {', '.join(configs.NAMES)} first:"
            " train.py CONFIG --workdir DIR"
        )
    experiment = configs.get(arguments[0] if named else "small")
    fields = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment)}
    missing = tyro.MISSING  # config and workdir have no defaults
    return tyro.cli(Run, args=arguments, default=Run(**fields, config=missing, workdir=missing))


def open_data(run: Run) -> tuple[grain.MapDataset, grain.MapDataset]:
    """The batches of the training and the validation songs."""
    data = run.data
    open_source = functools.partial(
        sources.open_source,
        seconds=data.song_seconds,
        seed=data.seed,
        cache_dir=data.cache_dir,
        sample_rate=run.model.sample_rate,
    )
    songs = open_source(data.source, split="train", num_songs=data.num_songs)
    held_out = open_source(
        data.validation_source or data.source,
        split="validation",
        num_songs=data.validation_songs,
    )
    batches = functools.partial(
        pipeline.batches,
        segment=run.model.segment,
    )
    plain = dataclasses.replace(data.pipeline, augment=NO_AUGMENTATION)
    return batches(songs, data.pipeline), batches(held_out, plain)


def main(arguments: list[str]) -> None:
    """Parses the command line, trains, exports."""
    run = parse(arguments)
    if run.export_only:
        model, params = load_trained(run.workdir)
    else:
        check_writable(run.workdir)
        run.workdir.mkdir(parents=True, exist_ok=True)
        training, validation = open_data(run)

        def batches_from(step: int) -> Iterator:
            return pipeline.iterate(training, step, run.data.pipeline)

        state = train(
            run.model,
            run.train,
            train_batches=batches_from,
            validation_batches=[validation[i] for i in range(run.train.validation_batches)],
            batch_size=run.data.pipeline.batch_size,
            workdir=run.workdir,
        )
        model, params = run.model, state.ema
    save_model(run.workdir / MODEL_FOLDER, model, params)
    print(f"wrote {run.workdir / MODEL_FOLDER}")


if __name__ == "__main__":
    absl.flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    with one_line_errors():
        main(sys.argv[1:])
