"""Score-level fusion: from the (detector x region) matrix of log-odds to one number per face.

Tolosana et al. (EAAI 2022, section 5.3) fuse the detectors' scores, and the regions' scores.
``training.py`` trains fusions; scoring needs nothing of it.
"""
