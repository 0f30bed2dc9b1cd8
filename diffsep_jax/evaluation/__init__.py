"""Scores of separated tracks."""
