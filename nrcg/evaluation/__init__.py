"""All that measures: the forward process, feature extractors, distances, scores."""
