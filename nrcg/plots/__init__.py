"""Figures, grids and tables, drawn from tidy CSV files."""
