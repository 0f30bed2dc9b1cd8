"""The layers that attend."""

import jax
import jax.numpy as jnp
import numpy as np

from diffsep_jax.models.waveform.transformer import rotary


def test_rotary_scores_depend_on_the_distance_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    time = 12
    queries, keys = (rotary(jnp.tile(x, (1, time, 1, 1)))[0, :, 0] for x in (query, key))
    scores = queries @ keys.T
    for distance in range(-5, 6):
        diagonal = jnp.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, jnp.full_like(diagonal, diagonal[0]), atol=1e-5)
    assert jnp.abs(scores[0, 0] - scores[0, 5]) > 1e-3
