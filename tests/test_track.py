"""Streaming separation: no seam, no lost sample, one gain, stems that add up, bounded memory."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from halving import Chunks

from diffsep_jax.audio.read import AudioArray
from diffsep_jax.errors import UserError
from diffsep_jax.inference import chunks as chunks_module
from diffsep_jax.inference import track as track_module
from diffsep_jax.inference.chunks import DEFAULT_OVERLAP, Fifo, cut, overlap_add, plan
from diffsep_jax.inference.settings import PAPER
from diffsep_jax.inference.stream import separate_tracks
from diffsep_jax.inference.track import measure

RATE = 44_100
SEGMENT = 1000


def noise(num_frames, num_channels=2, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (num_frames, num_channels)).astype(np.float32)


def model(separate, *, target_rms=1.0, batch_size=3, rate=RATE):
    return Chunks(separate, SEGMENT, 1, rate, batch_size, target_rms)


def tone(rate, seconds, num_channels=2):
    """Of another phase in each channel."""
    time = np.arange(round(rate * seconds))[:, None] / rate
    return (0.3 * np.sin(2 * np.pi * 440 * time + np.arange(num_channels))).astype(np.float32)


def identity(mixture, starts):
    return mixture


def take_guess(mixture, starts, guess):
    return guess


def known(vocals, gain=1.0):
    """The ideal separator of a track at the model's rate: it gives the vocals at each position."""
    padded = np.concatenate([vocals * np.float32(gain), np.zeros((SEGMENT, 2), np.float32)])

    def separate(mixture, starts):
        return np.stack([padded[start : start + SEGMENT] for start in starts])

    return separate


def separate_track(
    track, model, *, guess=None, overlap=DEFAULT_OVERLAP, on_progress=None, limit_vocals=False
):
    """(vocals, accompaniment) block by block."""
    for separated in separate_tracks(
        [lambda: (track, guess)], model, PAPER, overlap=overlap, limit_vocals=limit_vocals
    ):
        yield from separated.blocks(on_progress)


def run(mixture, model, rate=RATE, excerpt=None, **kwargs):
    start, duration = excerpt or (0.0, None)
    track = measure(AudioArray(mixture, rate), start_seconds=start, duration_seconds=duration)
    blocks = list(separate_track(track, model, **kwargs))
    return tuple(np.concatenate(stem) for stem in zip(*blocks, strict=True))


LENGTHS = [2, 999, 1000, 1001, 1799, 1800, 1801, 12_345]
OVERLAPS = [0.0, 0.2, 0.333, 0.5]


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("num_frames", LENGTHS)
def test_ideal_chunks_give_the_vocals_bitwise(num_frames, overlap):
    """No seam, no shift, no sample lost: at a gain of one there is nothing to round."""
    mixture, vocals = noise(num_frames), noise(num_frames, seed=1)
    rms = measure(AudioArray(mixture, RATE)).rms
    estimate, _ = run(mixture, model(known(vocals), target_rms=rms), overlap=overlap)
    assert np.array_equal(estimate, vocals)


@pytest.mark.parametrize("target_rms", [0.1, 1.0, 7.3])
def test_one_gain_for_the_track(target_rms):
    """Loud and quiet chunks are scaled alike, and the scale is taken back."""
    mixture, vocals = noise(5000), noise(5000, seed=1)
    mixture[:2000] *= 0.01
    gain = target_rms / measure(AudioArray(mixture, RATE)).rms
    seen = []

    def separate(chunks, starts):
        seen.append(chunks)
        return known(vocals, gain)(chunks, starts)

    estimate, _ = run(mixture, model(separate, target_rms=target_rms), overlap=0.0)
    np.testing.assert_allclose(estimate, vocals, rtol=1e-6)
    level = np.sqrt(np.mean(np.square(np.concatenate(seen)[:5])))
    assert level == pytest.approx(target_rms, rel=1e-5)


def test_fade_is_linear_and_symmetric():
    layout = plan(16, 10, 0.4)
    chunks = [np.zeros((10, 2), np.float32), np.ones((10, 2), np.float32)]
    faded = np.concatenate(list(overlap_add(chunks, layout)))[:, 0]
    np.testing.assert_allclose(faded[5:11], [0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1])


@pytest.mark.parametrize(("segment", "stride"), [(131_072, 128), (32_768, 256), (512, 512)])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_chunks_start_on_the_models_frames_and_the_last_ends_with_the_track(
    segment, stride, overlap
):
    layout = plan(10**6, segment, overlap, stride)
    assert layout.hop % stride == 0
    assert overlap * segment - layout.overlap < stride
    asked = segment - int(overlap * segment / stride) * stride
    assert layout.num_chunks == 1 + math.ceil((10**6 - segment) / asked)
    beyond = (layout.num_chunks - 1) * layout.hop + segment - 10**6
    assert 0 <= beyond < layout.num_chunks * stride


def test_a_short_track_is_repeated_to_the_length_of_a_chunk():
    audio = noise(30)
    for layout in (plan(30, 100, 0.2), plan(30, 30, 0.2)):
        (chunk,) = cut(iter([audio[:20], audio[20:]]), layout)
        np.testing.assert_array_equal(chunk, np.resize(audio, (layout.segment, 2)))


def test_zeros_follow_what_ends_before_the_track():
    chunks = list(cut([np.ones((120, 2), np.float32)], plan(270, 100, 0.0, 10)))
    np.testing.assert_array_equal(chunks[0], 1)
    np.testing.assert_array_equal(chunks[1][:, 0], np.arange(100) < 30)  # begins at 90
    np.testing.assert_array_equal(chunks[2], 0)


def test_a_track_is_cut_on_the_models_frames():
    seen = []

    def separate(chunks, starts):
        seen.extend(starts[chunks.any(axis=(1, 2))])
        return chunks

    run(noise(3000), dataclasses.replace(model(separate), stride=125), overlap=0.2)
    assert seen == [0, 750, 1500, 2250]


@pytest.mark.parametrize("overlap", [-0.1, 0.51, float("nan")])
def test_overlap_out_of_range(overlap):
    with pytest.raises(UserError, match="expected a share of a chunk from 0 to"):
        plan(1000, 100, overlap)


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000, 96_000, 44_099])
def test_other_rates_keep_length_and_sound(rate, num_channels):
    """A separator that returns its input gives the mixture back, but for the resampler's edges."""
    mixture = tone(rate, 20_011 / rate, num_channels)
    vocals, accompaniment = run(mixture, model(identity), rate)
    assert vocals.shape == accompaniment.shape == mixture.shape
    inner = slice(500, -500)
    np.testing.assert_allclose(vocals[inner], mixture[inner], atol=2e-6)


@pytest.mark.parametrize("rate", [1_000, 8_000, 22_050, 44_099, 44_101, 48_000, 192_000])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 44, 4_567])
def test_any_length_at_any_rate(rate, num_frames):
    vocals, _ = run(noise(num_frames), model(identity), rate)
    assert vocals.shape == (num_frames, 2)
    assert np.isfinite(vocals).all()


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_stems_add_up_to_one_rounding(rate, num_channels):
    """Vocals that have nothing to do with the mixture, and louder: the sum is still exact."""
    mixture = noise(9_999, num_channels)
    separate = known(noise(20_000, seed=2), gain=30.0)
    vocals, accompaniment = run(mixture, model(separate), rate)
    error = np.abs(vocals.astype(np.float64) + accompaniment - mixture)
    assert (error <= np.spacing(np.abs(accompaniment)) / 2).all()
    assert vocals.std() > mixture.std()


def test_mono_is_two_equal_channels_and_their_mean():
    mixture = noise(3000, 1)
    stereo = noise(3000, 2, seed=1)
    rms = measure(AudioArray(mixture, RATE)).rms

    def separate(chunks, starts):
        assert np.array_equal(chunks[..., 0], chunks[..., 1])
        return known(stereo)(chunks, starts)

    vocals, _ = run(mixture, model(separate, target_rms=rms))
    assert np.array_equal(vocals, stereo.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("rate", [RATE, 48_000])
@pytest.mark.parametrize("level", [0.0, 1e-12])
def test_silence_gives_silence(rate, level):
    """Whatever the network makes of it; and it is not even asked."""

    def separate(chunks, starts):
        raise AssertionError("asked to separate silence")

    mixture = noise(5000) * np.float32(level)
    vocals, accompaniment = run(mixture, model(separate), rate)
    assert not vocals.any()
    assert np.array_equal(accompaniment, mixture)


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_dc_stays_in_the_accompaniment(rate):
    """Neither the level nor the model knows of it."""
    dc = np.array([0.5, -0.25], np.float32)
    without = tone(rate, 0.2)
    assert measure(AudioArray(without, rate)).rms == pytest.approx(
        measure(AudioArray(without + dc, rate)).rms, rel=1e-4
    )
    inner = slice(500, -500)
    vocals, accompaniment = run(without + dc, model(identity), rate)
    np.testing.assert_allclose(vocals[inner], without[inner], atol=1e-3)
    np.testing.assert_allclose(accompaniment[inner].mean(axis=0), dc, atol=1e-3)


@pytest.mark.parametrize("num_frames", [1, 5000])
def test_a_constant_is_silence(num_frames):
    mixture = np.full((num_frames, 2), 0.25, np.float32)
    vocals, accompaniment = run(mixture, model(known(noise(num_frames))))
    assert not vocals.any()
    assert np.array_equal(accompaniment, mixture)


def test_output_that_is_not_finite_is_refused():
    def separate(chunks, starts):
        return np.where(starts[:, None, None] == 2400, np.float32(np.nan), chunks)

    with pytest.raises(UserError, match=r"waveform: the stems are not finite near 0\.1 s"):
        run(noise(5000), model(separate))


@pytest.mark.parametrize("num_channels", [1, 2])
def test_audio_whose_stems_would_not_be_finite_is_refused(num_channels):
    """Finite samples near the end of float32: vocals, accompaniment or a mean would be infinite."""
    mixture = np.sign(noise(3000, num_channels)) * np.float32(3e38)

    def inverted(chunks, starts):
        return -chunks

    def louder(chunks, starts):
        return 2 * chunks

    for separate in (inverted, louder):
        with pytest.raises(
            UserError, match=r"waveform: the stems are not finite near 0\.0 s.*full scale of 1"
        ):
            run(mixture, model(separate))


def test_positions_beyond_int32_are_refused():
    short = measure(AudioArray(noise(10), RATE))
    track = dataclasses.replace(short, num_frames=2**31)
    with pytest.raises(UserError, match=r"13\.5 hours; expected fewer than 2\^31 samples"):
        next(separate_track(track, model(identity)))


def test_a_source_that_shrinks_is_refused():
    track = dataclasses.replace(measure(AudioArray(noise(1000), RATE)), num_frames=1001, stop=1001)
    with pytest.raises(UserError, match="became shorter"):
        list(separate_track(track, model(identity)))


class LazyNoise:
    """Ten minutes of noise that are never in memory at once."""

    name = "lazy"
    sample_rate = 12_000
    num_channels = 2

    def blocks(self):
        block = noise(12_000)
        yield from itertools.repeat(block, 600)


def test_memory_does_not_grow_with_the_track(monkeypatch):
    most = 0

    class WatchedFifo(Fifo):
        def push(self, block):
            nonlocal most
            super().push(block)
            most = max(most, self.length)

    for module in (chunks_module, track_module):
        monkeypatch.setattr(module, "Fifo", WatchedFifo)
    long = Chunks(identity, 4096, 128, 11_025, 4)
    done = 0
    for vocals, _ in separate_track(measure(LazyNoise()), long):
        done += len(vocals)
    assert done == 600 * 12_000
    # A batch of chunks, a block of the reader, and what the resamplers hold.
    assert most < 5 * 4096 * 12_000 / 11_025 + 2 * 12_000


@pytest.mark.parametrize("guess_rate", [22_050, RATE, 48_000])
def test_a_guess_is_scaled_and_cut_as_the_mixture(guess_rate):
    """A model that returns its guess gives it back, whatever the two rates."""
    rate, seconds = 48_000, 0.3
    guess = measure(AudioArray(tone(guess_rate, seconds), guess_rate, "guess"))
    vocals, _ = run(noise(round(rate * seconds)), model(take_guess), rate, guess=guess)
    inner = slice(500, -500)
    np.testing.assert_allclose(vocals[inner], tone(rate, seconds)[inner], atol=2e-6)


@pytest.mark.parametrize(("num_frames", "fits"), [(998, False), (999, True), (1001, True)])
def test_a_guess_has_the_mixtures_length(num_frames, fits):
    guess = measure(AudioArray(noise(num_frames), RATE, "guess"))
    if fits:
        vocals, _ = run(noise(1000), model(take_guess), guess=guess)
        assert vocals.shape == (1000, 2)
    else:
        with pytest.raises(
            UserError, match="guess: its length is 998 samples at 44100 Hz; expected 1000"
        ):
            run(noise(1000), model(take_guess), guess=guess)


@pytest.mark.parametrize("limit_vocals", [False, True])
@pytest.mark.parametrize("rate", [22_050, RATE, 48_000])
@pytest.mark.parametrize(
    ("start", "duration"),
    [
        (0.0, None),
        (0.0, 0.01),
        (0.1, None),
        (0.1, 0.05),
        (0.25, 9.0),
        (0.018, 0.0181),
        (3 * 800 / RATE, 800 / RATE),  # one hop of the chunks
    ],
)
def test_an_excerpt_is_what_it_is_in_the_whole(rate, start, duration, limit_vocals):
    """To the bit, though only the chunks that have a part in it go to the model."""
    mixture = noise(round(0.3 * rate))
    seen = []

    def separate(chunks, starts):
        seen.extend(starts[chunks.any(axis=(1, 2))])
        return 3 * chunks * np.cos(starts, dtype=np.float32)[:, None, None]

    whole = run(mixture, model(separate), rate, limit_vocals=limit_vocals)
    num_chunks = len(seen)
    seen.clear()
    excerpt = run(
        mixture, model(separate), rate, excerpt=(start, duration), limit_vocals=limit_vocals
    )
    first = round(start * rate)
    last = len(mixture) if duration is None else first + round(duration * rate)
    for part, stem in zip(excerpt, whole, strict=True):
        assert np.array_equal(part, stem[first:last])
    # The resampler's filter reaches over all of this short track.
    if rate == RATE and (start, duration) != (0.0, None):
        assert len(seen) < num_chunks


@pytest.mark.parametrize("guess_rate", [22_050, RATE])
def test_a_guess_may_be_as_long_as_the_excerpt(guess_rate):
    guess = measure(AudioArray(tone(guess_rate, 0.1), guess_rate, "guess"))
    vocals, _ = run(noise(RATE), model(take_guess), guess=guess, excerpt=(0.5, 0.1))
    inner = slice(500, -500)
    np.testing.assert_allclose(vocals[inner], tone(RATE, 0.1)[inner], atol=2e-6)


def test_an_excerpt_after_the_end_is_refused():
    with pytest.raises(UserError, match=r"start is 2 s; expected less than its length, 1\.000 s"):
        measure(AudioArray(noise(RATE), RATE), start_seconds=2.0)
