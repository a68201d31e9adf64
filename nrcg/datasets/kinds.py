"""Kinds of data sets: registered classes whose fields are the keys of a section `images`.

`check()` returns the class names in the order of the labels, or raises NrcgError, which names the key; it reads no
images. `make(folder, threads)` calls `write_image_set` and makes the same bytes with any number of threads.
"""

from pathlib import Path
from typing import Any

from nrcg.datasets.imageset import ImageSet
from nrcg.registry import Registry, call

kinds = Registry("kind of data set")


def check_images(kind: str, settings: Any) -> list[str]:
    """The class names for a section `images` of a config; reads no images.

    Raises:
        NrcgError: names the kind, the key, or the missing file.
    """
    return call(kinds[kind], "images", settings).check()


def make_images(kind: str, folder: str | Path, settings: Any, *, threads: int = 0) -> ImageSet:
    """Write the image set for a section `images`, with `threads` decoding threads; 0 means one per core.

    Raises:
        NrcgError: as `check_images`; also for a file that is missing, damaged, or cannot be written.
    """
    data_set = call(kinds[kind], "images", settings)
    data_set.check()
    return data_set.make(Path(folder), threads)
