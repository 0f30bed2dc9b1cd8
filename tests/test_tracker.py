"""Trackers: what they are called with, and what a run does when they fail."""

import dataclasses
import json
import sys
from unittest import mock

import pytest
from runs import VALIDATED, VALIDATION, assert_equal, records, run

import train
from diffsep_jax.errors import UserError
from diffsep_jax.training.tracker import load_tracker

MODULE = """
calls = []

def start(config):
    calls.append(("start", config))

def log(step, metrics):
    calls.append(("log", step, metrics))

def finish():
    calls.append(("finish",))

class Each:
    start, log, finish = map(staticmethod, (start, log, finish))

class Half:
    start, log = map(staticmethod, (start, log))

class Broken:
    def __init__(self):
        raise OSError("no\\nnetwork")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_tracker.py").write_text(MODULE)
    (tmp_path / "bad_tracker.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield load_tracker("my_tracker")
    load_tracker("my_tracker").calls.clear()


class Failing:
    """Fails in one function."""

    def __init__(self, failing):
        self.failing, self.calls = failing, []

    def start(self, config):
        self.call("start")

    def log(self, step, metrics):
        self.call("log")

    def finish(self):
        self.call("finish")

    def call(self, function):
        self.calls.append(function)
        if function == self.failing:
            raise ConnectionError("no route\nto host")


def test_a_tracker_gets_every_record_of_the_log(toy, tmp_path, module):
    workdir = tmp_path / "run"
    run(workdir, VALIDATED, validation=VALIDATION, tracker=module)
    (_, config), *logged, last = module.calls
    assert config == json.loads((workdir / "run_config.json").read_text()) | {
        "workdir": str(workdir)
    }
    json.dumps(config)
    assert last == ("finish",)
    for kind in ("train", "validation"):
        expected = [
            (r["step"], {f"{kind}/{name}": r[name] for name in r.keys() - {"step", "kind", "time"}})
            for r in records(workdir, kind)
        ]
        assert expected
        assert [
            (step, metrics) for _, step, metrics in logged if next(iter(metrics)).startswith(kind)
        ] == expected

    module.calls.clear()  # a run that goes on, and is ended by an exception
    longer = dataclasses.replace(VALIDATED, num_steps=VALIDATED.num_steps + 2)

    def broken(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(workdir, longer, batches=broken, tracker=module)
    assert [call[0] for call in module.calls] == ["start", "finish"]


def test_a_tracker_that_does_not_start_ends_the_run_in_one_line(toy, tmp_path):
    tracker = Failing("start")
    with pytest.raises(UserError, match="tracker does not start: ConnectionError: no route; rep"):
        run(tmp_path, tracker=tracker)
    assert tracker.calls == ["start"]
    assert not records(tmp_path)


@pytest.mark.parametrize("failing", ["log", "finish"])
def test_a_tracker_that_fails_later_is_reported_and_changes_nothing(
    toy, tmp_path, undisturbed, capsys, failing
):
    tracker = Failing(failing)
    _, state = undisturbed
    assert_equal(run(tmp_path, VALIDATED, validation=VALIDATION, tracker=tracker), state)
    number = len(records(tmp_path)) + len(records(tmp_path, "validation"))
    assert tracker.calls == ["start", *["log"] * number, "finish"]
    reported = capsys.readouterr().out.count("the tracker failed, the run goes on: ConnectionErr")
    assert reported == (number if failing == "log" else 1)


@pytest.mark.parametrize("name", ["my_tracker", "my_tracker:Each"])
def test_a_module_or_a_class(module, name):
    tracker = load_tracker(name)
    tracker.start({})
    tracker.log(1, {"train/loss": 2.0})
    tracker.finish()
    assert [call[0] for call in module.calls] == ["start", "log", "finish"]


def test_the_example_for_weights_and_biases(monkeypatch):
    """With a stub, as the package is large; it shows which calls are made."""
    wandb = mock.Mock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delitem(sys.modules, "docs.track_wandb", raising=False)
    config = {"workdir": "runs/first", "fixed": {}}
    tracker = load_tracker("docs.track_wandb")
    tracker.start(config)
    tracker.log(3, {"train/loss": 2.0})
    tracker.finish()
    assert wandb.mock_calls == [
        mock.call.init(project="diffsep", group="runs/first", dir="runs/first", config=config),
        mock.call.log({"train/loss": 2.0}, step=3),
        mock.call.finish(),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing_of_that_name:a", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("my_tracker:nothing", "cannot be loaded: AttributeError: module 'my_tracker' has no"),
        ("my tracker", "cannot be loaded: ValueError: invalid format"),
        ("bad_tracker:a", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("my_tracker:Broken", "cannot be loaded: OSError: no$"),
        ("my_tracker:Half", r"is a Half; expected functions start\(config\), log\(step, metrics\)"),
    ],
)
def test_what_is_no_tracker_ends_the_run_before_the_data_is_prepared(
    module, tmp_path, monkeypatch, name, message
):
    monkeypatch.setattr(train, "open_data", pytest.fail)
    monkeypatch.setattr(train.signal, "signal", lambda *_: None)
    with pytest.raises(UserError, match=f"^tracker {name} {message}"):
        train.main(["tiny", "--workdir", str(tmp_path / "run"), "--tracker", name])


def test_the_option_is_passed_on(module, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(train.signal, "signal", lambda *_: None)
    monkeypatch.setattr(train, "open_data", lambda *_: ([], {0: None, 1: None}))
    monkeypatch.setattr(train, "train", lambda *_, tracker, **__: given.append(tracker))
    with pytest.raises(AttributeError):  # there is no state to export
        train.main(["tiny", "--workdir", str(tmp_path / "run"), "--tracker", "my_tracker"])
    assert given == [module]
