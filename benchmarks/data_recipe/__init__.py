"""What songs and augmentations teach, by short trainings of one network."""
