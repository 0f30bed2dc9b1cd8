"""The vocals of a song by an exported sampler. Needs jax, flatbuffers, safetensors and soundfile.

python run_exported.py FOLDER SONG.wav VOCALS.wav [steps=20 eta=0.4 seed=1 ...]
"""

import json
import sys
from pathlib import Path

import jax.export
import numpy as np
import soundfile as sf
from safetensors.numpy import load_file

folder, song, out = map(Path, sys.argv[1:4])
about = json.loads((folder / "export.json").read_text())
sampler = jax.export.deserialize(bytearray((folder / "sampler.jaxexport").read_bytes()))
program, params = jax.jit(sampler.call), jax.device_put(load_file(folder / "model.safetensors"))
options = dict(option.split("=") for option in sys.argv[4:])
if unknown := options.keys() - {value["name"] for value in about["values"]}:
    sys.exit(f"unknown option {' '.join(unknown)}")
values = {
    value["name"]: np.dtype(value["dtype"]).type(options.get(value["name"], value["default"]))
    for value in about["values"]
}

mixture, rate = sf.read(song, dtype="float32", always_2d=True)
if rate != about["sample_rate"]:
    sys.exit(f"{song}: {rate} Hz, expected {about['sample_rate']} Hz; resample it first")
gain = about["target_rms"] / max(np.sqrt(np.square(mixture, dtype=np.float64).mean()), 1e-8)

# As diffsep separate lays them: chunks that overlap by segment - hop samples, so that the last one
# ends soon after the song; what it lacks is filled with itself.
segment, hop, stride = about["segment"], about["hop"], about["stride"]
spare, batch = max(0, len(mixture) - segment), about["batch_size"] or 1
if hops := -(-spare // hop):
    hop = -(-spare // (stride * hops)) * stride
count = 1 + -(-spare // hop)
track = np.broadcast_to(mixture * np.float32(gain), (len(mixture), 2))  # mono in both channels
# A chunk fades in over what is there: weights that rise in a line.
ramp = (np.arange(segment, dtype=np.float32)[:, None] + 0.5) / (segment - hop)
fade = np.minimum(1, ramp)
vocals = np.zeros(((count - 1) * hop + segment, 2), np.float32)
for first in range(0, count, batch):
    starts = hop * np.arange(first, first + batch, dtype=np.int32)
    chunks = [np.resize(track[start : start + segment], (segment, 2)) for start in starts]
    separated = np.asarray(program(params, np.stack(chunks), starts, values))
    for start, chunk in zip(starts[: count - first], separated, strict=False):
        part = vocals[start : start + segment]
        part += (fade if start else np.float32(1)) * (chunk - part)
vocals = vocals[: len(mixture)] / np.float32(gain)
sf.write(out, vocals if mixture.shape[1] == 2 else vocals.mean(axis=1), rate, subtype="FLOAT")
