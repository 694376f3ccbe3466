"""One offline page about runs: what was made, how good and how fast it is, and how one knows."""

from drivedistill.report.page import write_report

__all__ = ["write_report"]
