"""Data sets as image sets on disk, and the kinds of data sets that they are made of."""

from nrcg.datasets import celeba, celebahq, sportballs  # noqa: F401  (each registers its kind)
from nrcg.datasets.kinds import check_images, kinds, make_images

__all__ = ["check_images", "kinds", "make_images"]
