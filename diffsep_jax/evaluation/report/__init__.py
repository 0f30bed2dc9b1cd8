"""A result as one HTML page, to read, to look at and to listen to."""

from diffsep_jax.evaluation.report.page import write_report

__all__ = ["write_report"]
