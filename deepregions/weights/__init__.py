"""Bundles of networks, and the import of weights that others trained."""
