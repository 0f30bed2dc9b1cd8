"""The page of `diffsep app`, driven as programs drive it, with a model that halves its input."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from app_server import wait_until
from halving import noise, song

from diffsep_jax.audio.read import read_audio
from diffsep_jax.inference.settings import PRESETS, REFINE, SamplerSettings

pytest.importorskip("gradio", reason="needs the extra app")

import httpx
from gradio_client import Client, handle_file

ROOT = Path(__file__).parents[1]
EMPTY = [""] * 7


@pytest.fixture
def visit(served):
    """Makes clients, each with a session of its own. At the end their files are gone."""
    url, folder = served
    clients = []

    def visit():
        clients.append(Client(url, verbose=False))
        return clients[-1]

    yield visit
    for client in clients:
        client.close()
    wait_until(lambda: not results(folder))


def separate(client, path, *, preset="balanced", extension="wav", advanced=EMPTY):
    """The status line and the result's HTML."""
    given = path and handle_file(path)
    status, result, *_ = client.predict(extension, given, preset, *advanced, api_name="/separate")
    return status, result if isinstance(result, str) else None  # not changed


def refine(client, start_sigma=0.3):
    _, result, *_ = client.predict("wav", start_sigma, *EMPTY, api_name="/refine")
    return result


def sounds(result):
    """Name -> samples of the sounds in a result's HTML."""
    paths = re.findall(r'src="gradio_api/file=(.*?)"', result)
    assert len(paths) == 3
    return {Path(path).stem: read_audio(urllib.parse.unquote(path))[0] for path in paths}


def results(folder):
    """The folders of results, and of what is under way."""
    return {path.parent for path in folder.glob("temporary/*/song")}


def fetch(url, path):
    return httpx.get(f"{url}gradio_api/file={path}").status_code


def test_a_song_is_separated_and_refined(served, visit, tmp_path):
    url, folder = served
    client = visit()
    status, result = separate(client, song(tmp_path / "a & b.wav"), extension="flac")
    assert re.fullmatch(r"0:00\.5 of audio in \d+\.\d s", status)
    assert 'download="a &amp; b vocals.flac"' in result
    first = sounds(result)
    np.testing.assert_allclose(first["vocals"], first["mixture"] / 2, atol=2e-7)
    np.testing.assert_allclose(first["accompaniment"], first["mixture"] / 2, atol=2e-7)
    assert (folder / "settings").read_text() == f"{PRESETS['balanced']} False"
    [before] = results(folder)
    assert fetch(url, before / "vocals.flac") == 200
    second = sounds(refine(client, 0.25))
    settings = dataclasses.replace(REFINE, start_sigma=0.25)
    assert (folder / "settings").read_text() == f"{settings} True"
    np.testing.assert_allclose(second["mixture"], first["mixture"], atol=2e-7)
    assert fetch(url, before / "vocals.flac") == 403
    assert len(results(folder)) == 1


@pytest.mark.parametrize("extension", ["flac", "mp3", "ogg", "opus", "m4a"])
def test_stems_in_other_formats_are_refined_too(visit, tmp_path, extension):
    client = visit()
    _, result = separate(client, song(tmp_path / "a.wav", rate=48_000), extension=extension)
    assert result.count(f' vocals.{extension}"') == 1
    assert {len(audio) for audio in sounds(result).values()} == {20_011}
    assert {len(audio) for audio in sounds(refine(client)).values()} == {20_011}


def test_options_reach_the_sampler(served, visit, tmp_path):
    advanced = ["7", "0.1", "0", "3", "0.9", "2", "5"]
    separate(visit(), song(tmp_path / "a.wav"), preset="paper", advanced=advanced)
    settings = SamplerSettings(
        steps=7, eta=0.1, cutoff_hz=0.0, schedule=3.0, temperature=0.9, ensemble=2, seed=5
    )
    assert (served[1] / "settings").read_text() == f"{settings} False"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path.write_text("no audio"), {}, "a.wav: not an audio file that can be read"),
        (lambda path: path.write_text(""), {}, "a.wav: the file is empty"),
        (lambda path: song(path, noise(44_100 * 4, 1)), {}, "a.wav: its length is 0:04.0; expect"),
        (song, {"preset": "fast", "advanced": ["3", *EMPTY[1:]]}, "preset fast does not use steps"),
        (song, {"advanced": ["0", *EMPTY[1:]]}, "steps is 0; expected 1 to"),
        (song, {"advanced": ["x", *EMPTY[1:]]}, "steps is &#x27;x&#x27;; expected a whole number"),
        (None, {}, "no song; expected one"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(served, visit, tmp_path, make, options, message):
    path = tmp_path / "a.wav" if make else None
    if make:
        make(path)
    status, result = separate(visit(), path, **options)
    assert status.startswith(f"<strong>{message}")
    assert "temporary" not in status
    assert result is None
    assert results(served[1]) == set()


def test_a_large_file_is_not_taken(served):
    files = {"files": ("a.wav", bytes(10**6 + 1))}
    assert httpx.post(f"{served[0]}gradio_api/upload", files=files).status_code == 413


def test_only_the_temporary_folder_can_be_read(served, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    paths = "/etc/passwd", "../../../../etc/passwd", "%2Fetc%2Fpasswd", "/proc/self/environ"
    for path in (*paths, secret, ROOT / "README.md", "README.md", served[1] / "hosts"):
        assert fetch(served[0], path) in (403, 404), path


def test_a_file_elsewhere_is_no_song(served, tmp_path):
    given = {"path": str(song(tmp_path / "a.wav")), "meta": {"_type": "gradio.FileData"}}
    url = f"{served[0]}gradio_api/call/separate"
    event = httpx.post(url, json={"data": ["wav", given, "fast", *EMPTY]}).json()["event_id"]
    assert httpx.get(f"{url}/{event}").text.startswith("event: error")


def test_two_visitors_have_their_own_results(served, visit, tmp_path):
    ours, theirs = visit(), visit()
    audio = noise(20_000, 1)
    separate(ours, song(tmp_path / "a.wav", audio))
    separate(theirs, song(tmp_path / "b.wav", -audio))
    assert len(results(served[1])) == 2
    np.testing.assert_allclose(sounds(refine(ours))["mixture"], audio, atol=1e-4)
    assert len(results(served[1])) == 2


def test_cancelling_leaves_nothing_and_the_next_has_its_turn(served, visit, tmp_path):
    url, folder = served
    (folder / "settings").unlink(missing_ok=True)
    (folder / "wait").touch()
    given = handle_file(song(tmp_path / "a.wav"))
    first, second = visit(), visit()
    running = first.submit("wav", given, "best", *EMPTY, api_name="/separate")
    wait_until((folder / "settings").exists)
    next_one = second.submit("wav", given, "fast", *EMPTY, api_name="/separate")
    wait_until(lambda: next_one.status().rank == 0)
    assert len(results(folder)) == 1
    cancel = {"session_hash": first.session_hash, "event_id": running.communicator.event_id}
    with ThreadPoolExecutor() as executor:
        executor.submit(httpx.post, f"{url}gradio_api/cancel", json=cancel | {"fn_index": 0})
        time.sleep(1)  # it answers when the model has done its chunks
        (folder / "wait").unlink()
    status, *_ = next_one.result(timeout=30)
    assert "of audio in" in status
    assert len(results(folder)) == 1


def test_no_connection_leaves_the_machine(served, visit, tmp_path):
    separate(visit(), song(tmp_path / "a.wav"))
    assert set((served[1] / "hosts").read_text().split()) == {"127.0.0.1"}


@pytest.mark.slow
def test_the_command_listens_here_alone_and_removes_its_folder(tmp_path):
    command = [sys.executable, "-m", "diffsep_jax", "app"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        url = process.stdout.readline().split()[0]
        assert httpx.get(url).status_code == 200
        assert len(list(tmp_path.glob("diffsep-app-*"))) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", httpx.URL(url).port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list(tmp_path.glob("diffsep-app-*"))
