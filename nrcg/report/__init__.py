"""Claims, tables, comparison with the paper, costs: text made of files."""
