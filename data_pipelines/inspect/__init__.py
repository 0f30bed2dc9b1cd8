"""What is in a data set: a table in the terminal, and a page with training examples to hear."""
