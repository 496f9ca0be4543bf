"""The figures of an evaluation, as matplotlib figures: same numbers, same bytes, no global state.

Where something is not defined, such as a curve of one class alone, a figure says so.
"""

from deepregions.evaluation.report.figures.comparisons import bars, cross_matrix, robustness
from deepregions.evaluation.report.figures.curves import (
    calibration_curve,
    det,
    ece_plot,
    histogram,
    roc,
    tippett,
)
from deepregions.evaluation.report.figures.style import alt_text, save, svg_text

__all__ = [
    "alt_text",
    "bars",
    "calibration_curve",
    "cross_matrix",
    "det",
    "ece_plot",
    "histogram",
    "robustness",
    "roc",
    "save",
    "svg_text",
    "tippett",
]
