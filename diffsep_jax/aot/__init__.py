"""Ahead-of-time compilation for machines that are not here: `python -m diffsep_jax.aot CONFIG`."""
