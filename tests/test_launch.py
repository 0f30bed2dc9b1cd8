"""The scripts for SLURM, with stand-ins for its programs."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def submit(folder, script, programs):
    """Runs a batch script in `folder`, with shell scripts for these programs by their names."""
    for name, program in programs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "42",
        "SLURM_CPUS_PER_TASK": "8",
    }
    command = ["bash", ROOT / "launch" / script, "a b", "--out", "c"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("status", [0, 2, 75])
def test_a_training_job_is_queued_again_if_it_was_preempted(tmp_path, status):
    show = 'for each in "$@"; do echo "$each"; done\n'
    job = submit(tmp_path, "train.sbatch", {"srun": f"{show}exit {status}", "scontrol": show})
    assert (job.returncode, job.stderr) == (status, "")
    given = ["--kill-on-bad-exit=0", "--cpus-per-task=8", ".venv/bin/python", "train.py"]
    given += ["a b", "--out", "c", "--multihost"]
    assert job.stdout.splitlines() == given + ["requeue", "42"] * (status == 75)


def test_a_separating_job_keeps_its_arguments_and_gets_the_signals(tmp_path):
    program = 'for each in "$@"; do echo "$each"; done\nkill -TERM $$'
    job = submit(tmp_path, "separate.sbatch", {".venv/bin/diffsep": program})
    assert (job.returncode, job.stderr) == (-15, "")  # not 143, from a shell in between
    assert job.stdout.split("\n")[:-1] == [
        *("separate", "--device", "gpu", "a b", "--out", "c", "--resume")
    ]
