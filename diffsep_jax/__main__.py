"""`python -m diffsep_jax` is the command `diffsep`."""

from diffsep_jax.cli import main

main()
