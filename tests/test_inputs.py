"""Which files are taken, what their results are called, and what is refused."""

from pathlib import Path

import pytest

from diffsep_jax.commands.inputs import (
    DEFAULT_NAME,
    Input,
    Shard,
    find_inputs,
    parse_shard,
    plan_jobs,
    shard_of_job,
)
from diffsep_jax.errors import UserError

BOTH = ("vocals", "accompaniment")


@pytest.fixture
def album(tmp_path):
    """A folder of songs, some in sub-folders, and what is no song."""
    for name in (
        "album/02.flac",
        "album/01.WAV",
        "album/cd2/01.mp3",
        "album/cover.jpg",
        "album/.01.wav",
        "album/.trash/03.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "album"


def test_a_folders_songs_come_by_name(album):
    assert find_inputs([album]) == [
        Input(album / "01.WAV"),
        Input(album / "02.flac"),
        Input(album / "cd2" / "01.mp3", Path("cd2")),
    ]


def test_named_files_come_in_the_order_given_and_once(album):
    odd = album / "song.dat"
    named = [odd, album / "02.flac", odd, album]
    assert [each.path.name for each in find_inputs(named)] == [
        "song.dat",
        "02.flac",
        "01.WAV",
        "01.mp3",
    ]


def test_a_list_adds_inputs(album, tmp_path):
    listed = tmp_path / "list.txt"
    one, two = album / "02.flac", album / "cd2"
    listed.write_text(f"#EXTM3U\n#EXTINF:1,#\n{one}\n\n # cd 2\n  {two}  \n")
    assert find_inputs([], listed) == [Input(one), Input(two / "01.mp3")]
    long = "a" * 300 + ".wav"
    listed.write_bytes(f"\ufeffa.wav\r\n{long}\r\n".encode())  # from Windows
    assert find_inputs([], listed) == [Input(Path("a.wav")), Input(Path(long))]
    for name in (names := [" a.wav ", "b\u2028c.wav"]):
        (tmp_path / name).touch()
    listed.write_text("\n".join(str(tmp_path / name) for name in names))
    assert [each.path.name for each in find_inputs([], listed)] == names
    listed.write_text("# gs://old\na.wav\n gs://bucket/song.wav\n")
    with pytest.raises(UserError, match=r"list.txt: gs://bucket/song.wav is a URL; expected local"):
        find_inputs([], listed)


def test_the_results_in_a_folder_are_no_songs(album):
    """So the same command may be given again."""
    songs = find_inputs([album])
    out = album / "stems"
    (out / "01").mkdir(parents=True)
    (out / "01" / "vocals.wav").write_bytes(b"x")
    assert find_inputs([album], out=out) == songs
    assert find_inputs([album], out=album / "cd2" / ".." / "stems") == songs
    assert len(find_inputs([album])) == len(songs) + 1
    with pytest.raises(UserError, match=r"stems: is an input, .*; choose another --out"):
        find_inputs([out], out=out)


def test_links_are_followed_and_what_has_two_names_is_taken_once(album):
    songs = find_inputs([album])
    (album.parent / "links").mkdir()
    (album.parent / "links" / "album").symlink_to(album)
    (album / "itself").symlink_to(album)
    linked = find_inputs([album.parent / "links"])
    assert [each.folder for each in linked] == [Path("album") / each.folder for each in songs]
    assert find_inputs([album, album / ".." / album.name]) == songs


def test_a_link_to_itself_is_no_traceback(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    inputs = find_inputs([tmp_path / "loop"])
    plan_jobs(inputs, tmp_path / "loop", stems=["vocals"], extension="wav")


def test_no_input_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "song.txt").write_bytes(b"RIFF\0\0\0\0")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (([], None), "no input; expected at least one audio file"),
        (
            ([tmp_path / "empty"], None),
            "empty: no file in this folder has the ending of an audio file",
        ),
        (([], tmp_path / "gone.txt"), "gone.txt: cannot be read: No such file"),
        (([], tmp_path / "song.txt"), "song.txt: not UTF-8 text; expected one path per line"),
        (([], tmp_path / "notes.txt"), "notes.txt: not UTF-8 text; expected one path per line"),
    ]:
        with pytest.raises(UserError, match=message):
            find_inputs(*arguments)


@pytest.mark.parametrize(
    ("name", "stems", "expected"),
    [
        ("{track}_{stem}.{ext}", BOTH, "out/{b}_vocals.mp3"),
        ("{stem}/{folder}/{track}.{ext}", BOTH, "out/vocals/cd2/{b}.mp3"),
        ("acapella/{track}.{ext}", ("vocals",), "out/acapella/{b}.mp3"),
        ("{file}/{stem}.{ext}", BOTH, "out/{b}.wav/vocals.mp3"),
    ],
)
def test_names_follow_the_template(name, stems, expected):
    """Braces in a song's own name stand for themselves."""
    [job] = plan_jobs(
        [Input(Path("a/{b}.wav"), Path("cd2"))],
        Path("out"),
        stems=stems,
        extension="mp3",
        name=name,
    )
    assert job.outputs["vocals"] == Path(expected)
    assert set(job.outputs) == set(stems)


@pytest.mark.parametrize(
    "name",
    [
        "{title}/{stem}",
        "{stem:d}.{ext}",
        "{}/{stem}",
        "{track}.{ext}",
        "{track",
        "{track[a]}/{stem}",
        "/{track}/{stem}.{ext}",
        "../{track}/{stem}.{ext}",
        "{track}/{stem}/",
        "",
    ],
)
def test_bad_templates_are_refused(name):
    with pytest.raises(UserError) as error:
        plan_jobs([Input(Path("a.wav"))], Path("out"), stems=BOTH, extension="wav", name=name)
    message = str(error.value)
    assert message.startswith(f"name is {name!r}; expected a path below --out")
    assert "{folder}, {track}, {file}, {stem}, {ext}" in message


def test_several_folders_keep_their_own_names(album, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "02.flac").write_bytes(b"x")
    jobs = plan_jobs(
        find_inputs([album, tmp_path / "more"]), Path("out"), stems=("vocals",), extension="wav"
    )
    assert [str(job.outputs["vocals"]) for job in jobs] == [
        "out/album/01/vocals.wav",
        "out/album/02/vocals.wav",
        "out/album/cd2/01/vocals.wav",
        "out/more/02/vocals.wav",
    ]
    monkeypatch.chdir(album)
    assert [each.folder.parts[0] for each in find_inputs([Path(), tmp_path / "more"])] == [
        *["album"] * 3,
        "more",
    ]
    # The same folder twice is one.
    assert find_inputs([album, album / "cd2" / ".."])[0] == Input(album / "01.WAV")


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (Input(Path("x/a.wav")), Input(Path("y/A.mp3")), DEFAULT_NAME),
        (Input(Path("a.wav"), Path("x")), Input(Path("a.wav"), Path("y")), "{track}/{stem}.{ext}"),
    ],
)
def test_two_results_of_one_name_are_refused(first, second, name):
    with pytest.raises(UserError) as error:
        plan_jobs([first, second], Path("out"), stems=BOTH, extension="wav", name=name)
    message = str(error.value)
    assert message.startswith(f"{second.path}: its result out/")
    assert f"is also that of {first.path}; expected a --name that differs" in message


def test_an_input_is_never_replaced_and_no_result_leaves_the_folder(tmp_path):
    for inputs in (
        [Input(tmp_path / "a.wav"), Input(tmp_path / "a" / "vocals.wav")],
        [Input(Path("...wav"))],
    ):
        with pytest.raises(UserError, match="would replace an input or lie outside"):
            plan_jobs(inputs, tmp_path, stems=BOTH, extension="wav")


def test_an_earlier_runs_results_are_refined(tmp_path):
    """Found by the template, in whatever format they are."""
    for name in ("a/vocals.mp3", "b/vocals.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    inputs = [Input(Path("a.wav")), Input(Path("b.wav"))]
    kwargs = {"stems": ("accompaniment",), "extension": "flac"}
    expected = [tmp_path / "a/vocals.mp3", tmp_path / "b/vocals.wav"]
    jobs = plan_jobs(inputs, Path("out"), refine=tmp_path, **kwargs)
    assert [job.refine for job in jobs] == expected
    (tmp_path / "b/vocals.wav").unlink()  # the job of b alone will fail
    jobs = plan_jobs(inputs, Path("out"), refine=tmp_path, **kwargs)
    assert [job.refine for job in jobs] == expected
    with pytest.raises(UserError, match=r"no vocals to refine; expected .*b/vocals.wav or"):
        plan_jobs(inputs[1:], Path("out"), refine=tmp_path, **kwargs)


def slurm(task, first, last, count):
    numbers = {"ID": task, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


@pytest.mark.parametrize("first", [0, 1])
def test_a_job_array_takes_every_shard_once(first):
    shards = [shard_of_job(slurm(first + i, first, first + 4, 5)) for i in range(5)]
    assert shards == [Shard(i, 5) for i in range(5)]
    assert shard_of_job(slurm(3, 3, 3, 1)) == Shard(0, 1)  # one job of an array again, alone
    assert shard_of_job({}) is None
    assert [str(parse_shard(text)) for text in ("0/1", "7/8")] == ["0/1", "7/8"]


@pytest.mark.parametrize("text", ["4/4", "1", "1/", "-1/4", "0/0", "1/2/3", "a/b"])
def test_bad_shards_are_refused(text):
    with pytest.raises(UserError, match=f"shard is {text}; expected I/N with I from 0"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (slurm(4, 0, 28, 8), "SLURM_ARRAY_TASK_ID is 4, of 8 jobs from 0 to 28; expected an array"),
        ({"JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX is 2.* --shard 2/N"),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "1"}, "SLURM_STEP_NUM_TASKS=8, so this is"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4, so this is one of several"),
    ],
)
def test_one_of_several_processes_without_a_shard_is_refused(environment, message):
    """Each would do all of the work, or some songs would be nobody's."""
    with pytest.raises(UserError, match=message):
        shard_of_job(environment)


def test_files_of_a_folder_without_a_known_ending_are_counted(album, capsys):
    (album / "cd2" / "link").symlink_to(album / "nowhere")
    assert len(find_inputs([album])) == 3
    error = capsys.readouterr().err
    assert error.startswith("note: 2 file(s) in folders skipped, such as")
    assert str(album / "cover.jpg") in error
    assert error.count("\n") == 1
