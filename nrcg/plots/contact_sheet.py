"""The first images of an image set, each above the name of its class."""

from pathlib import Path

from matplotlib.figure import Figure

from nrcg.datasets.imageset import ImageSet
from nrcg.plots.samples import Cell, draw_sheet
from nrcg.plots.style import save, styled


def plot_contact_sheet(image_set: ImageSet, path: str | Path, n: int = 100, columns: int = 10) -> Figure:
    """Draw the first `n` images (or all, if fewer), `columns` per row, as the .png or .pdf file `path`."""
    names = [image_set.classes[label] for label in image_set.labels[:n]]
    images = image_set.images[:n]
    cells = [Cell(image, lost=False, lines=((name, False),)) for image, name in zip(images, names, strict=True)]
    size = "×".join(map(str, images.shape[1:3]))
    title = f"{image_set.card['name']}: the first {len(cells)} of {len(image_set)} images of {size}"
    with styled(None):
        fig = draw_sheet(cells, min(columns, len(cells)), title, "Below each image: its class.", span=columns)
        save(fig, [path])
    return fig
