"""Songs sung by speech and singing synthesisers over bands of sound fonts."""
