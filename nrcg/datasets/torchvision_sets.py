"""Classification data sets of torchvision, by name, as image sets."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from nrcg.checks import NAME, SEED, Rule, check_fields, listed, maybe, number, whole
from nrcg.datasets.imageset import SPLITS, ImageSet, write_image_set
from nrcg.datasets.kinds import kinds
from nrcg.datasets.names import compare_names, distinct, drawn_split
from nrcg.datasets.pictures import COLOUR, FIT, PLACE, SIZE, batches, fitted, opaque
from nrcg.errors import NrcgError, one_line
from nrcg.io.files import read_card, write_json, writing

PAGE = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{}.html"
OBJECT = Rule("an object with one value per key", lambda value: isinstance(value, Mapping))
OURS = ("root", "train", "download", "transform", "target_transform", "transforms", "loader", "is_valid_file", "what")
UNSAFE = ("LSUN", "LSUNClass")  # they open an unchecked pickle
TRAIN, VALID = ("train", "trainval", "train-standard"), ("val", "valid", "test")  # values of their argument `split`
LABELS = ("targets", "labels", "_labels", "y")  # usual attributes for the labels
KNOWN = {  # names that torchvision reads from the files, needed before the download
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


@kinds.register("torchvision")
@dataclass(frozen=True)
class Torchvision:
    """A data set of torchvision: its train split, then its validation split, or its test split if it has none."""

    name: Annotated[str, NAME]  # class in torchvision.datasets, such as MNIST, FashionMNIST, CIFAR10, SVHN
    source: Annotated[str | Path | None, maybe(PLACE)] = None  # torchvision's folder `root`; None: not yet downloaded
    size: Annotated[int | list[int], SIZE] = 32  # width and height in pixels, or [height, width]
    fit: Annotated[str, FIT] = "resize"  # ignores the aspect ratio; crop: shorter side to fit, then the centre
    padding: Annotated[int, whole(0, 65_536)] = 0  # pixels added at each side before resizing
    background: Annotated[str, COLOUR] = "black"  # colour of padding and transparent pixels: a name, or "#rrggbb"
    classes: Annotated[list[str] | None, maybe(listed(NAME, 2))] = None  # names by label; None: the data set's
    arguments: Annotated[dict[str, Any] | None, maybe(OBJECT)] = None  # more arguments of the class: {split: letters}
    valid_fraction: Annotated[float, number(0, 1, without=(0, 1))] = 0.2  # share per class, if there is only one split
    seed: Annotated[int, SEED] = 0  # seed of this draw

    def __post_init__(self) -> None:
        check_fields("torchvision", self)

    def check(self) -> list[str]:
        _check_arguments(self.name, self._given)
        if self.source is not None and not Path(self.source).is_dir():
            raise NrcgError(f"source {self.source}: no such folder; fetch {self.name} to it with {self._fetch}")
        if self.classes is not None:
            return distinct(self.classes, "classes")
        names = _names(_find(self.name), self._given.get("split")) or KNOWN.get(self.name)
        if names is None and self.source is not None:
            names = _names(self._parts[0])
        if names is None:
            raise NrcgError(f"classes: {self.name} has no class names; give them, in the order of the labels")
        return distinct(names, f"classes of {self.name}; give other names")

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        if self.source is None:
            raise NrcgError(f"source: missing; name a folder with {self.name}, as made by {self._fetch}")
        classes, parts = self.check(), self._parts
        if self.classes is not None and (own := _names(parts[0])):
            compare_names(classes, own, self.name)
        labels = [self._labels(part) for part in parts]
        for own_labels in labels:
            if own_labels.min() < 0 or own_labels.max() >= len(classes):
                wrong = own_labels.min() if own_labels.min() < 0 else own_labels.max()
                raise NrcgError(f"classes: {len(classes)} names, but {self.name} has a label {wrong}; name all classes")
        if drawn := len(parts) == 1:
            split = drawn_split(labels[0], classes, self.valid_fraction, self.seed)
        else:
            split = np.repeat([SPLITS["train"], SPLITS["valid"]], [len(part) for part in parts])
        items = (
            (part, i, label)
            for part, own_labels in zip(parts, labels, strict=True)
            for i, label in enumerate(own_labels)
        )
        return write_image_set(
            folder,
            batches(self._decode, items, n=len(split), size=self.size, title=self.name, threads=threads),
            np.concatenate(labels),
            split,
            name="torchvision",
            classes=classes,
            seed=self.seed if drawn else None,
            parameters={
                "name": self.name,
                "arguments": self._given,
                "padding": self.padding,
                "fit": self.fit,
                "background": self.background,
                "valid_fraction": self.valid_fraction if drawn else None,
            },
        )

    @property
    def _given(self) -> dict[str, Any]:
        return dict(self.arguments or {})

    @property
    def _fetch(self) -> str:
        return f"`nrcg get torchvision {self.name}`"

    @cached_property
    def _parts(self) -> list[Any]:
        """The torchvision objects: train and validation, or the only one."""
        source = Path(self.source or "")
        try:
            parts = list(_open(self.name, source, self._given))
            empty = not all(map(len, parts))
        except Exception as error:  # torchvision raises a dozen kinds
            if isinstance(error, NrcgError):
                raise
            reason = one_line(error).partition(" You can use")[0]  # cuts advice on an argument that nrcg sets
            raise NrcgError(
                f"source {source}: {self.name} cannot be read there ({reason}); fetch it with {self._fetch}"
            ) from None
        if empty:
            raise NrcgError(f"source {source}: {self.name} has no images there; fetch it with {self._fetch}")
        return parts

    def _labels(self, part: Any) -> np.ndarray:
        """int64 N: the object's list if it agrees with the first picture's label, else the label of every picture."""
        first, n = self._pair(part, 0)[1], len(part)
        for name in LABELS:
            try:
                found = np.asarray(getattr(part, name, None))
            except (TypeError, ValueError):
                continue
            if found.shape == (n,) and found.dtype.kind in "iu" and found[0] == first:
                return found.astype(np.int64)
        bar = tqdm(range(n), desc=f"{self.name}: labels", unit=" images")
        return np.array([self._pair(part, i)[1] for i in bar], np.int64)

    def _decode(self, item: tuple[Any, int, int]) -> np.ndarray:
        part, i, label = item
        picture, own = self._pair(part, i)
        if own != label:
            raise NrcgError(f"{self.name}: image {i} has the label {own}, but {label} in the list; fetch it again")
        picture = opaque(picture, self.background)
        return fitted(ImageOps.expand(picture, self.padding, self.background), self.size, self.fit)

    def _pair(self, part: Any, i: int) -> tuple[Image.Image, int]:
        """A picture and its label."""
        try:
            item = part[i]
        except Exception as error:  # any error of torchvision, PIL and others for damaged files
            raise NrcgError(
                f"source {self.source}: image {i} of {self.name} cannot be read ({one_line(error)}); delete its files, "
                f"then run {self._fetch}"
            ) from None
        try:
            picture, label = item
            label = index(label)
        except (TypeError, ValueError):
            picture = label = None
        if not isinstance(picture, Image.Image):
            raise NrcgError(
                f"name {self.name}: the label of image {i} is not an integer; choose a data set of classes, not one of "
                f"captions, boxes, attributes or videos"
            )
        return picture, label


def download_torchvision(name: str, out: str | Path, arguments: Mapping[str, Any]) -> None:
    """Download a data set with torchvision, which checks its files, to the folder `out`, unless it is there.

    `out/NAME.json`, written last, holds the name and the arguments. Raises NrcgError if the download fails; the message
    describes the manual way.
    """
    out, record, given = Path(out), Path(out, f"{name}.json"), dict(arguments)
    _check_arguments(name, given)
    with writing(record):
        out.mkdir(parents=True, exist_ok=True)
    try:
        n = [len(part) for part in _open(name, out, given)]
    except Exception:  # missing or incomplete
        try:
            n = [len(part) for part in _open(name, out, given, download=True)]
        except Exception as error:
            if isinstance(error, NrcgError):
                raise
            known = list(dict.fromkeys(_addresses(vars(_find(name)))))[:4]
            raise NrcgError(
                f"{out}: {name} cannot be fetched ({one_line(error)}); try again later, or get its files by hand from "
                f"{', '.join(known) or PAGE.format(name)} and put them where torchvision looks for them, see "
                f"{PAGE.format(name)}"
            ) from None
    card = {"name": name, "arguments": given, "images": n}
    if not record.exists() or read_card(record) != card:
        write_json(record, card)


def _open(name: str, root: Path, given: Mapping[str, Any], *, download: bool = False) -> Iterator[Any]:
    """The torchvision objects of train and validation, or the only one."""
    thing = _find(name)
    takes = _parameters(thing)
    options = {**given, **({"download": download} if "download" in takes else {})}
    if "train" in takes:
        for train in (True, False):
            yield thing(str(root), train=train, **options)
    elif "split" in takes and "split" not in given:
        for words in (TRAIN, VALID):
            yield _first(thing, str(root), words, options)
    else:
        yield thing(str(root), **options)


def _first(thing: Any, root: str, words: tuple[str, ...], options: dict[str, Any]) -> Any:
    """The object of the first of these splits that the class accepts."""
    for word in words:
        try:
            return thing(root, split=word, **options)
        except ValueError as error:  # of torchvision's verify_str_arg
            if "Unknown value" not in str(error) or word == words[-1]:
                raise


def _find(name: str) -> Any:
    """The class of that name in torchvision.datasets."""
    import torchvision.datasets as known  # imports torch

    names = [each for each in known.__all__ if "root" in _parameters(getattr(known, each)) and each not in UNSAFE]
    if name not in names:
        near = ", ".join(get_close_matches(name, names, n=4, cutoff=0))
        raise NrcgError(f"name {name!r}: no supported data set of torchvision; nearest are {near}")
    return getattr(known, name)


def _parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class, with those of its parents if it passes keyword arguments on."""
    found: dict[str, inspect.Parameter] = {}
    for each in inspect.getmro(thing) if inspect.isclass(thing) else ():
        if "__init__" in vars(each):
            own = inspect.signature(vars(each)["__init__"]).parameters
            found = {key: value for key, value in own.items() if value.kind is not value.VAR_KEYWORD} | found
            if not any(value.kind is value.VAR_KEYWORD for value in own.values()):
                break
    return found


def _check_arguments(name: str, given: Mapping[str, Any]) -> None:
    """Refuse unknown and missing arguments of the class of that name."""
    takes = {key: value for key, value in _parameters(_find(name)).items() if key not in (*OURS, "self")}
    for key in given:
        if key not in takes:
            raise NrcgError(f"arguments: {name} has no {key} here; use {', '.join(takes) or 'none'}")
    for key, value in takes.items():
        if value.default is value.empty and key not in given:
            raise NrcgError(f"arguments: {name} needs {key}, see {PAGE.format(name)}")


def _names(thing: Any, split: Any = None) -> list[str] | None:
    """The class names of a data set's class or object; None if it has none."""
    by_split = getattr(thing, "classes_split_dict", None)  # EMNIST's; its `classes` are those of MNIST
    if inspect.isclass(thing) and by_split:
        names = by_split.get(split)
    else:
        names = getattr(thing, "classes", getattr(thing, "categories", None))
    if not isinstance(names, list | tuple) or not names:
        return None
    return [", ".join(name) if isinstance(name, list | tuple) else str(name) for name in names]  # ImageNet's synonyms


def _addresses(value: Any) -> Iterator[str]:
    """The web addresses among the attributes of a class."""
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _addresses(part)
