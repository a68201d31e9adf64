"""Rows of `benchmarks.work.measure` as a table for readers: a line for each of our ways."""

from collections.abc import Sequence
from typing import Any

from benchmarks.work import CHECKPOINTED, COMPILED, OURS

HEADERS = (
    "work",
    "size",
    "device",
    "plain",
    "ours",
    "ratio",
    "reach",
    "met?",
    "peak memory",
    "share of matmul rate",
    "floor",
)
REACHES = {
    "ratio": "{:g} ×",
    "memory": "{:g} × memory",
    "share": "{:.0%} of matmul rate",
    "seconds": "{:g} s",
}


def table(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headers, and the cells of all lines."""
    return HEADERS, [_line(row, name) for row in rows for name in row["ways"] if name.startswith(OURS)]


def _line(row: dict[str, Any], name: str) -> list[str]:
    ours, plain = row["ways"][name], row["ways"].get(row["against"])
    ratio = "{ratio:.2f} ({ratio_from:.2f}–{ratio_to:.2f})".format(**ours) if "ratio" in ours else "–"
    return [
        row["work"],
        row["size"],
        row["device"],
        f"{_rate(row, plain)} ({row['against']})" if plain else "–",
        _rate(row, ours) + _how(row, name),
        ratio,
        ", ".join(REACHES[key].format(value) for key, value in row["reach"].items()) or "–",
        _met(row, ours),
        _memory(plain, ours),
        f"{ours['share']:.0%}" if ours["share"] is not None else "–",
        _floor(row),
    ]


def _met(row: dict[str, Any], ours: dict[str, Any]) -> str:
    if not row["reach"]:
        return "–"
    return f"no: {', '.join(ours['missed'])}" if ours["missed"] else "yes"


def _rate(row: dict[str, Any], way: dict[str, Any]) -> str:
    if row["amount"] == 1 or "seconds" in row["reach"]:  # one long piece of work
        return f"{way['median']:.3g} s"
    return f"{way['rate']:.4g} {row['unit']}s/s"


def _how(row: dict[str, Any], name: str) -> str:
    if name == COMPILED:
        return f" (compiled{_compilation(row)})"
    return " (checkpointed)" if name == CHECKPOINTED else ""


def _compilation(row: dict[str, Any]) -> str:
    """What compiling took and when it has paid, where eager calls were measured beside it."""
    if "compilation" not in row:
        return ""
    seconds, after = row["compilation"]["seconds"], row["compilation"]["pays_after"]
    paid = "never paid" if after is None else f"paid after {after} {row['unit']}s"
    return f" in {seconds:.0f} s, {paid}"


def _memory(plain: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    if not plain or ours["peak_bytes"] is None or not plain["peak_bytes"]:
        return "–"
    return f"{plain['peak_bytes'] / 1e6:.0f} → {ours['peak_bytes'] / 1e6:.0f} MB"


def _floor(row: dict[str, Any]) -> str:
    if row["flops_a_unit"] is None:
        return row["floor"]
    rate = row["matmul_flops_a_second"] / row["flops_a_unit"]
    return f"{row['floor']}: {row['flops_a_unit'] / 1e9:.3g} GFLOP, {rate:.4g}/s at matmul rate"
