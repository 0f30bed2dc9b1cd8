"""Ahead-of-time compilation: the command, the topologies, the communication in a program."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import micro
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from diffsep_jax.aot import __main__ as command
from diffsep_jax.aot import programs
from diffsep_jax.aot.collectives import by_kind, collectives
from diffsep_jax.aot.compilation import compile_program
from diffsep_jax.aot.topology import find_libtpu, topology
from diffsep_jax.errors import UserError
from diffsep_jax.inference import engine
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.spectral.generator import SpectralGenerator
from diffsep_jax.runtime import CHIPS, Chip
from diffsep_jax.training.program import train_program
from diffsep_jax.training.sharding import MeshConfig

# It has no build for some platforms; where it has one, `make test` installs it.
needs_libtpu = pytest.mark.skipif(
    find_libtpu() is None, reason="the TPU compiler, libtpu, is not installed"
)

FSDP = dataclasses.replace(micro.TRAIN, mesh=MeshConfig(data=2, fsdp=4, min_shard_size=64))


# --- communication, from HLO text ---


@pytest.mark.parametrize(
    ("line", "kind", "size", "group"),
    [
        (
            "  %ag.1 = bf16[16,64]{0,1:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=1,"
            " replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={1}",
            "all-gather",
            2 * 16 * 64,
            4,
        ),
        (
            "  ROOT %ar = (f32[16]{0}, /*index=1*/s32[]{:T(128)}, pred[3]{0}) all-reduce(%a, %b,"
            " %c), replica_groups={}, to_apply=%add",
            "all-reduce",
            4 * 16 + 4 + 3,
            0,
        ),
        (
            "  %rs = f32[4,8]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[4,2]T(1,0),"
            " dimensions={0}, to_apply=%add",
            "reduce-scatter",
            4 * 4 * 8,
            4,
        ),
        ("  %a2a = s4[3,5] all-to-all(%p), replica_groups=[1,8]<=[8]", "all-to-all", 8, 8),
        (
            "  %cp = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start("
            "%p), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            32,
            0,
        ),
        (
            "  %ags = ((f32[2]{0}, f32[3]{0}), (f32[8]{0}, f32[12]{0})) all-gather-start(%p, %q),"
            " replica_groups={{0,1,2,3}}",
            "all-gather",
            4 * 8 + 4 * 12,
            4,
        ),
        ("  %ars = f32[8]{0} all-reduce-start(%p), replica_groups={{0,1}}", "all-reduce", 32, 2),
    ],
)
def test_a_collective_is_read_from_its_line(line, kind, size, group):
    (found,) = collectives(line)
    assert (found.kind, found.bytes, found.group) == (kind, size, group)


@pytest.mark.parametrize(
    "line",
    [
        "  %agd = f32[8]{0} all-gather-done(%ags)",
        "  %fusion = f32[8]{0} fusion(%all-gather.3), kind=kLoop, calls=%all-reduce-scatter",
        "%all-reduce.clone (p: f32[8]) -> f32[8] {",
    ],
)
def test_what_only_names_a_collective_is_none(line):
    assert collectives(line) == []


def test_the_pieces_of_a_chain_are_one_collective():
    piece = "  %ag.{} = f32[8] all-gather(%p), replica_groups={{{{0,1}}}}, frontend_attributes={}"
    chains = ["0", "0", "1", "0"]
    lines = [piece.format(i, f'{{chain_id="{chain}"}}') for i, chain in enumerate(chains)]
    assert by_kind(collectives("\n".join(lines))) == {"all-gather": (2, 64)}


def test_the_collectives_of_a_compiled_shard_map():
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Auto,))

    def function(x):
        whole = jax.lax.all_gather(x, "x", tiled=True)
        part = jax.lax.psum_scatter(jnp.sin(whole), "x", tiled=True)
        return part, jax.lax.psum(x.sum(), "x")

    mapped = jax.shard_map(function, mesh=mesh, in_specs=P("x"), out_specs=(P("x"), P()))
    x = jax.ShapeDtypeStruct((64, 3), jnp.float32, sharding=NamedSharding(mesh, P("x")))
    found = by_kind(collectives(jax.jit(mapped).lower(x).compile().as_text()))
    assert found == {
        "all-gather": (1, 4 * 64 * 3),
        "reduce-scatter": (1, 4 * 8 * 3),
        "all-reduce": (1, 4),
    }


# --- topologies ---


def test_cpu_devices():
    assert len(topology("cpu").devices) == 1
    eight = topology("cpu:8")
    assert (len(eight.devices), eight.hosts, eight.platform) == (8, 1, "cpu")


@pytest.mark.parametrize("name", ["v5e", "tpu", "cpu:0", "v5e:2x", "v5e:2x4 ", "gpu:8"])
def test_an_unknown_topology_is_refused_with_what_is_allowed(name):
    with pytest.raises(UserError, match=r"unknown topology .*cpu:N.*v5e:2x4"):
        topology(name)


def test_more_cpu_devices_than_a_running_jax_has():
    jax.devices()  # starts it
    with pytest.raises(UserError, match="already running with 8 CPU devices"):
        topology("cpu:9")


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(UserError, match=r"no libtpu.*pip install 'diffsep-jax\[tpu\]'"):
        topology("v5e:2x4")


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "hosts", "kind"),
    [
        ("v5e:1x1", 1, 1, "TPU v5 lite"),
        ("v5e:2x4", 8, 2, "TPU v5 lite"),
        ("v5e:16x16", 256, 64, "TPU v5 lite"),
        ("v6e:2x4", 8, 2, "TPU v6 lite"),
        ("v5p:2x2x2", 8, 2, "TPU v5"),
        ("v4:2x2x2", 8, 2, "TPU v4"),
    ],
)
def test_a_tpus_devices_are_its_chips(name, devices, hosts, kind):
    found = topology(name)
    assert (len(found.devices), found.hosts, found.device_kind) == (devices, hosts, kind)
    assert kind in CHIPS


@needs_libtpu
@pytest.mark.parametrize("name", ["v9e:2x4", "v5e:3x5"])
def test_a_tpu_that_does_not_exist(name):
    with pytest.raises(UserError, match=r"unknown topology .*v5e:2x4.*\("):
        topology(name)


# --- programs ---


@pytest.fixture(scope="module")
def cpus():
    return topology("cpu:8").devices


@pytest.fixture(scope="module", params=micro.FAMILIES)
def model(request):
    return micro.FAMILIES[request.param]


def test_training_on_cpus(cpus, model):
    config = dataclasses.replace(FSDP, micro_batches=2)
    program = programs.training(model, config, cpus, per_device_batch=2)
    assert program.batch_size == 16
    assert dict(program.mesh.shape) == {"data": 2, "fsdp": 4}
    found = compile_program(program)
    assert found.flops > 0
    assert found.memory.arguments > 0
    assert found.memory.temporaries > 0
    assert {each.kind for each in found.collectives} == {
        "all-gather",
        "reduce-scatter",
        "all-reduce",
    }


def test_sampling_on_cpus(cpus, model):
    """The chunks are on their own: nothing is sent. Bytes grow with the steps, memory doesn't."""
    few, many = (
        compile_program(programs.sampling(model, cpus[:2], per_device_batch=1, steps=steps))
        for steps in (1, 11)
    )
    assert few.collectives == []
    assert few.memory == many.memory
    assert many.bytes_accessed > 3 * few.bytes_accessed
    assert few.flops < many.flops < 11 * few.flops


def test_a_batch_that_does_not_split_is_refused(cpus):
    config = dataclasses.replace(micro.TRAIN, micro_batches=2)
    with pytest.raises(UserError, match="micro-batches"):
        programs.training(micro.MODEL, config, cpus, per_device_batch=3)


def test_auto_attention_is_that_of_the_devices():
    assert programs.for_platform(micro.MODEL, "cpu").compute.attention == "auto"
    assert programs.for_platform(micro.MODEL, "tpu").compute.attention == "splash"
    plain = dataclasses.replace(micro.MODEL, compute=Compute(attention="plain"))
    assert programs.for_platform(plain, "tpu").compute.attention == "plain"


# --- the command ---


@pytest.fixture(autouse=True)
def compilation_cache():
    """Other tests want what the command turns off."""
    before = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", before)


def run(tmp_path, *arguments):
    """In this process, on the micro model; the exit status and the JSON."""
    path = tmp_path / "found.json"
    status = command.main(["tiny", *arguments, "--json", str(path)])
    return status, json.loads(path.read_text())


@pytest.fixture
def micro_configs(monkeypatch):
    """`tiny`, as small as the tests need it."""
    import configs

    tiny = dataclasses.replace(configs.get("tiny"), model=micro.MODEL, train=FSDP)
    monkeypatch.setattr(configs, "get", lambda name: tiny)


def test_the_command_on_cpus(tmp_path, capsys, micro_configs):
    status, found = run(
        tmp_path, "--topology", "cpu:2", "--program", "sample", "--per-device-batch", "1"
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert found["fits"]
    assert found["devices"] == found["batch_size"] == 2
    assert found["mesh"] == {"data": 2}
    for word in ("jax 0.", "2 x cpu", "data 2", "50 steps", "temporaries", "none"):
        assert word in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["tinny", "--topology", "cpu", "--program", "train", "--per-device-batch", "1"],
        ["tiny", "--topology", "v5e", "--program", "train", "--per-device-batch", "1"],
        ["--topology", "cpu"],
    ],
)
def test_bad_input_is_a_user_error_of_one_line(arguments):
    with pytest.raises(UserError) as error:
        command.main(arguments)
    assert "\n" not in str(error.value)


def test_the_host_s_devices_share_its_memory(tmp_path, capsys, micro_configs, monkeypatch):
    arguments = ["--topology", "cpu:2", "--program", "sample", "--per-device-batch", "1"]
    status, found = run(tmp_path, *arguments)
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (status, found["memory"]["limit"]) == (0, ram / 2)
    assert "this machine's RAM / 2 devices" in capsys.readouterr().out
    assert not jax.config.jax_enable_compilation_cache

    monkeypatch.setattr(command, "memory_of_device", lambda _: 1e3)
    status, found = run(tmp_path, *arguments)
    assert (status, found["fits"]) == (command.EXIT_DOES_NOT_FIT, False)
    assert "of 0.0 MB (this machine's RAM / 2 devices)" in capsys.readouterr().err


def test_a_json_path_that_cannot_be_written_is_refused_before_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "compile_program", pytest.fail)
    arguments = ["tiny", "--topology", "cpu", "--program", "sample", "--per-device-batch", "1"]
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "found.json"):
        with pytest.raises(UserError, match=str(tmp_path)):
            command.main([*arguments, "--json", str(path)])


def test_a_batch_of_nothing_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["tiny", "--topology", "cpu", "--program", "train", "--per-device-batch", "0"])
    assert ended.value.code == 2
    assert "per_device_batch is 0" in capsys.readouterr().err


def test_a_bad_topology_ends_in_one_line_and_status_2():
    arguments = ["small", "--topology", "v5e", "--program", "sample", "--per-device-batch", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "diffsep_jax.aot", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown topology 'v5e'")
    assert ended.stderr.count("\n") == 1


def test_what_does_not_fit_ends_with_status_3(tmp_path, capsys, micro_configs, monkeypatch):
    monkeypatch.setitem(CHIPS, "cpu", Chip(flops=1e12, memory=1e3))
    status, found = run(
        tmp_path, "--topology", "cpu:2", "--program", "sample", "--per-device-batch", "1"
    )
    assert (status, found["fits"]) == (command.EXIT_DOES_NOT_FIT, False)
    assert capsys.readouterr().err.startswith("does not fit: ")


# --- TPUs without TPUs ---


@pytest.fixture(scope="module")
def v5e():
    return topology("v5e:2x4").devices


def in_bfloat16(model):
    return dataclasses.replace(model, compute=Compute(dtype="bfloat16"))


@needs_libtpu
@pytest.mark.slow
def test_training_on_tpus_gathers_parameters_and_reduces_gradients(v5e, model):
    """FSDP's communication and no other: nothing of an activation's size, no all-to-all."""
    model = programs.for_platform(in_bfloat16(model), "tpu")
    program = programs.training(model, FSDP, v5e, per_device_batch=2)
    found = compile_program(program)

    params = train_program(model, FSDP, program.mesh).state.params
    split = [leaf for leaf in jax.tree.leaves(params) if "fsdp" in leaf.sharding.spec]
    split_elements = sum(leaf.size for leaf in split)
    elements = sum(leaf.size for leaf in jax.tree.leaves(params))
    kinds = by_kind(found.collectives)
    assert set(kinds) <= {"all-gather", "reduce-scatter", "all-reduce", "collective-permute"}
    # Of the spectral family the compiler may move a device's part of a gradient to its neighbour.
    moved = [each.bytes for each in found.collectives if each.kind == "collective-permute"]
    assert not moved or isinstance(model.generator, SpectralGenerator)
    assert set(moved) <= {4 * leaf.size // FSDP.mesh.fsdp for leaf in split}
    # Gathered once, in 2 or 4 bytes; the compiler may do one as a reduction or join several.
    count, gathered = kinds["all-gather"]
    assert count <= len(split)
    assert gathered <= 4 * split_elements
    # Each gradient is reduced once over each axis of the mesh, in 4 bytes at most.
    reduced = sum(size for kind, (_, size) in kinds.items() if kind != "all-gather")
    assert reduced <= 2 * 4 * elements + 1024


@needs_libtpu
@pytest.mark.slow
def test_sampling_on_a_tpu_sends_nothing(v5e, model):
    model = programs.for_platform(in_bfloat16(model), "tpu")
    found = compile_program(programs.sampling(model, v5e[:4], per_device_batch=1, steps=50))
    assert found.collectives == []
    params = jax.eval_shape(model.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found.memory.arguments >= 4 * parameters


@needs_libtpu
def test_the_tpus_compiler_says_when_a_program_does_not_fit(tmp_path, capsys, v5e, monkeypatch):
    x = jax.ShapeDtypeStruct(
        (60_000, 60_000), jnp.float32, sharding=NamedSharding(engine.chunk_mesh(v5e), P())
    )
    program = programs.Program(
        function=jax.jit(lambda x: (x @ x) @ x),
        arguments=(x,),
        before_loop=None,
        trips=1,
        mesh=engine.chunk_mesh(v5e),
        batch_size=8,
    )
    monkeypatch.setattr(programs, "sampling", lambda *_: program)
    status, found = run(
        tmp_path, "--topology", "v5e:2x4", "--program", "sample", "--per-device-batch", "1"
    )
    assert (status, found["fits"]) == (command.EXIT_DOES_NOT_FIT, False)
    assert "memory" in found["compiler_says"]
    assert capsys.readouterr().err.startswith("does not fit: ")
