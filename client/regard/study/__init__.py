"""Numbers of heads over a data set: asked for in order, kept in a folder, summed up, compared and shown."""

from regard.study.drift import Drift, compare
from regard.study.report import write_report
from regard.study.results import Study

__all__ = ["Drift", "Study", "compare", "write_report"]
