"""Pages to look at and to listen to: one HTML file each, which loads nothing from anywhere."""
