"""A study's answer, its numbers and pictures: one page, and the same for papers and programs."""

from .page import write_report
from .pictures import draw_pictures
from .study import Data, MissingUnit, Picture, StudyReport, Timings

__all__ = ["Data", "MissingUnit", "Picture", "StudyReport", "Timings", "draw_pictures", "write_report"]
