"""Landmark detectors: one module each."""
