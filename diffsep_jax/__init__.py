"""Generative music source separation in JAX."""
