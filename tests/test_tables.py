"""The tables of a result: each names its protocol, holds its references, and counts its tracks."""

import pytest
import rich.console
import scored

from diffsep_jax.evaluation import tables
from diffsep_jax.evaluation.protocols import GROUP_TITLES, OTHER_TRACKS
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
    assert len(printed) == 3
    for lines, title in zip(printed, GROUP_TITLES.values(), strict=True):
        # Titles may be broken over two lines, numbers are not.
        assert " ".join(" ".join(lines[:2]).split()).startswith(title)
        assert max(map(len, lines)) <= 80
    assert sum("SDR" in line.split() for line in printed[1]) == 4 + 1  # four rows and the title
    assert not any("SI-SDR" in line for line in printed[1])


def test_references_stand_beside_every_result():
    for table in tables.summary_tables(result(2)):
        rows = "\n".join(scored.lines_of(table))
        for name in ("mixture as estimate", "oracle, IRM 1", "oracle, IRM 2", "T=50 eta=0"):
            assert name in rows


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
        assert words[2:] == ["repeats"] * has_repeats + ["RTF"] * has_times
        utterance = next(tables.summary_tables(found))
        headings = [column.header for column in utterance.columns]
        assert ("repeats" in headings, "RTF" in headings) == (has_repeats, has_times)
    shown = rich.console.Console(width=200)
    with shown.capture() as capture:
        tables.show(shown, untimed)
    assert "RTF" not in capture.get()


def test_every_track_is_there_with_its_spread_or_a_reason():
    rows = {name: cells for name, *cells in scored.cells(tables.track_table(result(2)))}
    assert rows["one [live]"] == ["-1.00", "3.00 ±1.41", "+4.00", "4.0"]
    assert rows["quiet"] == ["-", "silent", "", "4.0"]
    broken = scored.result([scored.track("a", [], estimates={"T=50 eta=0": ()})])
    assert scored.cells(tables.track_table(broken)) == [["a", "0.00", "problem", "", ""]]


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
