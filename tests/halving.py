"""A model that halves its input in place of a trained one; songs and commands for tests with it."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile as sf
from jax import Array

from diffsep_jax import cli
from diffsep_jax.errors import UserError
from diffsep_jax.inference import separator as separator_module
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.models.waveform.conditioner import Conditioner
from diffsep_jax.models.waveform.generator import Generator

RATE = 44_100

NETWORK = {
    "widths": (16, 16, 16),
    "factors": (4, 4),
    "patch_size": 8,
    "attention_levels": 1,
    "attention_width": 16,
    "attention_heads": 2,
    "injection_levels": 1,
}

TINY = SeparationModel(
    segment=4096,
    generator=Generator(blocks=(1, 1), fourier_features=16, embedding_width=16, **NETWORK),
    conditioner=Conditioner(
        transformer_layers=1, transformer_width=16, transformer_heads=2, **NETWORK
    ),
)


class Halving:
    """In place of the compiled chunk program: vocals = mixture / 2; remembers its settings."""

    segment = 4096
    stride = 128
    sample_rate = RATE
    target_rms = TINY.target_rms
    min_overlap = 0
    settings: SamplerSettings
    guess: np.ndarray | None
    compiled: tuple[SamplerSettings, bool]

    def __init__(self, model: object, params: object, *, batch_size: int) -> None:
        self.batch_size = batch_size

    def __call__(
        self,
        mixture: np.ndarray,
        start: np.ndarray,
        settings: SamplerSettings,
        guess: np.ndarray | None = None,
    ) -> Array:
        Halving.settings = settings
        Halving.guess = guess
        return jnp.asarray(mixture / 2)

    def compile(self, settings: SamplerSettings, *, refines: bool) -> None:
        Halving.compiled = settings, refines


@dataclasses.dataclass(frozen=True)
class Chunks:
    """In place of the compiled chunk program: any function of (mixture, starts[, guess])."""

    separate: Callable[..., np.ndarray]
    segment: int
    stride: int = 1
    sample_rate: int = RATE
    batch_size: int = 3
    target_rms: float = 1.0

    def __call__(
        self,
        mixture: np.ndarray,
        start: np.ndarray,
        settings: SamplerSettings,
        guess: np.ndarray | None = None,
    ) -> Array:
        return jnp.asarray(self.separate(mixture, start, *(() if guess is None else (guess,))))


def load_halving(name_or_dir: str) -> tuple[SeparationModel, Params]:
    if name_or_dir != "small":
        raise UserError(f"unknown model {name_or_dir!r}; known models: small")
    return TINY, {}


@contextlib.contextmanager
def in_place_of_a_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every model is the halving one, called "small"; a command's signal handlers go again."""
    monkeypatch.setattr(separator_module, "ChunkSeparator", Halving)
    monkeypatch.setattr(separator_module, "load_model", load_halving)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():  # the command's own are for its process
        signal.signal(number, handler)


def noise(*shape: int) -> np.ndarray:
    return np.float32(0.1) * np.random.default_rng(0).standard_normal(shape, np.float32)


def song(path: Path, audio: np.ndarray | None = None, rate: int = RATE) -> Path:
    sf.write(path, noise(20_011, 2) if audio is None else audio, rate)
    return path


def run(*args: object) -> None:
    cli.main(["separate", *map(str, args)])


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that must end with status 2 and no traceback; returns its message."""
    with pytest.raises(SystemExit) as error:
        run(*args)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message
