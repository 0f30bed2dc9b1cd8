"""Sweeps: the grid without what is the same twice, one compiled program, the table."""

import dataclasses

import pytest
import scored

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import tables
from diffsep_jax.evaluation.estimates import SeparatorEstimates, condition_names
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.evaluation.sweep import label, number_label, parse_sweep, simplest
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerOptions, SamplerSettings
from diffsep_jax.samplers import SAMPLERS, Sampler

PLAIN, BASE = SamplerOptions(), SamplerOptions(sampler="ddim")


def labels(*axes, base=None):
    base = base or (PLAIN if any(axis.startswith("sampler") for axis in axes) else BASE)
    return [label(point) for point in parse_sweep(axes, base).points]


def test_the_papers_grid_has_no_point_twice():
    """Without fresh noise there is nothing to filter."""
    axes = ["steps=20,50,100", "eta=0,0.2,0.4,0.8", "cutoff-hz=none,600,2000,5000"]
    sweep = parse_sweep(axes, BASE)
    assert len(sweep.points) == len(set(sweep.points)) == 3 * (1 + 3 * 4)
    assert sweep.num_same == 3 * 3
    names = [label(point) for point in sweep.points]
    assert len(set(names)) == len(names)
    assert names[:3] == ["T=20 eta=0", "T=20 eta=0.2 fc=none", "T=20 eta=0.2 fc=600"]
    assert "T=50 eta=0.4 fc=5000" in names


def test_what_plays_no_part_makes_no_point():
    assert labels("steps=1,2", "eta=0,0.4") == ["T=1 eta=0", "T=2 eta=0", "T=2 eta=0.4 fc=5000"]
    assert labels("sampler=ab2", "eta=0,0.4") == ["ab2 T=50"]
    assert labels("sampler=direct", "steps=1,2", "ensemble=1,4") == ["direct"]
    assert labels("cutoff_hz=none,0,5000") == ["T=50 eta=0.4 fc=none", "T=50 eta=0.4 fc=5000"]
    assert labels(
        "start-sigma=1,0.3", "ensemble=1,2", base=SamplerOptions(sampler="ddim", eta=0.0)
    ) == [
        "T=50 eta=0",
        "T=50 eta=0 ensemble=2",
        "T=50 eta=0 start=0.3",
        "T=50 eta=0 start=0.3 ensemble=2",
    ]


def test_a_registered_sampler_keeps_what_it_uses():
    def rough(velocity_fn, noise, *, steps, cutoff_hz, noise_fn): ...

    one, other = (
        simplest(SamplerSettings(sampler=rough, steps=1, cutoff_hz=hz)) for hz in (100.0, 2000.0)
    )
    assert (one.cutoff_hz, other.cutoff_hz) == (100.0, 2000.0)
    assert label(one) == "rough T=1 fc=100"


CLOSE = ("eta=0.3333331,0.3333332", "cutoff-hz=1234567.5,1234568", "start-sigma=0.1,0.10000001")


def test_points_that_differ_a_little_have_labels_that_differ():
    """They would be one condition otherwise, and the other's scores lost."""
    sweep = parse_sweep([*CLOSE, "steps=2,2"], BASE)
    assert (len(sweep.points), sweep.num_same) == (8, 8)  # equal ones are merged all the same
    names = [label(point) for point in sweep.points]
    assert len(set(names)) == 8
    assert names[0] == "T=2 eta=0.3333331 fc=1234567.5 start=0.1"
    assert names[-1] == "T=2 eta=0.3333332 fc=1234568 start=0.10000001"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (5000.0, "5000"), (0.4, "0.4"), (1 / 3, repr(1 / 3)), (1e6 + 1, "1000001")],
)
def test_a_numbers_label_reads_as_the_number(value, text):
    assert number_label(value) == text
    assert float(text) == value


def test_samplers_come_one_after_the_other():
    names = labels("steps=2,4", "sampler=direct,ab2")
    assert names == ["direct", "ab2 T=2", "ab2 T=4"]


def test_presets_are_an_axis():
    points = parse_sweep(["preset=fast,balanced,best"], PLAIN).points
    assert [label(point) for point in points] == [label(each) for each in PRESETS.values()]
    names = labels("preset=balanced,best", "steps=2,4", base=SamplerOptions(temperature=0.5))
    assert names == [
        label(dataclasses.replace(PRESETS[preset], steps=steps, temperature=0.5))
        for preset in ("balanced", "best")
        for steps in (2, 4)
    ]
    with pytest.raises(UserError, match="preset fast does not use steps"):
        parse_sweep(["preset=fast,balanced", "steps=2,4"], PLAIN)


def test_no_axis_is_the_settings_themselves():
    options = {"sampler": "ddim", "steps": 7, "eta": 0.1, "seed": 3}
    settings = SamplerSettings(**options)
    assert parse_sweep([], SamplerOptions(**options)).points == [settings]
    assert simplest(settings) == settings


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("steps=", "expected NAME=VALUE,VALUE"),
        (
            "speed=3",
            "NAME of preset, sampler, steps, eta, cutoff-hz, start-sigma, schedule, temperature",
        ),
        ("steps=1.5", "sweep is steps=1.5; expected values such as"),
        ("eta=2", "eta is 2.0; expected 0 to 1"),
        ("sampler=euler", "sampler is euler; expected one of ddim, ab2"),
        ("preset=turbo", "preset is turbo; expected one of fast"),
    ],
)
def test_bad_axes_are_told_in_one_line(axis, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_sweep([axis], PLAIN)
    assert "\n" not in str(caught.value)


def test_an_axis_that_is_given_twice_is_refused():
    with pytest.raises(UserError, match="sweep has steps=2, but steps is given twice"):
        parse_sweep(["steps=1", "steps=2"], BASE)
    with pytest.raises(UserError, match="sampler is given twice"):
        parse_sweep(["sampler=ab2"], BASE)


def test_a_sweep_compiles_one_program_for_each_sampler(tmp_path):
    separator = Separator.from_pretrained(str(scored.write_model(tmp_path)), batch_size=8)
    axes = ["steps=1,2", "eta=0,0.4", "cutoff-hz=none,600", "sampler=ddim,direct"]
    points = condition_names(parse_sweep(axes, PLAIN).points, None)
    estimates = SeparatorEstimates(separator, points, repeats=2, overlap=0.2)
    song = scored.song(seconds=0.1)
    for condition in estimates.conditions:
        found = list(estimates.estimate(song, condition))
        drawn = condition != "direct"
        assert [each.seed for each in found] == ([0, 1] if drawn else [0])
        assert len(found) == estimates.num_repeats(condition)
    assert separator._chunks.num_compilations == 2


class Unused(Separator):
    """Compiles nothing."""

    def __init__(self):
        pass

    def warm_up(self, **_):
        pass


def test_repeats_of_ensembles_share_no_seed():
    point = SamplerSettings(ensemble=3, seed=10)
    estimates = SeparatorEstimates(Unused(), {"x": point}, repeats=3, overlap=0.2)
    assert [estimates._seeded(point, repeat).seed for repeat in range(3)] == [10, 13, 16]


def test_repeats_that_make_no_sense_are_refused():
    for point, repeats, message in [
        (
            SamplerSettings(sampler="direct"),
            2,
            "repeats is 2; expected 1, as these settings draw nothing",
        ),
        (SamplerSettings(), 0, "repeats is 0; expected at least 1"),
        (SamplerSettings(seed=2**32 - 1), 2, "seed is 4294967296; expected"),
    ]:
        with pytest.raises(UserError, match=message):
            SeparatorEstimates(Unused(), {"x": point}, repeats=repeats, overlap=0.2)


def test_a_name_stands_before_the_label_or_in_its_place():
    one, two = SamplerSettings(steps=2, eta=0.0), SamplerSettings(steps=3, eta=0.0)
    assert list(condition_names([one], "ours")) == ["ours"]
    assert list(condition_names([one, two], "ours")) == ["ours T=2 eta=0", "ours T=3 eta=0"]
    assert condition_names([one, two], None) == {"T=2 eta=0": one, "T=3 eta=0": two}


def table_of(points, values):
    """The table of a sweep of one track."""
    estimates = {label(p): [value] for p, value in zip(points, values, strict=True)}
    conditions = {label(p): dataclasses.asdict(p) for p in points}
    result = scored.result([scored.rows("a", estimates=estimates)], conditions)
    return tables.sweep_table(result, summarise(result))


def test_the_table_is_that_of_the_paper():
    axes = ["steps=20,50", "eta=0,0.4", "cutoff-hz=none,5000", "sampler=ddim,direct"]
    points = parse_sweep(axes, PLAIN).points
    table = table_of(points, [float(i) for i in range(1, 8)])
    assert "median utterance SDR (whole track" in table.title
    assert table.header == ["sampler", "T", "eta", "fc none", "fc 5000"]
    assert table.rows == [
        ["ddim", "20", "0", "1.00", ""],
        ["ddim", "20", "0.4", "2.00", "3.00"],
        ["ddim", "50", "0", "4.00", ""],
        ["ddim", "50", "0.4", "5.00", "6.00"],
        ["direct", "", "", "7.00", ""],
    ]
    assert table_of(points, [None] * 7).rows[0] == ["ddim", "20", "0", "-", ""]


def test_the_table_tells_the_points_of_a_registered_sampler_apart(monkeypatch):
    def rough(velocity_fn, noise, *, steps, eta, noise_fn): ...

    monkeypatch.setitem(SAMPLERS, "rough", Sampler("rough", rough))
    points = parse_sweep(["sampler=rough", "eta=0.2,0.4"], PLAIN).points
    assert [row[-2:] for row in table_of(points, [1.0, 2.0]).rows] == [
        ["0.2", "1.00"],
        ["0.4", "2.00"],
    ]


def test_points_that_differ_a_little_have_cells_of_their_own():
    points = parse_sweep(CLOSE, BASE).points
    rows = table_of(points, [float(i) for i in range(8)]).rows
    assert [row[1:3] for row in rows] == [
        ["0.3333331", "0.1"],
        ["0.3333331", "0.10000001"],
        ["0.3333332", "0.1"],
        ["0.3333332", "0.10000001"],
    ]
    assert sorted(float(value) for row in rows for value in row[3:]) == list(range(8))
