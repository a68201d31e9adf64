"""Figures, grids and tables, drawn from tidy CSV files and sample shards; `figures` holds them by name.

All take `outputs` first: paths, whose suffix is the format: .png and .pdf of figures, .csv (plain numbers, shares 0…1),
.md, .tex (with booktabs) and .html of tables. Keyword arguments are plain JSON values, and mean the same in all:

    csv, scores    collected scores: columns dataset, setup, scale, metric, value, stderr, n, n_diverged, features
    dataset        which data set of that file; None takes its only one
    setups         rows of setups (YAML): labels, looks, classifiers and stabilisers
    paper          the paper's numbers (TSV): columns dataset, setup, scale (blank if unguided), metric, value
    target         name of the class asked for
    title, note    above the figure, or the table's caption; lines of small print, such as the size of the run
    style          matplotlib style file on top of the project's; figures alone

All raise NrcgError, which names the file and column, setup or key that does not fit.
"""

from nrcg.registry import Registry

figures = Registry("figure")
