"""What a conditioner hands to its generator, in both families of networks."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Conditioning(NamedTuple):
    """The conditioner's view of a chunk.

    Attributes:
        embeddings: waveform family: decoder outputs `[batch, frame, width]`, one for each of the
            generator's injection levels, shallowest first; spectral family: one array of tokens
            `[batch, frame, band, width]`.
        estimate: the direct estimate of the vocals `[batch, time, 2]` (the L_rec head).
        latent_estimate: the bottleneck's estimate `[batch, time, 2]` (the L_lat head), in training.
        log_scale: log of the deviation that the direct estimate's error has in each coefficient of
            the MDCT, of the spectral family.
    """

    embeddings: tuple[Array, ...]
    estimate: Float[Array, "batch time 2"]
    latent_estimate: Float[Array, "batch time 2"] | None = None
    log_scale: Float[Array, "batch frame 2 coefficient"] | None = None
