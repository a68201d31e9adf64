"""Data sets that torchvision knows by name, as image sets: those whose labels are classes."""

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
OBJECT = Rule("an object, a value for each key", lambda value: isinstance(value, Mapping))
OURS = ("root", "train", "download", "transform", "target_transform", "transforms", "loader", "is_valid_file", "what")
UNSAFE = ("LSUN", "LSUNClass")  # they open a pickle that is checked by nothing
TRAIN, VALID = ("train", "trainval", "train-standard"), ("val", "valid", "test")  # what their argument `split` may be
LABELS = ("targets", "labels", "_labels", "y")  # where they keep the labels, most of them
KNOWN = {  # names that only the files hold, of a set that is asked for before it is there
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


@kinds.register("torchvision")
@dataclass(frozen=True)
class Torchvision:
    """A data set of torchvision: its train split, then its validation split, or its test split where it has none."""

    name: Annotated[str, NAME]  # of its class in torchvision.datasets, such as MNIST, FashionMNIST, CIFAR10, SVHN
    source: Annotated[str | Path | None, maybe(PLACE)] = None  # the folder `root` of torchvision; None: not fetched yet
    size: Annotated[int | list[int], SIZE] = 32  # width and height, pixels; or [height, width]
    fit: Annotated[str, FIT] = "resize"  # straight to the size; or crop: the shorter side to fit, then the central part
    padding: Annotated[int, whole(0, 65_536)] = 0  # pixels that are added at each side before
    background: Annotated[str, COLOUR] = "black"  # their colour, also behind what is transparent: a name, or "#rrggbb"
    classes: Annotated[list[str] | None, maybe(listed(NAME, 2))] = None  # names by label; None: the data set's own
    arguments: Annotated[dict[str, Any] | None, maybe(OBJECT)] = None  # more of its class's, such as {split: letters}
    valid_fraction: Annotated[float, number(0, 1, without=(0, 1))] = 0.2  # of each class, where it has one split alone
    seed: Annotated[int, SEED] = 0  # of that draw

    def __post_init__(self) -> None:
        check_fields("torchvision", self)

    def check(self) -> list[str]:
        _check_arguments(self.name, self._given)
        if self.source is not None and not Path(self.source).is_dir():
            raise NrcgError(f"source {self.source}: no such folder; fetch {self.name} into it by {self._fetch}")
        if self.classes is not None:
            return distinct(self.classes, "classes")
        names = _names(_find(self.name), self._given.get("split")) or KNOWN.get(self.name)
        if names is None and self.source is not None:
            names = _names(self._parts[0])
        if names is None:
            raise NrcgError(f"classes: {self.name} itself does not tell their names; give them, in the order of labels")
        return distinct(names, f"classes of {self.name}, give other names")

    def make(self, folder: Path, threads: int = 0) -> ImageSet:
        if self.source is None:
            raise NrcgError(f"source: none; name a folder with {self.name}, as {self._fetch} fetches it")
        classes, parts = self.check(), self._parts
        if self.classes is not None and (own := _names(parts[0])):
            compare_names(classes, own, self.name)
        labels = [self._labels(part) for part in parts]
        for own_labels in labels:
            if own_labels.min() < 0 or own_labels.max() >= len(classes):
                wrong = own_labels.min() if own_labels.min() < 0 else own_labels.max()
                raise NrcgError(f"classes: {len(classes)} names, but {self.name} has a label {wrong}; name every class")
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
        """The objects of torchvision: train and validation, or one alone."""
        source = Path(self.source or "")
        try:
            parts = list(_open(self.name, source, self._given))
            empty = not all(map(len, parts))
        except Exception as error:  # torchvision raises a dozen kinds
            if isinstance(error, NrcgError):
                raise
            reason = one_line(error).partition(" You can use")[0]  # an argument that is not the user's to give
            raise NrcgError(
                f"source {source}: {self.name} cannot be read there ({reason}); fetch it by {self._fetch}"
            ) from None
        if empty:
            raise NrcgError(f"source {source}: {self.name} has no image there; fetch it by {self._fetch}")
        return parts

    def _labels(self, part: Any) -> np.ndarray:
        """int64 N: as the object keeps them, if the first picture's is the same; otherwise each is asked for."""
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
            raise NrcgError(f"{self.name}: image {i} has the label {own}, in its list {label}; fetch it anew")
        picture = opaque(picture, self.background)
        return fitted(ImageOps.expand(picture, self.padding, self.background), self.size, self.fit)

    def _pair(self, part: Any, i: int) -> tuple[Image.Image, int]:
        """A picture and its label."""
        try:
            item = part[i]
        except Exception as error:  # whatever torchvision, PIL and others raise for damaged files
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
                f"name {self.name}: its image {i} has no whole number as label; take a data set of classes, not one of "
                f"captions, boxes, attributes or films"
            )
        return picture, label


def download_torchvision(name: str, out: str | Path, arguments: Mapping[str, Any]) -> None:
    """Fetch a data set by torchvision, which checks its files, into the folder `out`; nothing that is there.

    `out/NAME.json`, written last, holds the name and the arguments. Raises NrcgError when it cannot be fetched, with
    what to do by hand.
    """
    out, record, given = Path(out), Path(out, f"{name}.json"), dict(arguments)
    _check_arguments(name, given)
    with writing(record):
        out.mkdir(parents=True, exist_ok=True)
    try:
        n = [len(part) for part in _open(name, out, given)]
    except Exception:  # it is not there, or not whole
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
    """The objects of train and validation, or the only one."""
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
    """The object of the first of these splits that a class has; it knows by itself which ones these are."""
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
        raise NrcgError(f"name {name!r}: no data set of torchvision that could be read; nearest are {near}")
    return getattr(known, name)


def _parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class, with those of its parents where it hands any others on to them."""
    found: dict[str, inspect.Parameter] = {}
    for each in inspect.getmro(thing) if inspect.isclass(thing) else ():
        if "__init__" in vars(each):
            own = inspect.signature(vars(each)["__init__"]).parameters
            found = {key: value for key, value in own.items() if value.kind is not value.VAR_KEYWORD} | found
            if not any(value.kind is value.VAR_KEYWORD for value in own.values()):
                break
    return found


def _check_arguments(name: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that the class of that name does not take, or lacks."""
    takes = {key: value for key, value in _parameters(_find(name)).items() if key not in (*OURS, "self")}
    for key in given:
        if key not in takes:
            raise NrcgError(f"arguments: {name} takes no {key} here, but {', '.join(takes) or 'none at all'}")
    for key, value in takes.items():
        if value.default is value.empty and key not in given:
            raise NrcgError(f"arguments: {name} needs {key}; give it, see {PAGE.format(name)}")


def _names(thing: Any, split: Any = None) -> list[str] | None:
    """What a class, or an object of it, calls its classes; None where it does not tell."""
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
