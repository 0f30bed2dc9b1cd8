"""The families of networks: to add one, add an entry to `FAMILIES`.

A family with losses of its own also extends `training.step.example_losses`; its input and output
layers need names that `training.optimizer` knows.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from diffsep_jax.errors import UserError
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.models.spectral.transform import FRAME
from diffsep_jax.models.waveform.conditioner import Conditioner
from diffsep_jax.models.waveform.generator import Generator

AnyGenerator = Generator | SpectralGenerator
AnyConditioner = Conditioner | SpectralConditioner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A generator and a conditioner that work together.

    Attributes:
        generator: (x, sigma, mixture, conditioning) -> velocity, or a correction to the one that
            the direct estimate implies.
        conditioner: mixture -> Conditioning.
        interface: name of the property that both networks must have in common.
        interface_of: its value for either network.
        min_overlap: samples that chunks must overlap by, so that the edges of a chunk, where the
            networks see no neighbours, are cross-faded.
        preconditioned: the generator does its own preconditioning, for audio of unit RMS:
            `target_rms` must be 1 and `estimate_error` None.
    """

    generator: type[AnyGenerator]
    conditioner: type[AnyConditioner]
    interface: str
    interface_of: Callable[[Any], Any]
    min_overlap: int = 0
    preconditioned: bool = False


def injection_rates(network: Generator | Conditioner) -> list[int]:
    """Samples per frame of each injection level, shallowest first."""
    strides = [
        network.patch_size * math.prod(network.factors[:level])
        for level in range(len(network.factors))
    ]
    return strides[len(strides) - network.injection_levels :]


FAMILIES = {
    "waveform": Family(
        generator=Generator,
        conditioner=Conditioner,
        interface="injection levels",
        interface_of=injection_rates,
    ),
    "spectral": Family(
        generator=SpectralGenerator,
        conditioner=SpectralConditioner,
        interface="bands",
        interface_of=lambda network: network.bands,
        min_overlap=2 * FRAME,
        preconditioned=True,
    ),
}


def family_name(network: AnyGenerator | AnyConditioner) -> str:
    """The family of a network. Raises UserError for a class that belongs to none."""
    for name, family in FAMILIES.items():
        if isinstance(network, (family.generator, family.conditioner)):
            return name
    raise UserError(
        f"the network is a {type(network).__name__}; expected a class of the families"
        f" {', '.join(FAMILIES)}"
    )
