"""The whole suite runs strictly: eight CPU devices, no silent promotion, shapes checked."""

import gc
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the tests' time, and a quarter less without LLVM's optimisations.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import absl.flags
import jax
import pytest
from jaxtyping import install_import_hook

# Tracing makes many small objects that stay: to look through them often takes a tenth of the time.
gc.set_threshold(100_000, 20, 20)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests and the processes that they start compile the same small programs again and again; pytest's
# own worker processes find the folder in the environment.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="diffsep-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1"
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)

# Grain's worker processes read absl flags, which pytest never parses.
if not absl.flags.FLAGS.is_parsed():
    absl.flags.FLAGS.mark_as_parsed()

# Annotated shapes are checked in tests, at no cost to users.
install_import_hook(["diffsep_jax", "data_pipelines"], "beartype.beartype")


@pytest.fixture
def toy(monkeypatch):
    """Toy networks in place of the waveform family's; see tests/toy.py."""
    from toy import use_toy_networks

    use_toy_networks(monkeypatch)


@pytest.fixture
def undisturbed(toy, tmp_path_factory):
    """(work folder, final state) of a run of toy networks left alone, validated at its end."""
    import runs

    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, runs.run(workdir, runs.VALIDATED, validation=runs.VALIDATION)


@pytest.fixture
def halving(monkeypatch):
    """A model that halves its input in place of every other; see tests/halving.py."""
    from halving import in_place_of_a_model

    with in_place_of_a_model(monkeypatch):
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, folder) of a process with the page of `diffsep app`; see tests/app_server.py."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, pathlib.Path(__file__).with_name("app_server.py"), folder]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process.stdout.readline().strip(), folder
        process.stdin.close()
