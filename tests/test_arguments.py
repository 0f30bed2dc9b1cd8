"""The command line: what shells leave, and what is no path."""

import itertools

import pytest

from diffsep_jax.arguments import arguments
from diffsep_jax.errors import UserError


def test_home_is_found_behind_an_option(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    given = ["~/song.wav", "--out=~/x", "--name={track}~/{stem}", "--eta", "0.4"]
    expected = ["/home/a/song.wav", "--out=/home/a/x", "--name={track}~/{stem}", "--eta", "0.4"]
    assert arguments(given) == expected


@pytest.mark.parametrize("argument", ["gs://bucket/song.wav", "--out=s3://songs", "http://a"])
def test_a_url_is_refused(argument):
    with pytest.raises(UserError, match=f"^{argument}: is a URL; expected a local path"):
        arguments(["x", argument])


MODELS = ["--model", "hf://user/name@main", "--model=gs://bucket/m", "--init_from", "s3://b/m"]
RUN = ["--data.source", "gs://b/a", "songs", "s3://b/a", "--workdir=gs://b/run", "song.wav"]
VALIDATION = ["--data.validation-source=gs://b/a", "gs://b/c"]


@pytest.mark.parametrize("given", [MODELS, RUN, VALIDATION])
def test_models_work_folders_and_records_may_be_urls(given):
    assert arguments(given) == given


@pytest.mark.parametrize(
    ("given", "options"),
    [(MODELS, []), *itertools.product([MODELS, RUN, VALIDATION], [["--model", "a"], ["--out"]])],
)
def test_a_stray_url_beside_them_is_refused(given, options):
    with pytest.raises(UserError, match=r"^gs://song: is a URL"):
        arguments([*given, *options, "gs://song"])


def test_a_url_within_a_value_is_left_to_the_option():
    beam = "--beam=--runner=DataflowRunner --temp_location=gs://bucket/tmp"
    assert arguments([beam]) == [beam]


@pytest.mark.parametrize("argument", ["", "--out="])
def test_an_empty_value_is_not_the_current_folder(argument):
    with pytest.raises(UserError, match="is ''; expected a value"):
        arguments(["separate", argument])
