"""Timed comparisons: each file is a command, `python -m benchmarks.NAME`."""
