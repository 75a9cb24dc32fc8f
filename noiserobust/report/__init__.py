"""From result folders to one HTML page, tables and figures. Needs no torch.

>>> from noiserobust.report import write_report
>>> write_report(["runs/none"], out="report")  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
noiserobust.errors.MissingFileError: Expected runs/none to be a result folder or a folder that holds some, but ...
"""

from noiserobust.report.write import Report, write_report

__all__ = ["Report", "write_report"]
