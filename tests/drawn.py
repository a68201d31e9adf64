"""What a figure says, as a test reads it."""

from pathlib import Path

from matplotlib.figure import Figure


def both(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.png", folder / f"{name}.pdf"]


def is_png_and_pdf(paths: list[Path]) -> bool:
    return paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")


def legend(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def small_print(fig: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in fig.texts).split())
