"""What a figure says, as a test reads it."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def both(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.pdf"]


def is_png_and_pdf(paths: list[Path]) -> bool:
    return paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")


def legend(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def small_print(fig: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in fig.texts).split())


def find(page: np.ndarray, image: np.ndarray, factor: int) -> tuple[int, int]:
    """Row and column of the enlarged image in the page, pixel by pixel."""
    block = image.repeat(factor, axis=0).repeat(factor, axis=1)
    for y, x in np.argwhere((page == block[0, 0]).all(axis=-1)):
        if np.array_equal(page[y : y + len(block), x : x + len(block)], block):
            return int(y), int(x)
    raise AssertionError("not on the page")
