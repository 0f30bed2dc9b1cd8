"""The development set: real voices over real instrumentals, to judge models by, never to train on.

It is built on the spot from Debian packages (`sources`, `packages`). Its parts: voices as they are
(`lines`), spoken or sung; voices pitched to the band (`tonality`, `melody`, `pitched`); the excerpt
of the demo.
"""
