"""Forged faces made from genuine ones: in batches, on the device, driven by landmarks.

A method (one module each) gives what is blended into what, and where; :class:`Forge` runs methods
over batches and gives pairs that differ in the forgery only.
"""

from deepregions.data.forge.forging import METHODS as METHODS
from deepregions.data.forge.forging import Forge as Forge
from deepregions.data.forge.forging import Forged as Forged
from deepregions.data.forge.forging import draw_parts as draw_parts
from deepregions.data.forge.forging import make_method as make_method
