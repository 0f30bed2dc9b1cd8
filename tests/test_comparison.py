"""Several estimates of the same songs in one table, as the demo shows them."""

import numpy as np
import pytest
import scored

from diffsep_jax import metrics
from diffsep_jax.evaluation.comparison import Row, Scored, comparison_table, score_estimates
from diffsep_jax.inference.separator import Separation, Separator
from diffsep_jax.inference.settings import SamplerSettings


class Adding(Separator):
    """Vocals = mixture + seed."""

    def __init__(self):
        pass

    def separate(self, mixture, sample_rate, *, settings):
        vocals = mixture + np.float32(settings.seed)
        return Separation(vocals, mixture - vocals)


def row_of(songs, estimate, values, seconds=1.0):
    vocals = np.zeros((1, 2), np.float32)
    return Row(
        songs,
        estimate,
        [
            Scored(
                vocals,
                scored.score(value, ("utterance_sdr",), seconds=seconds),
                scored.score(None if value is None else 0.0, ("utterance_sdr",)),
                audio_seconds=1.0,
            )
            for value in values
        ],
    )


def test_an_estimate_is_the_mean_of_its_draws():
    song = scored.song()
    estimates = {
        "one": [SamplerSettings(seed=0)],
        "mean": [SamplerSettings(seed=seed) for seed in (0, 1, 2)],
    }
    found = score_estimates(Adding(), song, estimates)
    assert np.array_equal(found["one"].vocals, song.mixture)
    assert found["one"].sdr == found["one"].mixture.metrics["utterance_sdr"]
    assert found["one"].sdr == pytest.approx(0, abs=0.1)  # both stems are equally loud
    np.testing.assert_allclose(found["mean"].vocals, song.mixture + 1, atol=1e-6)
    assert found["mean"].sdr == metrics.sdr(song.vocals, found["mean"].vocals)
    assert found["mean"].audio_seconds == 1


def test_each_group_of_songs_is_named_once():
    rows = [
        row_of("songs", "direct", [20.0, 0.0, 6.0, None]),
        row_of("songs", "diffusion", [20.0], seconds=2.0),
        row_of("rests", "diffusion", [None]),
    ]
    direct, diffusion, rests = scored.cells(comparison_table(rows))
    assert direct == ["songs", "direct", "0.00", "6.00", "+6.00", "4.0", "1.00"]
    assert diffusion == ["", "diffusion", "0.00", "20.00", "+20.00", "2.0", "2.00"]
    assert rests == ["rests", "diffusion", "silent", "silent", "", "1.0", "1.00"]


@pytest.mark.parametrize("name", ["Song [live]", "Song [/b]", "[bold]"])
def test_brackets_in_a_name_are_no_markup(name):
    assert scored.cells(comparison_table([row_of(name, f"{name} T=1", [1.0])]))[0][:2] == [
        name,
        f"{name} T=1",
    ]
