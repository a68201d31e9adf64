"""Figures, grids and tables, drawn from tidy CSV files and sample shards.

`figures` holds them by name. All take the paths to write first, and keyword arguments that are plain JSON values; all
raise NrcgError, which names the file and column, setup or key that does not fit.
"""

from nrcg.registry import Registry

figures = Registry("figure")
