"""Diff-DMX-extra: the paper's separator without attention in the conditioner.

    python train.py diff_dmx_extra --workdir runs/extra --data.source SONGS

The conditioner has neither self-attention nor the transformer (71M parameters with the generator).
The paper's figure, utterance SDR 6.00 with 400 h of private songs, is not ours and not run by us.
"""

import dataclasses

from configs import diff_dmx_rt_musdb
from configs.experiment import Experiment
from diffsep_jax.models.waveform.conditioner import Conditioner


def get() -> Experiment:
    """The experiment."""
    base = diff_dmx_rt_musdb.get()
    conditioner = Conditioner(attention_levels=0, transformer_layers=0)
    return dataclasses.replace(base, model=dataclasses.replace(base.model, conditioner=conditioner))
