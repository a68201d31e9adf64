"""The first images of an image set, each above the name of its class."""

from pathlib import Path

from matplotlib.figure import Figure

from nrcg.datasets.imageset import ImageSet
from nrcg.plots.samples import Cell, draw_sheet
from nrcg.plots.style import save, styled


def plot_contact_sheet(image_set: ImageSet, path: str | Path, n: int = 100, columns: int = 10) -> Figure:
    """Draw the first `n` images (or all, if fewer), `columns` per row, as the .png or .pdf file `path`."""
    firsts = zip(image_set.images[:n], image_set.labels[:n], strict=True)
    cells = [Cell(image, lost=False, lines=((image_set.classes[label], False),)) for image, label in firsts]
    size = image_set.card["size"]
    title = f"{image_set.card['name']}: the first {len(cells)} of {len(image_set)} images of {size}×{size}"
    with styled(None):
        fig = draw_sheet(cells, min(columns, len(cells)), title, "Below each image: its class.", span=columns)
        save(fig, [path])
    return fig
