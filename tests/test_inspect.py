"""Inspection: the page holds what the model gets, loads nothing, and shows names as they are."""

import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile
from html_page import Page, decode

from data_pipelines.augment import NO_AUGMENTATION
from data_pipelines.inspect import __main__ as command
from data_pipelines.inspect import contents, examples, page
from data_pipelines.pipeline import PipelineConfig, example
from data_pipelines.sources import EmbeddedSongs, FolderSongs
from diffsep_jax.errors import UserError

NAME = "<i>alert('1')<script> & \"Ünï 歌\" [bold]"
RATE, SEGMENT = 44100, 10_000


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """A folder of two songs, one with a name that needs escaping and with half its vocals silent;
    the accompaniment of both is twice as loud as the vocals."""
    root = tmp_path_factory.mktemp("data <i>")
    rng = np.random.default_rng(0)
    for name, level in ((NAME, 0.2), ("second", 0.02)):
        folder = root / name
        folder.mkdir()
        vocals, other = level * rng.uniform(-1, 1, (2, 10 * 4096, 2))
        vocals[: 5 * 4096] *= level != 0.2
        soundfile.write(folder / "vocals.wav", vocals, RATE, subtype="FLOAT")
        soundfile.write(folder / "other.wav", 2 * other, RATE, subtype="FLOAT")
    return root


def folder_songs(root):
    return FolderSongs(path=str(root), cache_dir=str(root.parent / "cache"))


def run(root, out, *more):
    cache = f"--cache-dir={root.parent / 'cache'}"
    options = ["--segment=8192", "--augment.pitch-probability=0", "--examples=2", f"--out={out}"]
    command.main([str(root), *options, cache, *more])


def test_contents_are_measured(songs):
    found = contents.measure(folder_songs(songs), spec="x", split="train")
    first, second = found.songs
    assert (len(found.songs), found.sample_rate) == (2, RATE)
    assert first.seconds == pytest.approx(10 * 4096 / RATE)
    assert (first.silent_share, second.silent_share) == (0.5, 0.0)
    rms = np.sqrt(5 / 3) * 0.02  # of a uniform distribution: its edge / sqrt(3)
    assert second.level_db == pytest.approx(20 * np.log10(rms), abs=0.1)
    rows = dict(found.rows())
    assert rows["blocks with silent vocals"] == "25.0%"
    assert rows["quietest mixture"].endswith(", second")
    assert rows["loudest mixture"].endswith(first.name)


def test_command_prints_the_contents_and_writes_the_page(songs, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    run(songs, out, "--songs-listed=1")
    printed = capsys.readouterr().out
    assert "[bold]" in printed
    assert "25.0%" in printed
    assert "and 1 more" in printed
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    text = out.read_text(encoding="utf-8")
    found = Page(text)
    assert "script" not in found.elements
    assert "i" not in found.elements
    assert NAME in found.text
    assert "http" not in text.replace('http-equiv="Content', "")
    assert any(meta.get("name") == "viewport" for meta in found.elements["meta"])
    assert len(found.elements["article"]) == 2
    assert len(found.elements["audio"]) == 6
    assert len(found.elements["img"]) == 2
    for audio in found.elements["audio"]:
        assert audio["aria-label"]
        samples, rate = soundfile.read(decode(audio["src"]))
        assert (samples.shape, rate) == ((8192, 2), RATE)
    for image in found.elements["img"]:
        assert image["alt"]
        assert matplotlib.image.imread(decode(image["src"])).std() > 0


def test_examples_are_the_pipelines_own(tmp_path):
    source = EmbeddedSongs(num_songs=2, seconds=0.5, cache_dir=str(tmp_path))
    config = PipelineConfig(batch_size=3, seed=5)
    options = {"segment": SEGMENT, "num_examples": 6, "seed": 1}
    drawn = list(examples.draw(source, config, **options))
    numbers = [each.number for each in drawn]
    assert numbers == sorted(set(numbers))
    assert numbers == [each.number for each in examples.draw(source, config, **options)]
    others = examples.draw(source, config, **{**options, "seed": 2})
    assert numbers != [each.number for each in others]
    for each in drawn:
        expected = example(source, config, SEGMENT, each.number)
        for name, audio in expected.items():
            np.testing.assert_array_equal(each.audio[name], audio)
        assert {name for name, _ in each.places} <= {"train-0000", "train-0001"}
        assert len(each.places) in (1, 2)
    with pytest.raises(UserError, match=r"train-0000 has 22050 samples.* 30000"):
        list(examples.draw(source, config, **{**options, "segment": 30_000}))


def test_players_hold_the_example_at_one_gain(tmp_path):
    """The three players add up as the stems do, and the loudest peaks at -1 dBFS."""
    source = EmbeddedSongs(num_songs=1, seconds=0.5, cache_dir=str(tmp_path))
    config = PipelineConfig(batch_size=1)
    options = {"segment": SEGMENT, "num_examples": 1, "seed": 0}
    (drawn,) = examples.draw(source, config, **options)
    found = contents.measure(source, spec="embedded", split="train")
    elements = Page(page.render(found, [drawn], augment=config.augment)).elements
    played = [soundfile.read(decode(audio["src"]))[0] for audio in elements["audio"]]
    mixture, vocals, accompaniment = played
    np.testing.assert_allclose(mixture, vocals + accompaniment, atol=2**-14)
    assert max(np.abs(each).max() for each in played) == pytest.approx(10 ** (-1 / 20), abs=1e-4)
    scale = np.abs(mixture).max() / np.abs(drawn.audio["mixture"]).max()
    np.testing.assert_allclose(vocals, scale * drawn.audio["vocals"], atol=2**-13)


def test_silence_is_shown_as_such(tmp_path):
    zeros = np.zeros((100, 2), np.float32)
    drawn = examples.DrawnExample(
        number=0,
        places=(("a", 0.0),),
        audio={"mixture": zeros, "vocals": zeros, "accompaniment": zeros},
        sample_rate=RATE,
    )
    song = contents.SongFacts(name="a", seconds=1.0, level_db=-np.inf, silent_share=1.0)
    found = contents.Contents(spec="x", split="test", sample_rate=RATE, songs=(song,))
    text = Page(page.render(found, [drawn], augment=NO_AUGMENTATION)).text
    assert "peak silence, RMS silence" in text
    assert "active in 0% of blocks" in text


def test_only_training_is_augmented(songs, tmp_path, monkeypatch):
    configs_seen = []

    def watch(source, config, segment, index):
        configs_seen.append(config)
        return example(source, config, segment, index)

    monkeypatch.setattr(examples, "example", watch)
    for split in ("train", "validation"):
        run(songs, tmp_path / f"{split}.html", f"--split={split}")
    assert [config.augment == NO_AUGMENTATION for config in configs_seen] == [False] * 2 + [
        True
    ] * 2
    pages = [(tmp_path / f"{s}.html").read_text(encoding="utf-8") for s in ("train", "validation")]
    assert "augmented by polarity_probability 0.5" in pages[0]
    assert "pitch" not in pages[0]
    assert "without augmentation" in pages[1]


def test_bad_input_is_refused(songs, tmp_path):
    taken = tmp_path / "file"
    taken.touch()
    out = tmp_path / "page.html"
    for more, words in (
        (["--split=dev"], "split=dev: expected train, validation, test"),
        (["--examples=0"], "examples=0: expected 1 to"),
        (["--examples=1000"], "examples=1000: expected 1 to"),
        (["--seed=-1"], "seed=-1"),
        (["--songs-listed=-1"], "songs_listed=-1"),
        (["--segment=0"], "segment=0"),
        (["--augment.silent-share=0.5"], "silent_kept=0.05 and augment.silent_share=0.5"),
        ([f"--out={tmp_path}"], "is a folder"),
        ([f"--out={taken / 'page.html'}"], "file: cannot be written"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            run(songs, out, *more)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path / "nowhere", out)
    assert not out.exists()


def test_bad_input_ends_in_one_line_and_status_2(tmp_path):
    options = (str(tmp_path / "nowhere"), "--out", str(tmp_path / "page.html"))
    result = subprocess.run(
        [sys.executable, "-m", "data_pipelines.inspect", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "nowhere" in result.stderr
