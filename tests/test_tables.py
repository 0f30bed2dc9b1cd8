"""The tables of a result: each names its protocol, holds its anchors, and counts its tracks."""

import csv
import io

import pytest
import rich.console
import scored

from diffsep_jax import metrics
from diffsep_jax.evaluation import tables
from diffsep_jax.evaluation.protocols import ANCHORS, GROUP_TITLES, OTHER_TRACKS
from diffsep_jax.evaluation.summary import summarise


def result(repeats=1, metrics=scored.ALL):
    silent = {"mixture": [{"kind": "silent vocals", "message": "quiet: silent"}]}
    return scored.result(
        [
            scored.rows("one [live]", [2.0, 4.0][:repeats], mixture=-1.0, metrics=metrics),
            scored.rows("two", [6.0, 8.0][:repeats], mixture=1.0, metrics=metrics),
            scored.rows("quiet", [None] * repeats, metrics=metrics, problems=silent),
        ],
        metrics=metrics,
    )


def tables_of(found):
    return list(tables.metric_tables(found, summarise(found)))


@pytest.mark.parametrize("width", [80, 200])
def test_utterance_and_chunk_sdr_are_in_tables_of_their_own(width):
    found = tables_of(result(2))
    assert [table.title.removesuffix(", dB") for table in found] == list(GROUP_TITLES.values())
    assert sum(row[1] == "SDR" for row in found[2].rows) == 5
    assert not any(row[1] == "SI-SDR" for row in found[2].rows)
    for table in found:
        lines = scored.lines_of(tables.rich_table(table), width)
        assert max(map(len, lines)) <= 80
        for name in ANCHORS:
            assert any(name in line for line in lines) == ("calibration" not in table.title)


def test_a_row_is_median_interval_mean_spread_and_tracks():
    *_, row, _ = tables_of(result(2))[0].rows
    # Medians of the repeats: 4 and 6. Two tracks are drawn anew: from one twice, to the other.
    assert row == [scored.POINT, "SDR", "5.00", "[3.00, 7.00]", "5.00", "±1.41", "2", "0.50"]
    assert tables_of(result(1))[0].header == [
        *("vocals", "metric", "median", "95% interval", "mean", "n", "RTF")
    ]


def test_a_level_has_its_distance_from_the_best():
    rows = [row for row in tables_of(result(1))[1].rows if row[1] in ("MR-STFT", "level 0.1-1k")]
    assert rows[-1][2:] == ["4.00", "[2.00, 6.00]", "4.00", "2"]
    assert rows[-2][2:] == ["4.00", "[2.00, 6.00]", "", "2"]  # nothing is its best value


def test_parts_have_rows_of_their_own():
    found = scored.result(
        [
            scored.rows(name, [value], mixture=value - 1, part=part)
            for name, value, part in (("a", 1.0, "sung"), ("b", 3.0, "sung"), ("c", 8.0, "spoken"))
        ]
    )
    rows = [row for row in tables_of(found)[0].rows if row[0]]
    medians = [(row[0], row[2]) if len(row) > 1 else row[0] for row in rows]
    parts = medians[5:]
    assert medians[4] == (scored.POINT, "3.00")
    assert parts == [
        *("spoken:", ("best constant gain", "7.00"), (scored.POINT, "8.00")),
        *("sung:", ("best constant gain", "1.00"), (scored.POINT, "2.00")),
    ]


def test_infinity_is_called_so():
    assert tables.decibels(-metrics.LIMIT_DB) == "-inf"
    assert tables.interval((-metrics.LIMIT_DB, metrics.LIMIT_DB)) == "[-inf, inf]"
    assert tables.decibels(-300.0) == "-300.00"


def beating(values, **fields):
    tracks = [scored.rows(str(i), [value], mixture=1.0, **fields) for i, value in enumerate(values)]
    return list(tables.gain_lines(scored.result(tracks), scored.POINT))


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


def test_the_legend_explains_the_columns_that_are_there():
    untimed = scored.result([scored.rows("a", [1.0], condition="files", seconds=None)])
    for found, has_repeats, has_times in (
        (result(2), True, True),
        (result(1), False, True),
        (untimed, False, False),
    ):
        words = [line.partition(":")[0] for line in tables.legend(found, summarise(found))]
        assert words[:2] == ["median, mean", "95% interval"]
        assert ("off by" in words) == (found is not untimed)
        assert ("repeats" in words, "RTF" in words) == (has_repeats, has_times)
        header = tables_of(found)[0].header
        assert ("repeats" in header, "RTF" in header) == (has_repeats, has_times)
    console = rich.console.Console(width=200)
    with console.capture() as capture:
        tables.show(console, untimed, summarise(untimed))
    assert "RTF" not in capture.get()


def test_every_track_is_there_with_its_spread_or_a_reason():
    rows = {name: cells for name, *cells in tables.track_table(result(2), scored.POINT).rows}
    assert list(rows) == ["one [live]", "two", "quiet"]
    assert rows["one [live]"] == ["-1.00", "-1.00", "3.00 ±1.41", "+4.00", "4.0"]
    assert rows["quiet"] == ["-", "-", "silent vocals", "", "4.0"]
    broken = {scored.POINT: [{"kind": "missing estimate", "message": "a: none"}]}
    failed = scored.result([scored.rows("a", [None], mixture=0.0, seconds=None, problems=broken)])
    (row,) = tables.track_table(failed, scored.POINT).rows
    assert row[3:] == ["missing estimate", "", ""]


def test_every_metric_of_a_track_has_a_column_that_names_its_protocol():
    table = tables.track_table(result(1), scored.POINT, scored.ALL)
    assert len(set(table.header)) == len(table.header)
    assert {"utterance SDR", "chunk SDR", "frames"} <= set(table.header)
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_rows_of_other_tracks_and_problems_are_told():
    both, one = {"x": [1.0], "y": [1.0]}, {"x": [1.0], "y": [None]}
    whole = scored.result([scored.rows("a", estimates=both)])
    part = scored.result([scored.rows("a", estimates=both), scored.rows("b", estimates=one)])
    assert list(tables.problem_lines(whole)) == []
    assert list(tables.problem_lines(part)) == [OTHER_TRACKS]
    assert list(tables.problem_lines(result(1))) == ["1 x silent vocals"]


def test_brackets_in_a_name_are_no_markup_and_bars_no_columns():
    table = tables.Table("title", ["track", "a"], [["A Song [live]", "1"], ["[/b]", "2|3"], ["x:"]])
    printed = "\n".join(scored.lines_of(tables.rich_table(table)))
    assert "A Song [live]" in printed
    assert "[/b]" in printed
    assert tables.markdown(table) == (
        "title\n\n| track | a |\n|---|---|\n| A Song [live] | 1 |\n| [/b] | 2\\|3 |\n| x: |  |\n"
    )


def test_csv_has_a_column_for_each_number():
    found = result(2)
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(found, summarise(found)))))
    assert [row["vocals"] for row in rows] == [*ANCHORS, scored.POINT]
    last = rows[-1]
    assert float(last["utterance_sdr_median"]) == float(last["chunk_sdr_median"]) == 5
    assert (float(last["si_sdr_median_low"]), last["utterance_sdr_tracks"]) == (3, "2")
    assert last["real_time_factor"] == "0.5"
    assert rows[0]["real_time_factor"] == rows[0]["utterance_sdr_deviation"] == ""
