"""What to know about a GPU before training on it: a JSON file, rewritten after each check.

    python -m launch.gpu_check --out OUT

On a machine without a GPU the same checks run at small sizes, as a rehearsal. `gpu_check.sh` runs
this and then trains. A check that fails has its error in place of its figures.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import configs
from diffsep_jax.errors import one_line_errors
from diffsep_jax.files import make_folder, write_bytes
from diffsep_jax.inference.engine import CHANNELS, ChunkSeparator
from diffsep_jax.inference.pretrained import load_model
from diffsep_jax.inference.settings import PAPER, PRESETS, Preset
from diffsep_jax.models.attention import attention
from diffsep_jax.models.compute import Remat
from diffsep_jax.models.convolution import Convolution, convolve
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.noise import KEY_TYPE
from diffsep_jax.runtime import Dtype
from diffsep_jax.training.sharding import MeshConfig, batch_sharding, make_mesh
from diffsep_jax.training.step import step_arguments, train_program

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the checks are.

    Attributes:
        paper: configuration of the paper's network.
        spectral: configuration of the spectral family that is to be trained.
        samples: positions of a convolution.
        positions: of attention.
        batch_sizes: of a training step.
        remats: of a training step.
        steps: of the sampler.
        presets: of the shipped model.
        dtypes: to compute in.
    """

    paper: str = "diff_dmx_rt_musdb"
    spectral: str = "large"
    samples: int = 65_536
    positions: Sequence[int] = (1_024, 16_384)
    batch_sizes: Sequence[int] = (4, 8, 16, 32)
    remats: Sequence[Remat] = ("none", "full")
    steps: int = 50
    presets: Sequence[Preset] = ("fast", "balanced")
    dtypes: Sequence[Dtype] = ("bfloat16", "float32")


REHEARSAL = Sizes(
    paper="tiny",
    spectral="tiny_spectral",
    samples=256,
    positions=(64,),
    batch_sizes=(2,),
    remats=("none",),
    steps=2,
    presets=("fast",),
    dtypes=("float32",),
)


def convolutions(sizes: Sizes) -> Figures:
    """Forward and backward of a residual block's convolution; error against float32."""
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((8, sizes.samples, 128), np.float32))
    kernel = jnp.asarray(draw((3, 128, 128), np.float32) / 20)
    forms: tuple[Convolution, ...] = ("native", "taps")

    def loss(form: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(convolve(x, kernel, form).astype(jnp.float32)))

    exact = convolve(x, kernel, "taps")
    found = {}
    for dtype in sizes.dtypes:
        for form in forms:
            given = x.astype(dtype), kernel.astype(dtype)
            gradients = jax.jit(jax.grad(functools.partial(loss, form), argnums=(0, 1)))
            error = jnp.abs(convolve(*given, form).astype(jnp.float32) - exact).max()
            found[f"{dtype}, {form}"] = {
                "seconds": seconds(gradients, *given),
                "largest_error": float(error),
            }
    return found


def attention_kernels(sizes: Sizes) -> Figures:
    """Forward and backward of self-attention with 8 heads of 32 in bfloat16, by backend."""
    found = {}
    for positions in sizes.positions:
        x = jnp.asarray(np.random.default_rng(0).standard_normal((2, positions, 8, 32)), "bfloat16")

        def loss(backend: Any, x: jax.Array) -> jax.Array:
            return jnp.mean(attention(x, x, x, backend).astype(jnp.float32))

        for backend in ("cudnn", "rows"):
            gradient = jax.jit(jax.grad(functools.partial(loss, backend)))
            found[f"{backend}, {positions}"] = caught(seconds, gradient, x)
    return found


def generator_calls(sizes: Sizes) -> Figures:
    """A call of the velocity, batch of one, by configuration and type."""
    found = {}
    for name in (sizes.paper, sizes.spectral):
        for dtype in sizes.dtypes:
            model = of_type(configs.get(name).model, dtype)
            params = jax.jit(model.init)(jax.random.key(0))
            chunk = jnp.zeros((1, model.segment, CHANNELS))
            conditioning = jax.jit(model.condition)(params, chunk)
            call = jax.jit(model.velocity)
            found[f"{name}, {dtype}"] = seconds(
                call, params, chunk, jnp.ones(1), chunk, conditioning
            )
    return found


def training_steps(sizes: Sizes) -> Figures:
    """Stage 1 of the spectral configuration: time and memory by batch size, and by remat."""
    experiment = configs.get(sizes.spectral)
    config = dataclasses.replace(experiment.train, freeze="generator")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    key = jax.random.key(0, impl=KEY_TYPE)
    found: Figures = {}
    for remat in sizes.remats:
        compute = dataclasses.replace(experiment.model.compute, remat=remat)
        model = dataclasses.replace(experiment.model, compute=compute)
        program = train_program(model, config, mesh)
        for size in sizes.batch_sizes:

            def measure(
                program: Any = program, model: SeparationModel = model, size: int = size
            ) -> Figures:
                arguments = step_arguments(program, model, mesh, size)
                start = time.perf_counter()
                step = program.step.lower(*arguments).compile()
                compiled_in = time.perf_counter() - start
                draw = np.random.default_rng(0).standard_normal
                batch = {name: draw(spec.shape, np.float32) for name, spec in arguments[1].items()}
                batch = jax.device_put(batch, batch_sharding(mesh))
                state = program.init(key)
                times = []
                for _ in range(5):
                    start = time.perf_counter()
                    state, metrics = step(state, batch, key)
                    float(metrics["loss"])
                    times.append(time.perf_counter() - start)
                memory = step.memory_analysis()
                return {
                    "seconds": statistics.median(times[1:]),
                    "compile_seconds": compiled_in,
                    "temporary_bytes": memory.temp_size_in_bytes,
                    "argument_bytes": memory.argument_size_in_bytes,
                }

            found[f"batch {size}, remat {remat}"] = caught(measure)
    return found


def determinism(sizes: Sizes) -> Figures:
    """Whether two steps from the same state give the same bits. XLA_FLAGS may ask for it."""
    experiment = configs.get(sizes.spectral)
    config = dataclasses.replace(experiment.train, freeze="generator")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = train_program(experiment.model, config, mesh)
    key = jax.random.key(0, impl=KEY_TYPE)
    shape = (sizes.batch_sizes[0], experiment.model.segment, CHANNELS)
    draw = np.random.default_rng(0).standard_normal
    batch = {name: draw(shape, np.float32) for name in ("mixture", "vocals")}

    def run() -> list[bytes]:
        state = program.init(key)
        for _ in range(2):
            state, _ = program.step(state, jax.device_put(batch, batch_sharding(mesh)), key)
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.params)]

    return {"equal_bits": run() == run()}


def against_cpu(sizes: Sizes) -> Figures:
    """The shipped model here against float32 on the CPU: signal to difference, in dB."""
    model, params = load_model("small")
    noise = np.random.default_rng(0).standard_normal((1, model.segment, CHANNELS), np.float32)
    start = np.zeros(1, np.int32)
    found = {}
    for preset in sizes.presets:
        settings = PRESETS[preset]

        def vocals(device: jax.Device, dtype: Dtype, settings: Any = settings) -> np.ndarray:
            separator = ChunkSeparator(
                of_type(model, dtype), params, batch_size=1, devices=[device]
            )
            return np.asarray(separator(noise, start, settings), np.float64)

        expected = vocals(jax.devices("cpu")[0], "float32")
        for dtype in sizes.dtypes:
            difference = vocals(jax.devices()[0], dtype) - expected
            power = np.square(expected).sum() / max(np.square(difference).sum(), 1e-30)
            found[f"{preset}, {dtype}"] = float(10 * np.log10(power))
    return found


def real_time_factors(sizes: Sizes) -> Figures:
    """The paper's network and sampler, by batch size: seconds of work per second of audio."""
    settings = dataclasses.replace(PAPER, steps=sizes.steps)
    found = {}
    for batch_size in (1, 8):
        model = of_type(configs.get(sizes.paper).model, "bfloat16")
        params = jax.jit(model.init)(jax.random.key(0))
        separator = ChunkSeparator(model, params, batch_size=batch_size, devices=jax.devices()[:1])
        mixture = np.zeros((batch_size, model.segment, CHANNELS), np.float32)
        taken = seconds(separator, mixture, np.zeros(batch_size, np.int32), settings)
        found[f"T={sizes.steps}, batch {batch_size}"] = (
            taken * model.sample_rate / (batch_size * model.segment)
        )
    return found


CHECKS: tuple[Callable[[Sizes], Figures], ...] = (
    convolutions,
    attention_kernels,
    generator_calls,
    training_steps,
    determinism,
    against_cpu,
    real_time_factors,
)
"""In order: what a training depends on first."""


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Median of five calls after one that compiles."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def caught(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, or its error."""
    try:
        return function(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def of_type(model: SeparationModel, dtype: Dtype) -> SeparationModel:
    """The model computed in another type."""
    return dataclasses.replace(model, compute=dataclasses.replace(model.compute, dtype=dtype))


def main(out: Path) -> None:
    """Runs every check.

    Args:
        out: folder for checks.json.
    """
    make_folder(out)
    device = jax.devices()[0]
    sizes = REHEARSAL if device.platform == "cpu" else Sizes()
    found: Figures = {"device": device.device_kind, "jax": jax.__version__}
    for check in CHECKS:
        start = time.perf_counter()
        found[check.__name__] = caught(check, sizes)
        print(f"{check.__name__}: {time.perf_counter() - start:.1f} s", flush=True)
        if stats := device.memory_stats():
            found["peak_bytes"] = stats.get("peak_bytes_in_use")
        write_bytes(out / "checks.json", f"{json.dumps(found, indent=2)}\n".encode())


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main, description=__doc__)
