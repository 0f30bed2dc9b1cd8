"""Look before you train: tables of a data set's songs, and a page of training examples.

`train.py CONFIG --inspect PAGE` calls `report` with the run's own songs and pipeline.
"""
