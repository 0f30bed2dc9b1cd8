"""Diff-DMX-RT-extra: the model of `diff_dmx_rt_musdb` on MUSDB18-HQ and 400 h of further songs.

    python train.py diff_dmx_rt_extra --workdir runs/rt_extra --data.source SONGS

The paper's further songs are private. Its figure, utterance SDR 8.77, is not ours: not run by us.
"""

from configs import diff_dmx_rt_musdb
from configs.experiment import Experiment


def get() -> Experiment:
    """The experiment: it differs from `diff_dmx_rt_musdb` in its data alone."""
    return diff_dmx_rt_musdb.get()
