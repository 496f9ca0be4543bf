"""Tell manipulated faces from genuine ones, region by region."""

from importlib.metadata import version

__version__ = version("deepregions")
