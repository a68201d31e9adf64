"""Image sets on disk, and the kinds of data sets they are made from."""

from importlib import import_module
from pkgutil import iter_modules

from nrcg.datasets.kinds import check_images, kinds, make_images

for module in iter_modules(__path__):  # each kind is registered where it is defined
    import_module(f"{__name__}.{module.name}")

__all__ = ["check_images", "kinds", "make_images"]
