"""Feature extractors, Fréchet statistics, and the scores of a point: a data set, a setup and a scale."""
