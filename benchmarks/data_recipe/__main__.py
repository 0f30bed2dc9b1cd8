"""What songs and augmentations teach: short trainings of one network, scored on real voices.

    python -m benchmarks.data_recipe train both --source SUNG embedded --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe train no_dense --source SUNG --leave-out band.kind=dense \\
        --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe score small --devset DEVSET --out RUNS
    python -m benchmarks.data_recipe table --out RUNS --baseline both

Each training is one process on one core for a number of CPU minutes, so that several can run side
by side; it learns the direct estimate alone, by the spectral conditioner. DEVSET is what `python -m
data_pipelines.build devset` makes. A run writes RUNS/NAME.json with every clip's scores; `score`
does so for the direct estimate of a whole model; `table` compares runs by paired differences;
`cross` says whether it is the voices or the bands that are unlike the songs.
"""

import os

os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
    + os.environ.get("XLA_FLAGS", "")
)

import tyro

from benchmarks.data_recipe.models import Cross, Score, cross, score_model
from benchmarks.data_recipe.table import Table, print_table
from benchmarks.data_recipe.train import Train, train
from diffsep_jax.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        match tyro.cli(Train | Score | Cross | Table, description=__doc__):
            case Train() as command:
                train(command)
            case Score() as command:
                score_model(command)
            case Cross() as command:
                cross(command)
            case Table() as command:
                print_table(command)
