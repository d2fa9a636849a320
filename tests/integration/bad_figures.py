"""A plug-in of figures, of which one keeps its contract; used by test_plugins.py."""

from __future__ import annotations

from dataclasses import replace

from jepa_lab.figures.runs.base import FIGURES, RunFigure
from jepa_lab.figures.style import Drawing, empty_figure


def registered(registry, name):
    return registry.register(name, summary="bad", source="test")


@registered(FIGURES, "good_figure")
class GoodFigure(RunFigure):
    def drawings(self, seen):
        return [Drawing("mine", "Mine", "A figure of a third party.", lambda theme: empty_figure(2.0, theme.width))]


@registered(FIGURES, "single_figure")
class SingleFigure(GoodFigure):
    def drawings(self, seen):
        return super().drawings(seen)[0]


@registered(FIGURES, "empty_figure")
class EmptyFigure(GoodFigure):
    def drawings(self, seen):
        return []


@registered(FIGURES, "taking_figure")
class TakingFigure(GoodFigure):
    def drawings(self, seen):
        return [replace(each, name="masks") for each in super().drawings(seen)]


@registered(FIGURES, "raising_figure")
class RaisingFigure(GoodFigure):
    def drawings(self, seen):
        return [replace(each, name="raising", draw=self.fail) for each in super().drawings(seen)]

    def fail(self, theme):
        raise ZeroDivisionError("no paper of mine")
