"""Writes shards on Apache Beam: Dataflow, Flink, Spark, or this machine's DirectRunner.

All workers must see the source and the output under the given paths, on a shared file system.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.builders.shards import Shard, write_shard
from diffsep_jax.errors import UserError


def write_on_beam(options: Sequence[str], shards: Sequence[Shard]) -> Iterator[tuple[Path, Path]]:
    """Writes the shards; a `data_pipelines.builders.builder.Runner` once `options` are given.

    `options` are Beam's own, as `("--runner=DirectRunner", "--direct_num_workers=2")`. Raises
    UserError if Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError(
            "Apache Beam is not installed; pip install -e '.[train,beam]', in an environment of"
            " its own because it needs older versions of other packages"
        ) from None
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(shards)
            | "spread" >> beam.Reshuffle()
            | "write" >> beam.Map(write_shard)
        )
    yield from map(write_shard, shards)  # all are there: returns their paths
