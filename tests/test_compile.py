"""`diffsep compile`: what it compiles is what `diffsep separate` runs in another process."""

import json
import os
import subprocess
import sys

import jax
import micro
import numpy as np
import pytest
import soundfile as sf

from diffsep_jax import cli
from diffsep_jax.inference.pretrained import save_model

# Runs the commands that are given as JSON, then prints JAX's cache events and what is imported.
RUN = """
import collections, json, sys
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
from diffsep_jax import cli
for command in json.loads(sys.argv[1]):
    cli.main(command)
names = "compile_requests_use_cache", "cache_hits"
requests, hits = (events["/jax/compilation_cache/" + name] for name in names)
print(json.dumps([requests, hits, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    save_model(directory, micro.MODEL, jax.jit(micro.MODEL.init)(jax.random.key(0)))
    return str(directory)


def run(cache, *commands):
    """(lines that the commands printed, requests to the cache, hits, modules)."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    result = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    *lines, counts = result.stdout.splitlines()
    return lines, *json.loads(counts)


def test_a_later_separation_compiles_nothing(tmp_path, model_dir):
    cache, song = tmp_path / "cache", tmp_path / "song.wav"
    compile_ = ["compile", "--model", model_dir, "--batch-size", "2"]
    compile_ += ["--samplers", "direct", "ddim", "--refine"]
    lines, requests, hits, _ = run(cache, compile_)
    assert [line.split()[0] for line in lines[:-1]] == ["direct", "ddim", "ddim"]
    assert [line.split(" s, ")[-1] for line in lines[:-1]] == ["compiled"] * 3
    assert lines[-1] == f"cache: {cache}"
    assert (requests, hits) == (3, 0)
    compiled = set(cache.iterdir())

    mixture = 0.1 * np.random.default_rng(0).standard_normal((3000, 2))
    sf.write(song, mixture, 44_100)
    separate = ["separate", str(song), "--model", model_dir, "--batch-size", "2"]
    vocals = tmp_path / "song" / "vocals.wav"
    refine = ["--refine", str(vocals), "--start-sigma", "0.3", "--steps", "2"]
    commands = [
        [*separate, "--out", str(tmp_path), *options]
        for options in (
            ["--sampler", "direct"],
            ["--sampler", "ddim", "--steps", "2", "--eta", "0.1"],
            refine,
        )
    ]
    lines, requests, hits, modules = run(cache, *commands, compile_)
    assert requests == hits == 3 + 3
    assert [line.split(" s, ")[-1] for line in lines[-4:-1]] == ["was in the cache"] * 3
    assert {path for path in cache.iterdir() if path.name.endswith("-cache")} <= compiled
    # What is for training, data and TPUs would only make the start slow.
    slow = {"optax", "orbax", "grain", "tensorflow_datasets", "jax.experimental.pallas", "scipy"}
    assert not slow & set(modules)


def test_a_command_that_cannot_be(model_dir, capsys, monkeypatch):
    for options, message in [
        (["--model", model_dir, "--batch-size", "0"], "batch size 0, expected at least 1"),
        (["--model", model_dir, "--samplers"], "no sampler, expected one or more of ddim, ab2"),
        (["--model", "smal"], "unknown model 'smal'"),
        (["--model", model_dir, "--samplers", "dim"], "dim"),
    ]:
        with pytest.raises(SystemExit) as error:
            cli.main(["compile", *options])
        assert error.value.code == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr("diffsep_jax.compilation_cache.cache_folder", lambda: None)
    with pytest.raises(SystemExit):
        cli.main(["compile", "--model", model_dir])
    assert "JAX_COMPILATION_CACHE_DIR is set to nothing" in capsys.readouterr().err
