"""What is left of an analysis for people: the page, the table, the annotated video."""

from deepregions.analysis.report.page import write_page
from deepregions.analysis.report.views import HeatMap

__all__ = ["HeatMap", "write_page"]
