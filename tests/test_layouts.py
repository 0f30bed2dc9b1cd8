"""What is found in a folder: layouts, splits, and which files are vocals."""

from pathlib import Path

import pytest
from recordings import MUSDB_STEMS

from data_pipelines.builders.layouts import find
from data_pipelines.builders.patterns import STEMS, Patterns, read_patterns
from diffsep_jax.errors import UserError


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("musdb18hq", "SONG/vocals.wav"),
        ("musdb18", "SONG.stem.mp4"),
        ("stems", "expected a folder for each song"),
        ("pairs", "expected a folder for each song"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, layout, expected):
    with pytest.raises(UserError, match=f"^{tmp_path}: no songs in it; .*{expected}"):
        find(layout, tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path}/none: no such folder"):
        find(layout, tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vocals = [", "not TOML"),
        ("vocal = ['a']", "vocal: unknown; expected one of vocals, mixture"),
        ("vocals = 'a'", "vocals is 'a'; expected a list of patterns"),
        ("vocals = [1]", r"vocals is \[1\]; expected a list of patterns"),
        ("instrumentals = 1", "instrumentals is 1; expected true or false"),
    ],
)
def test_bad_patterns_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "patterns.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        read_patterns(path, STEMS)


def test_patterns_are_read(tmp_path):
    path = tmp_path / "patterns.toml"
    path.write_text("vocals = ['*sang*']\nignore = ['*click*']\ninstrumentals = true\n")
    patterns = read_patterns(path, STEMS)
    assert patterns == Patterns(
        vocals=("*sang*",), mixture=STEMS.mixture, ignore=("*click*",), instrumentals=True
    )
    folder = Path("/song")
    files = [folder / name for name in ("a/Gesang.wav", "Click track.wav", "mix.flac", "b.wav")]
    vocals, others, mixture = patterns.sort(folder, files)
    assert [str(file) for file in vocals] == ["/song/a/Gesang.wav"]
    assert [str(file) for file in others] == ["/song/b.wav"]
    assert str(mixture) == "/song/mix.flac"
    with pytest.raises(UserError, match=r"holds two mixtures, mix\.flac and mixture\.wav"):
        patterns.sort(folder, [*files, folder / "mixture.wav"])


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def paths(files, folder):
    return [file.path.relative_to(folder).as_posix() for file in files]


WITHOUT_VOCALS = [
    "no_vocals.wav",
    "Song (no vocals).wav",
    "song_novocals.wav",
    "Instrumental_vocals.wav",
    "song minus lead vocals.wav",
    "a/without_vocals.wav",
    "karaoke vocals.wav",
    "song_no_vocals.wav",
]


@pytest.mark.parametrize("name", WITHOUT_VOCALS)
def test_what_has_no_vocals_is_never_taken_for_vocals(tmp_path, name):
    touch(tmp_path / "Song", name, "soprano_vocals.wav", "mixture.wav")
    (song,) = find("stems", tmp_path).recordings
    assert paths(song.vocals, tmp_path / "Song") == ["soprano_vocals.wav"]
    assert paths(song.others, tmp_path / "Song") == [name]
    (song,) = find("pairs", tmp_path).recordings
    assert paths(song.vocals, tmp_path / "Song") == ["soprano_vocals.wav"]
    assert song.others == ()


def test_patterns_of_accompaniment_come_before_those_of_vocals(tmp_path):
    path = tmp_path / "patterns.toml"
    path.write_text("accompaniment = ['vocals_fx.*', 'ü*']", encoding="utf-8-sig")
    patterns = read_patterns(path, STEMS)
    files = [tmp_path / name for name in ("vocals.wav", "vocals_fx.wav", "Über vocals.wav")]
    vocals, others, _ = patterns.sort(tmp_path, files)
    assert paths(vocals, tmp_path) == ["vocals.wav"]
    assert paths(others, tmp_path) == ["vocals_fx.wav", "Über vocals.wav"]


def test_of_two_files_of_one_name_one_may_be_ignored(tmp_path):
    touch(tmp_path / "in/Song", "vocals.wav", "vocals.flac", "mixture.wav")
    assert "vocals.flac and vocals.wav" in find("stems", tmp_path / "in").left_out["Song"]
    path = tmp_path / "patterns.toml"
    path.write_text("ignore = ['*.flac']")
    (song,) = find("stems", tmp_path / "in", path).recordings
    assert paths(song.vocals, tmp_path / "in/Song") == ["vocals.wav"]


def test_links_are_followed_and_hidden_folders_are_not(tmp_path):
    song = tmp_path / "in/Song"
    touch(song, "drums.wav", ".trash/bass.wav", "sub/.cache/x.wav")
    touch(tmp_path / "elsewhere", "lead.wav")
    (song / "vocals").symlink_to(tmp_path / "elsewhere")
    (song / "sub/up").symlink_to(song)
    (song / "sub/root").symlink_to(tmp_path)
    (tmp_path / "elsewhere/back").symlink_to(song)
    (found,) = find("stems", tmp_path / "in").recordings
    assert paths(found.vocals, song) == ["vocals/lead.wav"]
    assert paths(found.others, song) == ["drums.wav"]


@pytest.mark.parametrize("link", ["bass.wav", "choir"])
@pytest.mark.parametrize("layout", ["stems", "pairs"])
def test_a_link_to_nothing_leaves_the_song_out(tmp_path, link, layout):
    for song in ("Good", "Bad"):
        touch(tmp_path / song, "vocals.wav", "mixture.wav")
    (tmp_path / "Bad" / link).symlink_to(tmp_path / "gone")
    (tmp_path / "Gone").symlink_to(tmp_path / "gone")
    (tmp_path / "Loop").symlink_to("Loop")
    findings = find(layout, tmp_path)
    assert [song.name for song in findings.recordings] == ["Good"]
    assert findings.left_out.keys() == {"Bad", "Gone", "Loop"}
    assert f"Bad/{link}: a broken link" in findings.left_out["Bad"]


def test_musdb18hq_takes_one_file_per_stem_from_the_songs_folder(tmp_path):
    stems = [f"{name}.wav" for name in MUSDB_STEMS]
    touch(tmp_path / "train/Good", *stems, "old/vocals.wav")
    touch(tmp_path / "train/Twice", *stems, "Vocals.flac")
    touch(tmp_path / "train/Lossy", *stems, "bass.mp3")
    touch(tmp_path / "train/Deep", *stems[1:], "more/drums.wav")
    touch(tmp_path / "test/Deep", *stems[:-1])
    findings = find("musdb18hq", tmp_path)
    (good,) = findings.recordings
    assert paths(good.vocals, tmp_path) == ["train/Good/vocals.wav"]
    left_out = findings.left_out
    assert left_out.keys() == {"train/Twice", "train/Lossy", "train/Deep", "test/Deep"}
    assert "Vocals.flac and vocals.wav" in left_out["train/Twice"]
    assert "bass.mp3 and bass.wav" in left_out["train/Lossy"]
    assert "no drums.wav" in left_out["train/Deep"]
    assert "no vocals.wav" in left_out["test/Deep"]


def test_a_second_mixture_leaves_only_its_song_out(tmp_path):
    touch(tmp_path / "A", "vocals.wav", "mixture.wav", "mix.wav")
    touch(tmp_path / "B", "vocals.wav", "mixture.wav")
    for layout in ("stems", "pairs"):
        findings = find(layout, tmp_path)
        assert [song.name for song in findings.recordings] == ["B"]
        assert "mix.wav and mixture.wav" in findings.left_out["A"]


def test_split_folders_by_their_usual_names(tmp_path):
    names = {"Training": "train", "VAL": "validation", "dev": "validation", "Eval": "test"}
    for name in (*names, "extra", ".hidden"):
        touch(tmp_path / name / "Song", "vocals.wav", "mixture.wav")
    findings = find("pairs", tmp_path)
    found = {song.name: song.split for song in findings.recordings}
    assert found == {f"{name}/Song": split for name, split in names.items()}
    assert findings.left_out.keys() == {"extra"}
    assert "next to Eval and Training and VAL and dev" in findings.left_out["extra"]


def test_songs_one_level_too_deep_are_not_summed_to_one(tmp_path):
    for song in ("One", "Two"):
        touch(tmp_path / "train/Artist" / song, "vocals.wav", "drums.wav")
        touch(tmp_path / "test/Band" / song, "vocals.wav", "mixture.wav")
    touch(tmp_path / "train/Moises", "vocals/a.wav", "vocals/b.wav", "drums/kick.wav", "bass/c.wav")
    findings = find("stems", tmp_path)
    assert [song.name for song in findings.recordings] == ["train/Moises"]
    assert findings.left_out.keys() == {"train/Artist", "test/Band"}
    for reason in findings.left_out.values():
        assert "One and Two in it look like songs" in reason
        assert "one level below the split's folder" in reason
