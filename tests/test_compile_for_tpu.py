"""Compiling for TPUs without one: topologies, communication, FLOPs, memory, exit status."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import micro
import micro_config
import pytest

from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.step import train_program
from launch import compile_for_tpu
from launch.compile_for_tpu import Command, collectives, flops_by_part, lower, tpu_devices

# It has no build for some platforms; where it has one, `make test` installs it.
needs_libtpu = pytest.mark.skipif(
    not compile_for_tpu.has_libtpu(), reason="the TPU compiler, libtpu, is not installed"
)

FSDP = dataclasses.replace(micro.TRAIN, mesh=MeshConfig(data=2, fsdp=4, min_shard_size=64))


def command(program, model=micro.MODEL, train=micro.TRAIN, batch=2):
    return Command(
        config="micro",
        topology="v5e:2x4",
        program=program,
        per_device_batch=batch,
        model=compile_for_tpu.for_tpu(model),
        train=train,
    )


@pytest.fixture(params=micro.FAMILIES)
def model(request):
    return dataclasses.replace(micro.FAMILIES[request.param], compute=Compute(dtype="bfloat16"))


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        (
            "  %ag.1 = bf16[16,64]{0,1:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=1,"
            " replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={1}",
            "all-gather",
            2 * 16 * 64,
        ),
        (
            "  ROOT %ar = (f32[16]{0}, /*index=1*/s32[]{:T(128)}, pred[3]{0}) all-reduce(%a, %b,"
            " %c), replica_groups={}, to_apply=%add",
            "all-reduce",
            4 * 16 + 4 + 3,
        ),
        ("  %a2a = s4[3,5] all-to-all(%p), replica_groups=[1,8]<=[8]", "all-to-all", 8),
        ("  %cpd = f32[8]{0} collective-permute-done(%cps)", "collective-permute", 32),
    ],
)
def test_a_collective_is_read_from_its_line(line, kind, size):
    assert collectives(line) == {kind: [size]}


@pytest.mark.parametrize(
    "line",
    [
        "  %cps = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}) collective-permute-start(%p)",
        "  %fusion = f32[8]{0} fusion(%all-gather.3), kind=kLoop, calls=%all-reduce-scatter",
        "%all-reduce.clone (p: f32[8]) -> f32[8] {",
    ],
)
def test_the_start_of_a_collective_and_its_mention_do_not_count(line):
    assert collectives(line) == {}


def test_the_pieces_of_a_chain_are_one_collective():
    piece = '  %ag.{} = f32[8] all-gather(%p), frontend_attributes={{chain_id="{}"}}'
    lines = [piece.format(i, chain) for i, chain in enumerate("0010")]
    assert collectives("\n".join(lines)) == {"all-gather": [32, 32]}


def test_flops_are_those_of_the_mathematics():
    """A training step takes about three times the forward pass; twice the batch, twice as many."""
    train, sample, twice = (
        flops_by_part(command(*arguments))
        for arguments in (
            ("train",),
            ("sample",),
            ("sample", micro.MODEL, micro.TRAIN, 4),
        )
    )
    assert 2 < train["each step"] / (sample["once"] + sample["each step"]) < 3.5
    assert twice == pytest.approx({when: 2 * flops for when, flops in sample.items()}, rel=1e-2)


def test_auto_means_what_it_means_on_a_tpu():
    compute = command("sample").model.compute
    assert (compute.attention, compute.convolution) == ("splash", "taps")
    plain = dataclasses.replace(micro.MODEL, compute=Compute(attention="plain"))
    assert compile_for_tpu.for_tpu(plain).compute.attention == "plain"


@pytest.mark.parametrize("name", ["v5e", "cpu", "v9e:2x4", "v5e:2x", "v5e:2x4 "])
def test_an_unknown_topology_is_refused(name):
    with pytest.raises(UserError, match=f"topology is '{name}'; expected .*v5e:2x4"):
        tpu_devices(name)


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(UserError, match=r"no libtpu.*pip install -e '.\[train,tpu\]'"):
        tpu_devices("v5e:2x4")


def test_a_program_of_more_memory_than_the_chip_does_not_fit(capsys):
    compiled = jax.jit(jnp.sin).lower(jnp.zeros(1_000_000)).compile()
    compile_for_tpu.check_memory(compiled, 9e6)
    with pytest.raises(compile_for_tpu.DoesNotFitError, match=r"0\.008 GB of 0\.007 GB"):
        compile_for_tpu.check_memory(compiled, 7e6)
    assert "arguments       0.004 GB" in capsys.readouterr().out


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "hosts"),
    [
        ("v5e:1x1", 1, 1),
        ("v5e:16x16", 256, 64),
        ("v6e:2x4", 8, 2),
        ("v5p:2x2x2", 8, 2),
        ("v4:2x2x2", 8, 2),
    ],
)
def test_the_devices_of_a_topology_are_its_chips(name, devices, hosts):
    found = tpu_devices(name)
    assert (len(found), len({device.process_index for device in found})) == (devices, hosts)
    assert found[0].device_kind in compile_for_tpu.CHIPS


@needs_libtpu
def test_a_slice_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"topology is 'v5e:3x5'.*\(Topology"):
        tpu_devices("v5e:3x5")


@needs_libtpu
@pytest.mark.parametrize("num_slices", [2, 4])
def test_parameters_are_shared_within_slices_and_replicated_across_them(num_slices):
    devices = tpu_devices("v5e:2x2", num_slices)
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2), devices)
    slices = [[device.slice_index for device in shards] for shards in mesh.devices]
    assert slices == [[i // 2] * 2 for i in range(2 * num_slices)]


@needs_libtpu
def test_a_mesh_that_does_not_fit_the_slices_is_refused():
    devices = tpu_devices("v5e:2x2", 2)
    with pytest.raises(UserError, match="data=1 fsdp=8 does not fit 2 slices of 4, 4 devices"):
        make_mesh(MeshConfig(data=1, fsdp=8), devices)
    with pytest.raises(UserError, match="data=6 fsdp=1 does not fit 2 slices of 4, 2 devices"):
        make_mesh(MeshConfig(), devices[:-2])


@needs_libtpu
@pytest.mark.slow
def test_training_gathers_parameters_and_reduces_gradients(model):
    """FSDP's communication and no other: nothing of an activation's size, no all-to-all."""
    lowered, mesh = lower(command("train", model, FSDP), tpu_devices("v5e:2x4"))
    found = collectives(lowered.compile().as_text())
    params = train_program(model, FSDP, mesh).state.params
    split = [leaf for leaf in jax.tree.leaves(params) if "fsdp" in leaf.sharding.spec]
    # Gathered once, in 2 or 4 bytes; the compiler may do one as a reduction or join several.
    gathered = found.pop("all-gather")
    assert len(gathered) <= len(split)
    assert sum(gathered) <= 4 * sum(leaf.size for leaf in split)
    # Of the spectral family the compiler may move a device's part of a gradient to its neighbour.
    moved = found.get("collective-permute", [])
    assert not moved or isinstance(model.generator, SpectralGenerator)
    assert set(moved) <= {4 * leaf.size // FSDP.mesh.fsdp for leaf in split}
    # Each gradient is reduced once over each axis of the mesh, in 4 bytes at most.
    assert set(found) <= {"reduce-scatter", "all-reduce", "collective-permute"}
    elements = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(map(sum, found.values())) <= 2 * 4 * elements + 1024


def run(config, *arguments):
    script = [sys.executable, compile_for_tpu.__file__, config, "--program", "sample", *arguments]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [micro_config.__file__, "tiny_spectral"], ids=["micro", "tiny_spectral"]
)
def test_sampling_fits_and_sends_nothing(config):
    ended = run(config, "--topology", "v5e:2x2", "--per-device-batch", "1")
    assert ended.returncode == 0, ended.stderr
    assert "4 x TPU v5 lite" in ended.stdout
    assert "of 16.000 GB on each device" in ended.stdout
    assert not any(kind in ended.stdout for kind in ("all-gather", "all-reduce", "permute"))


@needs_libtpu
@pytest.mark.slow
def test_what_does_not_fit_ends_in_one_line_and_status_3():
    ended = run("tiny", "--topology", "v5e:1x1", "--per-device-batch", "100000")
    assert ended.returncode == 3
    assert ended.stderr.startswith("does not fit: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--per-device-batch", "0"], "per-device-batch is 0"),
        (["--per-device-batch", "1", "--num-slices", "0"], "num-slices is 0"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        compile_for_tpu.parse(["tiny", "--program", "sample", "--topology", "v5e:1x1", *arguments])
