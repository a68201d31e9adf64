"""Measurements: the forward process, feature extractors, distances, scores."""
