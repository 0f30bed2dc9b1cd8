"""The development set: real voices over real instrumentals, to score models, never to train on.

It is built locally from Debian packages (`sources`, `packages`). Its parts: voices as they are
(`lines`), spoken or sung; voices pitched to the band (`tonality`, `pitched`); the excerpt
of the demo.
"""
