"""Augmentations: whatever their settings, a pair of stems stays a pair of its songs and places."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ramps import Ramps, example
from tones import RATE, pitch, tone

import configs as configs_by_name
from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION, AugmentConfig, Changes, augment, draw_changes
from data_pipelines.examples import ExamplePlan
from data_pipelines.mastering import MARGIN
from data_pipelines.source import Segment
from diffsep_jax.errors import UserError

probability = st.sampled_from([0.0, 0.3, 1.0])


def ranges(limit: float) -> st.SearchStrategy[tuple[float, float]]:
    pair = st.tuples(st.floats(-limit, limit), st.floats(-limit, limit))
    return pair.map(lambda ends: (min(ends), max(ends)))


paper = st.builds(
    AugmentConfig,
    polarity_probability=probability,
    channel_flip_probability=probability,
    remix_probability=probability,
    pitch_probability=probability,
    pitch_semitones=ranges(12.0),
    gain_db=ranges(60.0),
)
configs = st.builds(
    dataclasses.replace,
    paper,
    silent_share=probability,
    layer_probability=probability,
    layer_db=ranges(60.0),
    speed_percent=ranges(50.0),
    remix_speed_percent=st.sampled_from([(0.0, 0.0), (0.0, 60.0), (20.0, 30.0)]),
    eq_db=ranges(30.0),
    bus_probability=probability,
    limiter_probability=probability,
    low_pass_probability=probability,
    fade_probability=probability,
)
EVERYTHING = AugmentConfig(
    polarity_probability=0.5,
    channel_flip_probability=0.5,
    remix_probability=1.0,
    silent_share=0.2,
    layer_probability=1.0,
    speed_percent=(-6.0, 6.0),
    remix_speed_percent=(-30.0, 40.0),
    pitch_probability=0.0,
    eq_db=(-3.0, 3.0),
    bus_probability=1.0,
    gain_db=(-6.0, 4.0),
    limiter_probability=1.0,
    low_pass_probability=1.0,
    fade_probability=1.0,
)
NEW_FIELDS = (
    "silent_share",
    "layer_probability",
    "speed_percent",
    "remix_speed_percent",
    "eq_db",
    "bus_probability",
    "limiter_probability",
    "low_pass_probability",
    "fade_probability",
)


def only(*fields: str) -> AugmentConfig:
    """No augmentation but these fields of `EVERYTHING`."""
    return dataclasses.replace(NO_AUGMENTATION, **{f: getattr(EVERYTHING, f) for f in fields})


def without(field: str) -> AugmentConfig:
    return dataclasses.replace(EVERYTHING, **{field: getattr(NO_AUGMENTATION, field)})


def examples(augmentation: AugmentConfig, segment: int, index: int, seed: int = 0):
    # Either may say how often vocals are silent.
    kept = 0.0 if augmentation.silent_share else 0.05
    config = pipeline.PipelineConfig(
        batch_size=1, seed=seed, augment=augmentation, silent_kept=kept
    )
    return example(Ramps(), config, segment, index)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(configs, st.sampled_from([1, 1000, 8192]), st.integers(0, 2**40), st.integers(0, 3))
def test_whatever_the_settings_an_example_is_finite_and_a_function_of_its_number(
    augmentation: AugmentConfig, segment: int, index: int, seed: int
):
    drawn = examples(augmentation, segment, index, seed)
    for value in drawn.values():
        assert value.shape == (segment, 2)
        assert value.dtype == np.float32
        assert value.flags.c_contiguous
        assert np.isfinite(value).all()
    np.testing.assert_equal(examples(augmentation, segment, index, seed), drawn)


@pytest.mark.parametrize("field", [*NEW_FIELDS, None])
def test_the_mixture_is_the_float32_sum_of_the_stems_to_the_bit(field, monkeypatch):
    """Of the middle of the stems that come out of `augment`, whatever was done to them."""
    made = []

    def watched(*arguments):
        made.append(augment(*arguments))
        return made[-1]

    monkeypatch.setattr("data_pipelines.examples.augment", watched)
    augmentation = only(field) if field else EVERYTHING
    for index in range(10):
        drawn = examples(augmentation, 8192, index)
        margin = (len(made[-1].vocals) - 8192) // 2
        vocals, accompaniment = (stem[margin : margin + 8192] for stem in made[-1])
        np.testing.assert_array_equal(drawn["vocals"], vocals)
        np.testing.assert_array_equal(drawn["mixture"], vocals + accompaniment)
        assert drawn["mixture"].dtype == vocals.dtype == accompaniment.dtype == np.float32


@settings(max_examples=40, deadline=None, derandomize=True)
@given(paper, st.integers(0, 2**40))
def test_whatever_the_settings_both_stems_are_of_one_song_and_place_or_the_remix_of_two(
    augmentation: AugmentConfig, index: int
):
    """Up to signs, channels and gains in range: all but the pitch shift, which has its own test.

    The plain example of the same number tells song and place; the remix takes another band, and
    the same one whatever else is done.
    """
    augmentation = dataclasses.replace(augmentation, pitch_probability=0.0)
    changed = examples(augmentation, 1000, index)
    low, high = (10 ** (db / 20) for db in augmentation.gain_db)

    def is_changed(stem: np.ndarray, original: np.ndarray, rounding: float) -> bool:
        for channels in (original, original[:, ::-1]):
            gain = np.vdot(stem, channels) / np.vdot(channels, channels)
            within = low * 0.999 <= abs(gain) <= high * 1.001
            if within and np.abs(stem - gain * channels).max() <= rounding:
                return True
        return False

    bands = {}
    for remix in (0.0, 1.0):
        plain = examples(dataclasses.replace(NO_AUGMENTATION, remix_probability=remix), 1000, index)
        bands[remix] = plain["mixture"] - plain["vocals"]
    certain = bands.get(augmentation.remix_probability)
    allowed = bands.values() if certain is None else [certain]
    rounding = 1e-6 * float(np.abs(changed["mixture"]).max() + np.abs(changed["vocals"]).max())
    band = changed["mixture"] - changed["vocals"]
    assert any(is_changed(band, original, rounding) for original in allowed)
    if plain["vocals"].any():
        assert is_changed(changed["vocals"], plain["vocals"], rounding)
    else:
        assert not changed["vocals"].any()


def test_signs_and_channels_are_drawn_for_each_stem_on_its_own():
    seen = set()
    for seed in range(60):
        changes = drawn_changes(AugmentConfig(), seed)
        stems = (changes.vocals, changes.accompaniment)
        seen.add(tuple((stem.inverted, stem.swapped) for stem in stems))
    assert len(seen) == 16


def test_what_the_paper_does_not_name_is_off_but_in_our_recipe():
    for name in configs_by_name.NAMES:
        config = configs_by_name.get(name).data.pipeline.augment
        for field in NEW_FIELDS:
            is_off = getattr(config, field) == getattr(NO_AUGMENTATION, field)
            assert is_off == name.startswith(("tiny", "diff_dmx")), (name, field)
        assert (config.pitch_probability == 0) == (not name.startswith("diff_dmx"))
    assert not NO_AUGMENTATION.filters


def test_the_pair_is_shifted_by_one_interval():
    config = dataclasses.replace(
        NO_AUGMENTATION, pitch_probability=1.0, pitch_semitones=(-2.0, 2.0)
    )
    seen = []
    for seed in range(3):
        changes = drawn_changes(config, seed)
        pair = augment(Segment(tone(330.0), tone(550.0)), changes, RATE)
        moved = [12 * np.log2(pitch(x) / hz) for x, hz in zip(pair, (330.0, 550.0), strict=True)]
        assert moved[0] == pytest.approx(moved[1], abs=0.15)
        seen.append(moved[0])
    assert max(seen) - min(seen) > 0.2


def test_the_library_is_not_touched_at_probability_zero(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    monkeypatch.setitem(sys.modules, "python_stretch.Signalsmith", None)
    examples(AugmentConfig(pitch_probability=0.0), 1000, 0)
    with pytest.raises(UserError, match="python-stretch, which is not installed"):
        examples(AugmentConfig(pitch_probability=1.0), 1000, 0)


def plan(augmentation: AugmentConfig, index: int, segment: int = 8192) -> ExamplePlan:
    config = pipeline.PipelineConfig(batch_size=1, augment=augmentation, silent_kept=0.0)
    return pipeline.plan(Ramps(), config, segment, index)


@pytest.mark.parametrize("field", NEW_FIELDS)
def test_an_augmentation_changes_nothing_in_what_the_others_draw(field: str):
    """The songs, places and changes of an example, of all augmentations, with and without one."""
    own = {"silent_share": "silent", "layer_probability": "layers"}
    own |= {"remix_speed_percent": "backing"}
    own |= {"bus_probability": "bus_db", "limiter_probability": "limiter_db"}
    own |= {"low_pass_probability": "low_pass_hz", "fade_probability": "fade_db"}
    differ: set[str] = set()
    for index in range(40):
        both = [plan(augmentation, index) for augmentation in (EVERYTHING, without(field))]
        left, right = (vars(each) | vars(each.changes) for each in both)
        for name in left.keys() - {"changes"}:
            if left[name] != right[name]:
                differ.add(name)
    if field == "eq_db":
        assert differ == {"tilts", "vocals", "accompaniment"}
    elif field == "speed_percent":  # a slowed example may start later, to reach the voice
        assert {"stretch", "backing"} <= differ <= {"stretch", "backing", "vocals"}
    else:
        assert differ == {own[field]}


def pair(config: AugmentConfig, seed: int = 0) -> tuple[Segment, Segment]:
    """Noise before and after."""
    rng = np.random.default_rng(100 + seed)
    stems = Segment(*(rng.standard_normal((2, 20_000, 2)).astype(np.float32)))
    copies = Segment(*(stem.copy() for stem in stems))
    return stems, augment(copies, drawn_changes(config, seed), RATE)


def drawn_changes(config: AugmentConfig, seed: int = 0) -> Changes:
    return draw_changes(np.random.default_rng(seed), config)


def test_a_margin_is_read_around_an_example_and_cut_off_again():
    """But for the ends of songs, where there is none to read."""
    margins = dataclasses.replace(NO_AUGMENTATION, low_pass_probability=1e-12)
    total = Ramps().num_samples(0)
    inside = 0
    for index in range(40):
        drawn = plan(margins, index)
        first = drawn.vocals.start - drawn.stretch.margin
        if 0 <= first <= total - drawn.stretch.made:
            expected = examples(NO_AUGMENTATION, 8192, index)
            np.testing.assert_equal(examples(margins, 8192, index), expected)
            inside += 1
    assert inside > 30


def test_limiter_and_fade_have_one_gain_for_both_stems():
    for field in ("limiter_probability", "fade_probability"):
        for seed in range(5):
            stems, changed = pair(only(field), seed)
            gains = [after / before for before, after in zip(stems, changed, strict=True)]
            for gain in gains:
                np.testing.assert_allclose(gain, gains[0][:, :1].repeat(2, axis=1), rtol=1e-5)
            assert gains[0].max() <= 1.0 + 1e-6


def test_the_limiter_works_on_the_mixture_as_it_is_after_gains_and_signs():
    config = dataclasses.replace(EVERYTHING, low_pass_probability=0.0, fade_probability=0.0)
    for seed in range(5):
        peaks = []
        for limits in (0.0, 1.0):
            _, changed = pair(dataclasses.replace(config, limiter_probability=limits), seed)
            peaks.append(np.abs(changed.vocals + changed.accompaniment).max())
        assert 10 ** (-8 / 20) * 0.9999 <= peaks[1] / peaks[0] <= 1.0001


def test_the_low_pass_is_the_same_for_both_stems():
    hz = np.fft.rfftfreq(20_000, 1 / RATE)
    cutoffs = []
    for seed in range(20):
        stems, changed = pair(only("low_pass_probability"), seed)
        spectra = [
            np.abs(np.fft.rfft(np.hanning(20_000)[:, None] * stem, axis=0)).max(axis=1)
            for stem in (*stems, *changed)
        ]
        ratios = spectra[2] / spectra[0], spectra[3] / spectra[1]
        edges = [hz[ratio > 1e-2].max() for ratio in ratios]
        assert edges[0] == pytest.approx(edges[1], rel=0.01)
        cutoffs.append(edges[0])
    assert 3_200 < min(cutoffs) < max(cutoffs) < 16_100


def test_tilts_are_drawn_for_each_stem_within_the_range():
    tilts = []
    for seed in range(20):
        changes = drawn_changes(only("eq_db"), seed)
        tilts.append((changes.vocals.tilt_db, changes.accompaniment.tilt_db))
    assert -3 < np.min(tilts) < -1.5
    assert 1.5 < np.max(tilts) < 3
    assert abs(np.corrcoef(np.transpose(tilts))[0, 1]) < 0.7
    stems, changed = pair(only("eq_db"))
    for stem, before, after in zip(("vocals", "accompaniment"), stems, changed, strict=True):
        spectra = [np.abs(np.fft.rfft(audio[:, 0], norm="ortho")) for audio in (before, after)]
        treble = slice(7000, None)  # from 15.4 kHz on: 88 to 91% of the tilt
        gain = np.sqrt(np.mean(spectra[1][treble] ** 2) / np.mean(spectra[0][treble] ** 2))
        tilt_db = getattr(drawn_changes(only("eq_db")), stem).tilt_db
        assert 20 * np.log10(gain) == pytest.approx(0.9 * tilt_db, abs=0.1)


def test_the_bus_is_saturated_and_the_vocals_are_not():
    stems, changed = pair(only("bus_probability"))
    np.testing.assert_array_equal(changed.vocals, stems.vocals)
    assert not np.allclose(changed.accompaniment, stems.accompaniment, rtol=0.01)
    levels = [stem.accompaniment.std() for stem in (stems, changed)]
    assert levels[1] == pytest.approx(levels[0], rel=1e-3)


def test_both_stems_are_played_at_one_speed_and_are_as_long_as_before():
    for length in (60_000, 65_536, 70_000):
        changes = drawn_changes(NO_AUGMENTATION)
        changed = augment(Segment(tone(330.0), tone(550.0)), changes, RATE, length=length)
        factors = [pitch(stem) / hz for stem, hz in zip(changed, (330.0, 550.0), strict=True)]
        assert factors == pytest.approx([65_536 / length] * 2, rel=1e-4)
        assert len(changed.vocals) == len(changed.accompaniment) == length


def test_an_example_is_read_at_a_speed_of_the_range():
    stretches = [plan(only("speed_percent"), index, 32_768).stretch for index in range(60)]
    assert {stretch.made for stretch in stretches} == {32_768 + 2 * MARGIN}
    speeds = [stretch.read / stretch.made for stretch in stretches]
    assert 0.939 < min(speeds) < 0.96
    assert 1.04 < max(speeds) < 1.065
    assert np.mean(speeds) == pytest.approx(1.0, abs=0.02)


def test_both_speeds_together_are_at_least_a_half():
    AugmentConfig(speed_percent=(-20.0, 0.0), remix_speed_percent=(-37.5, 0.0))
    with pytest.raises(UserError, match="remix_speed_percent at -40; expected at least half"):
        AugmentConfig(speed_percent=(-20.0, 0.0), remix_speed_percent=(-40.0, 0.0))


@pytest.mark.parametrize("speed", [(0.0, 0.0), (20.0, 20.0)])
def test_songs_long_enough_for_slow_accompaniments_are_long_enough(speed):
    """An accompaniment that is not remixed is read at the vocals' speed."""
    config = pipeline.PipelineConfig(
        batch_size=1,
        augment=AugmentConfig(speed_percent=speed, remix_speed_percent=(-30.0, -20.0)),
    )
    length = Ramps().num_samples(0)
    fits = [segment for segment in range(100_000, length, 100) if fits_in(config, segment)]
    longest = fits[-1]
    for index in range(20):
        assert example(Ramps(), config, longest, index)["vocals"].shape == (longest, 2)


def fits_in(config: pipeline.PipelineConfig, segment: int) -> bool:
    try:
        pipeline.check_lengths(Ramps(), config, segment)
    except UserError:
        return False
    return True


def test_only_an_accompaniment_of_another_song_has_a_speed_of_its_own():
    config = dataclasses.replace(only("remix_speed_percent"), remix_probability=0.5)
    speeds = []
    for index in range(80):
        drawn = plan(config, index, 32_768)
        assert drawn.stretch.read == drawn.stretch.made == drawn.backing.made
        if drawn.accompaniment == drawn.vocals:
            assert drawn.backing == drawn.stretch
        else:
            speeds.append(drawn.backing.read / drawn.backing.made)
    assert 0.69 < min(speeds) < 0.8
    assert 1.25 < max(speeds) < 1.41
    assert np.mean(speeds) == pytest.approx(1.05, abs=0.08)


def test_a_remixed_accompaniment_is_played_at_its_own_speed():
    """The vocals are those of the example without it, but for the ends of songs."""
    config = dataclasses.replace(NO_AUGMENTATION, remix_probability=1.0)
    faster = dataclasses.replace(config, remix_speed_percent=(25.0, 25.0))
    total, slopes = Ramps().num_samples(0), []
    for index in range(20):
        plain, changed = (examples(each, 8192, index) for each in (config, faster))
        first = plan(faster, index).vocals.start - MARGIN
        if not 0 <= first <= total - 8192 - 2 * MARGIN:
            continue
        np.testing.assert_allclose(changed["vocals"], plain["vocals"], atol=1e-3)
        bands = [each["mixture"] - each["vocals"] for each in (plain, changed)]
        slopes.append(np.divide(*[np.diff(band[1000:7000, 0]).mean() for band in bands[::-1]]))
    assert len(slopes) > 10
    np.testing.assert_allclose(slopes, 1.25, rtol=0.02)


def test_the_accompaniment_keeps_its_level_whatever_is_layered_on_it():
    for index in range(20):
        plain, layered = (
            examples(augmentation, 8192, index)
            for augmentation in (NO_AUGMENTATION, only("layer_probability"))
        )
        np.testing.assert_array_equal(layered["vocals"], plain["vocals"])
        bands = [example["mixture"] - example["vocals"] for example in (plain, layered)]
        levels = [np.sqrt(np.mean(band.astype(float) ** 2)) for band in bands]
        assert levels[1] == pytest.approx(levels[0], rel=1e-5)
        assert not np.array_equal(*bands)


def test_layers_come_each_by_its_own_chance():
    augmentation = dataclasses.replace(NO_AUGMENTATION, layer_probability=0.4)
    counts = np.bincount([len(plan(augmentation, index).layers) for index in range(400)])
    for count, share in zip(counts, (0.36, 0.48, 0.16), strict=True):
        assert count == pytest.approx(400 * share, abs=4 * np.sqrt(400 * share * (1 - share)))


@pytest.mark.parametrize(
    "fields",
    [
        {"polarity_probability": -0.1},
        {"gain_db": (3.0, -3.0)},
        {"remix_probability": 2.0},
        {"pitch_probability": 1.1},
        {"pitch_semitones": (0.0, 13.0)},
        {"silent_share": 1.1},
        {"layer_probability": -0.1},
        {"layer_db": (3.0, -8.0)},
        {"speed_percent": (-51.0, 0.0)},
        {"eq_db": (-3.0, 31.0)},
        {"bus_probability": float("nan")},
        {"bus_db": (-1.0, 8.0)},
        {"limiter_probability": 2.0},
        {"limiter_db": (0.0, float("nan"))},
        {"low_pass_probability": 1.5},
        {"low_pass_hz": (0.0, 16_000.0)},
        {"fade_probability": -1.0},
        {"fade_db": (-90.0, 0.0)},
    ],
)
def test_bad_augmentation_values_are_refused(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        AugmentConfig(**fields)
