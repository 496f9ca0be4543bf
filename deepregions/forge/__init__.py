"""Forged faces made from genuine ones: in batches, on the device, driven by landmarks."""

from deepregions.forge.forger import METHODS as METHODS
from deepregions.forge.forger import ForgedBatch as ForgedBatch
from deepregions.forge.forger import Forger as Forger
from deepregions.forge.forger import draw_parts as draw_parts
from deepregions.forge.forger import make_method as make_method
