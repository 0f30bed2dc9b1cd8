"""Look before you train: a data set in numbers, and a page of training examples."""
