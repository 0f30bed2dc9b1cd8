"""Shape names that several modules share."""

from collections.abc import Callable

from jax import Array
from jaxtyping import Float, Int

# Audio: samples at the model's rate along `time`, one column per channel.
Waveform = Float[Array, "batch time channel"]

# A number, concrete or traced.
Scalar = float | int | Float[Array, ""]
Count = int | Int[Array, ""]

# sigma in [0, 1]: one for all examples, or one per example.
NoiseLevel = Scalar | Float[Array, "batch"]

# The trained network with its conditioning bound: (x_sigma, sigma) -> velocity.
VelocityFn = Callable[[Waveform, Float[Array, ""]], Waveform]
