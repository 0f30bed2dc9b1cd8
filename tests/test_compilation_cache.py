"""A second process finds the programs that the first one compiled."""

import json
import os
import subprocess
import sys

import micro
import numpy as np
import pytest
import soundfile as sf

from diffsep_jax.inference.pretrained import save_model

# Separates a song in two ways, then prints JAX's cache events and what was imported.
SEPARATE = """
import collections, json, sys
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
from diffsep_jax import cli
for options in (["--sampler", "direct"], ["--steps", sys.argv.pop()]):
    cli.main(["separate", *sys.argv[1:], *options, "--progress", "quiet"])
names = "compile_requests_use_cache", "cache_hits"
counts = [events["/jax/compilation_cache/" + name] for name in names]
print(json.dumps([*counts, list(sys.modules)]))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    save_model(tmp_path / "model", micro.MODEL, micro.random_params(micro.MODEL))
    mixture = 0.1 * np.random.default_rng(0).standard_normal((3000, 2))
    sf.write(tmp_path / "song.wav", mixture, 44_100)
    arguments = [tmp_path / "song.wav", "--model", tmp_path / "model", "--out", tmp_path / "out"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    counts = []
    for steps in ("2", "3"):
        process = subprocess.run(
            [sys.executable, "-c", SEPARATE, *map(str, arguments), steps],
            env=environment,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        *count, modules = json.loads(process.stdout)
        counts.append(count)
    assert counts == [[2, 0], [2, 2]]
    # What is for training, data and TPUs would only make the start slow. (SciPy is imported by JAX
    # itself, when it calls a kept trace.)
    slow = {"optax", "orbax", "grain", "tensorflow_datasets", "jax.experimental.pallas"}
    assert not slow & set(modules)
