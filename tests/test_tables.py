"""The tables of a result: each names its protocol, holds its references, and counts its tracks."""

import dataclasses

import pytest
import rich.console
import scored

from diffsep_jax import metrics
from diffsep_jax.evaluation import tables
from diffsep_jax.evaluation.protocols import GROUP_TITLES, OTHER_TRACKS, REFERENCES
from diffsep_jax.evaluation.results import Problem


def result(repeats, metrics=scored.ALL):
    problem = Problem(kind="silent vocals", message="quiet: the true vocals are silent")
    return scored.result(
        [
            scored.track("one [live]", [2.0, 4.0][:repeats], mixture=-1.0, metrics=metrics),
            scored.track("two", [6.0, 8.0][:repeats], mixture=1.0, metrics=metrics),
            scored.track("quiet", [None] * repeats, metrics=metrics, problems=(problem,)),
        ],
        metrics=metrics,
    )


@pytest.mark.parametrize("width", [80, 200])
def test_utterance_and_chunk_sdr_are_in_tables_of_their_own(width):
    printed = [scored.lines_of(table, width) for table in tables.summary_tables(result(2))]
    assert len(printed) == 4
    for lines, title in zip(printed, GROUP_TITLES.values(), strict=True):
        # Titles may be broken over two lines, numbers are not.
        assert " ".join(" ".join(lines[:2]).split()).startswith(title)
        assert max(map(len, lines)) <= 80
    assert sum("SDR" in line.split() for line in printed[2]) == 5 + 1  # five rows and the title
    assert not any("SI-SDR" in line for line in printed[2])


def test_references_stand_beside_every_result():
    for table in tables.summary_tables(result(2)):
        rows = "\n".join(scored.lines_of(table))
        for name in REFERENCES.values():
            assert (name in rows) == ("calibration" not in rows)
        assert "T=50 eta=0" in rows


def test_a_level_has_its_distance_from_the_best():
    spectra = list(tables.summary_tables(result(1)))[1]
    rows = [line.split() for line in scored.lines_of(spectra)]
    level = [row for row in rows if row[:2] == ["level", "0.1-1k"]][-1]
    assert level[2:] == ["4.00", "[2.00,", "6.00]", "4.00", "2"]
    (distance,) = [row for row in rows if "MR-STFT" in row and "T=50" in row]
    assert distance[-4:] == ["4.00", "[2.00,", "6.00]", "2"]  # nothing is its best value


def test_infinity_is_called_so():
    assert tables.decibels(-metrics.LIMIT_DB) == "-inf"
    assert tables.interval((-metrics.LIMIT_DB, metrics.LIMIT_DB)) == "[-inf, inf]"
    assert tables.decibels(-300.0) == "-300.00"


def beating(values, **fields):
    tracks = [scored.track(str(i), [value], mixture=1.0) for i, value in enumerate(values)]
    tracks = [dataclasses.replace(track, **fields) for track in tracks]
    return list(tables.gain_lines(scored.result(tracks), ["T=50 eta=0"]))


def test_a_line_says_whether_the_constant_gain_is_beaten():
    (line,) = beating([2.0, 3.0, 4.0])
    assert line == (
        "T=50 eta=0: beats the best constant gain: +2.00 dB [1.00, 3.00], better on 3 of 3 tracks"
    )
    assert "does NOT clearly beat the best constant gain: +2.00 dB" in beating([0.0, 3.0, 4.0])[0]
    assert "does NOT beat the best constant gain: -1.00 dB" in beating([0.0, 0.0, 4.0])[0]
    assert beating([None]) == []
    assert [line.partition(" the")[0] for line in beating([2.0, 3.0], part="sung")] == [
        "T=50 eta=0: beats",
        "T=50 eta=0, sung: beats",
    ]


def test_parts_have_rows_of_their_own():
    tracks = [
        scored.track(name, [value], mixture=value - 1, part=part)
        for name, value, part in (("a", 1.0, "sung"), ("b", 3.0, "sung"), ("c", 8.0, "spoken"))
    ]
    printed = scored.lines_of(next(tables.summary_tables(scored.result(tracks))))
    rows = [line.split() for line in printed]
    medians = [row[3] for row in rows if row[:3] == ["T=50", "eta=0", "SDR"]]
    assert medians == ["3.00", "8.00", "2.00"]  # of all, spoken, sung
    assert [row[0] for row in rows if row and row[0].endswith(":")] == ["spoken:", "sung:"]
    gains = [row[4] for row in rows if row[:4] == ["best", "constant", "gain", "SDR"]]
    assert gains == ["2.00", "7.00", "1.00"]


def test_a_row_is_median_interval_mean_spread_and_tracks():
    utterance = next(tables.summary_tables(result(2)))
    (row,) = [line.split() for line in scored.lines_of(utterance) if "T=50 eta=0" in line]
    # Medians of the repeats: 4 and 6. Two tracks are drawn anew: from one twice, to the other.
    assert row == ["T=50", "eta=0", "SDR", "5.00", "[3.00,", "7.00]", "5.00", "±1.41", "2", "0.50"]
    single = "\n".join(scored.lines_of(next(tables.summary_tables(result(1)))))
    assert "±" not in single


def test_the_legend_explains_the_columns_that_are_there():
    untimed = scored.result(
        [scored.track("a", [], estimates={"folder": (scored.score(1.0),)})],
    )
    for found, has_repeats, has_times in (
        (result(2), True, True),
        (result(1), False, True),
        (untimed, False, False),
    ):
        words = [line.partition(":")[0] for line in tables.legend(found)]
        assert words[:2] == ["median, mean", "95% interval"]
        assert ("off by" in words) == (found is not untimed)
        assert ("repeats" in words, "RTF" in words) == (has_repeats, has_times)
        utterance = next(tables.summary_tables(found))
        headings = [column.header for column in utterance.columns]
        assert ("repeats" in headings, "RTF" in headings) == (has_repeats, has_times)
    shown = rich.console.Console(width=200)
    with shown.capture() as capture:
        tables.show(shown, untimed)
    assert "RTF" not in capture.get()


def test_every_track_is_there_with_its_spread_or_a_reason():
    rows = {name: cells for name, *cells in scored.cells(tables.track_table(result(2)))}
    assert rows["one [live]"] == ["-1.00", "-1.00", "3.00 ±1.41", "+4.00", "4.0"]
    assert rows["quiet"] == ["-", "-", "silent", "", "4.0"]
    broken = scored.result([scored.track("a", [], estimates={"T=50 eta=0": ()})])
    assert scored.cells(tables.track_table(broken)) == [["a", "0.00", "0.00", "problem", "", ""]]


def test_rows_of_other_tracks_are_told():
    both = {"T=50 eta=0": (scored.score(1.0),), "direct": (scored.score(1.0),)}
    one = both | {"direct": ()}
    whole = scored.result([scored.track("a", [0.0], estimates=both)])
    part = scored.result(
        [scored.track(n, [0.0], estimates=e) for n, e in (("a", both), ("b", one))]
    )
    assert OTHER_TRACKS not in tables.problem_lines(whole)
    assert OTHER_TRACKS in tables.problem_lines(part)


def test_problems_are_counted_in_words():
    first, second = tables.problem_lines(result(1))
    assert first == "1 x silent vocals"
    assert second.startswith("3 tracks in all")
    assert list(tables.problem_lines(scored.result([scored.track("a", [1.0])]))) == []
