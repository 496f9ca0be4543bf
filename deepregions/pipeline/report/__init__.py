"""What is left of an analysis for people: the page, the index, the table, the annotated video."""

from deepregions.pipeline.report.index import index_row, write_index
from deepregions.pipeline.report.page import write_page
from deepregions.pipeline.report.table import CsvTable
from deepregions.pipeline.report.video import annotate_video

__all__ = ["CsvTable", "annotate_video", "index_row", "write_index", "write_page"]
