"""What is left of an analysis for people: the page, the index, the table, the annotated video."""

from deepregions.pipeline.report.index import IndexRow, index_row, write_index
from deepregions.pipeline.report.page import UNCALIBRATED, write_page
from deepregions.pipeline.report.table import CsvTable, write_csv
from deepregions.pipeline.report.video import annotate_video
from deepregions.pipeline.report.views import HeatMap

__all__ = [
    "UNCALIBRATED",
    "CsvTable",
    "HeatMap",
    "IndexRow",
    "annotate_video",
    "index_row",
    "write_csv",
    "write_index",
    "write_page",
]
