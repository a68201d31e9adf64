"""Which guided samples come nearest to the target class."""

import pandas as pd

from nrcg.errors import NrcgError


def criterion(points: pd.DataFrame) -> str | None:
    """The distance to the target class that decides: cfid where a guided point has it, else the first cfd_NAME."""
    measured = points[points["scale"].notna() & points["value"].notna()]["metric"].unique()
    return next((name for name in ("cfid", *measured) if name in measured and name.startswith(("cfid", "cfd_"))), None)


def best_setup(points: pd.DataFrame) -> tuple[str, float]:
    """The guided (setup, scale) of the least distance to the target class; the earlier row wins a tie.

    Args:
        points: one data set's rows as read by `read_points`.

    Raises:
        NrcgError: if no guided point has such a distance.
    """
    metric = criterion(points)
    if metric is None:
        raise NrcgError("no guided point has a value for cfid or cfd_NAME in column 'metric'; score one first")
    rows = points[(points["metric"] == metric) & points["scale"].notna() & points["value"].notna()]
    row = rows.iloc[rows["value"].argmin()]
    return str(row["setup"]), float(row["scale"])
