"""Diff-DMX-RT-extra: `diff_dmx_rt_musdb`, trained on MUSDB18-HQ and 400 h of further songs.

    python train.py diff_dmx_rt_extra --workdir runs/rt_extra --data.source SONGS

The paper's further songs are private. Its figure, utterance SDR 8.77, is not ours: not run by us.
"""

from configs.diff_dmx_rt_musdb import get

__all__ = ["get"]
