"""Forged faces made from genuine ones: in batches, on the device, driven by landmarks.

A method (one module each) gives what is blended into what, and where; :class:`Forger` runs methods
over batches and gives pairs that differ in the forgery only.
"""

from deepregions.forge.forger import METHODS as METHODS
from deepregions.forge.forger import ForgedBatch as ForgedBatch
from deepregions.forge.forger import Forger as Forger
from deepregions.forge.forger import draw_parts as draw_parts
from deepregions.forge.forger import make_method as make_method
