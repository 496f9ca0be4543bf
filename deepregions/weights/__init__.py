"""Weights that others trained, and bundles of our own."""
