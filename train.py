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
import jax
import tyro

import configs
from data_pipelines import pipeline, sources
from data_pipelines.augment import NO_AUGMENTATION
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.training.loop import load_ema, train

MODEL_FOLDER = "model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(configs.Experiment):
    """Trains a separation model; any field of the config can be overridden by its name.

    Attributes:
        config: tiny, small, diff_dmx_rt_musdb, diff_dmx_extra or diff_dmx_rt_extra; comes first.
        workdir: folder for checkpoints, the log and the exported model.
        export_only: write WORKDIR/model from the newest checkpoint, without training.
    """

    config: tyro.conf.Positional[str]
    workdir: pathlib.Path
    export_only: bool = False


def parse(arguments: list[str]) -> Run:
    """The command line over the config that it names."""
    named = bool(arguments) and not arguments[0].startswith("-")
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
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )
    plain = dataclasses.replace(data.pipeline, augment=NO_AUGMENTATION)
    return batches(songs, data.pipeline), batches(held_out, plain)


def main(arguments: list[str]) -> None:
    """Parses the command line, trains, exports."""
    run = parse(arguments)
    try:
        run.workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {run.workdir}: cannot create it ({error.strerror})") from None
    if run.export_only:
        params = load_ema(run.model, run.train, run.workdir)
    else:
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
        params = state.ema
    if jax.process_index() == 0:
        save_model(run.workdir / MODEL_FOLDER, run.model, params)
        print(f"wrote {run.workdir / MODEL_FOLDER}")


if __name__ == "__main__":
    absl.flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    with one_line_errors():
        main(sys.argv[1:])
