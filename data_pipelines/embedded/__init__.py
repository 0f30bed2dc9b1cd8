"""Songs rendered from a seed by a synthesiser of our own, and the excerpt of a real one."""
