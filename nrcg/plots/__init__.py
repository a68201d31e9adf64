"""Figures, grids and tables, drawn from tidy CSV files and sample shards; `figures` holds them by name."""

from nrcg.registry import Registry

figures = Registry("figure")
