"""The figures of two papers, drawn from one's own trainings and evaluations. Needs no torch."""

from noiserobust.report.papers.write import PaperFigure, check_figures, draw_figures

__all__ = ["PaperFigure", "check_figures", "draw_figures"]
