"""Kinds of data sets: each is a class, registered where it is defined, whose fields are the keys of a section `images`.

`check()` returns the names of the classes, in the order of the labels, or raises NrcgError, which names the key; it
reads no image. `make(folder, threads)` ends in `write_image_set`, and makes the same bytes with any number of threads.
"""

from pathlib import Path
from typing import Any

from nrcg.datasets.imageset import ImageSet
from nrcg.registry import Registry, call

kinds = Registry("kind of data set")


def check_images(kind: str, settings: Any) -> list[str]:
    """The names of the classes that a section `images` of a config describes; no image is read.

    Raises:
        NrcgError: naming the kind, the key, or the place that is not there.
    """
    return call(kinds[kind], "images", settings).check()


def make_images(kind: str, folder: str | Path, settings: Any, *, threads: int = 0) -> ImageSet:
    """Write the image set that a section `images` describes, decoding in so many threads; 0 is one a core.

    Raises:
        NrcgError: as `check_images`; and naming a file that is missing or damaged, or cannot be written.
    """
    data_set = call(kinds[kind], "images", settings)
    data_set.check()
    return data_set.make(Path(folder), threads)
