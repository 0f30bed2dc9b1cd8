"""Look before you train: a data set in numbers, and a page of training examples.

`train.py CONFIG --inspect PAGE` calls `report` with the run's own songs and pipeline.
"""
