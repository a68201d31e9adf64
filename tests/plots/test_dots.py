"""The dot plot of setups: its markers are where the numbers are, in the order of the distance."""

from pathlib import Path

import pytest
from drawn import is_png_and_pdf, small_print
from scored import EMA, LOGPROB, add_scores, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.plots.dots import plot_dots

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
SHARE, DISTANCE, COST = "accuracy_judge", "cfd_judge", "unet_evaluations"
POINTS = {  # setup, scale: share by the judge, distance, cost
    ("unconditional", ""): (0.33, 60.0, 100),
    (EMA, 3): (0.70, 20.0, 200),
    (EMA, 15): (0.97, 8.0, 200),
    (LOGPROB, 15): (0.75, 12.0, 1000),
    ("robust", 2): (0.95, 10.0, 200),
}


def write(folder, points=POINTS, **more):
    rows = []
    for (setup, scale), values in points.items():
        rows += rows_of(setup, scale, dict(zip((SHARE, DISTANCE, COST), values, strict=True)), features=64, **more)
    return write_scores(folder / "scores.csv", rows)


def draw(path, *outputs, metrics=(SHARE, DISTANCE, COST), **more):
    return plot_dots(outputs or [path.with_suffix(".png")], csv=path, setups=SETUPS, metrics=list(metrics), **more)


def labels(fig):
    return [text.get_text() for text in fig.axes[0].get_yticklabels()]


def marked(ax):
    """The value of each row's large marker."""
    return {float(y): float(x) for bar in ax.containers for x, y in bar.lines[0].get_xydata()}


def test_rows_are_chosen_points_from_the_nearest_to_the_farthest(tmp_path):
    path, outputs = write(tmp_path), (tmp_path / "a.png", tmp_path / "a.pdf")
    fig = draw(path, *outputs)
    is_png_and_pdf(outputs)
    found = labels(fig)
    assert [label.rpartition("s = ")[2].split()[0] for label in found[:3]] == ["15", "2", "15"]
    assert "EMA" in found[0] and "robust" in found[1] and found[3].startswith("unconditional")
    share, distance, cost = fig.axes
    assert marked(share) == {0: 0.97, 1: 0.95, 2: 0.75, 3: 0.33}
    assert marked(distance) == {0: 8.0, 1: 10.0, 2: 12.0, 3: 60.0}
    assert marked(cost) == {0: 200, 1: 200, 2: 1000, 3: 100} and cost.get_xscale() == "log"


def test_real_images_and_rejection_are_rows_and_rejection_is_a_line(tmp_path):
    path = write(tmp_path)
    for name, (share, distance) in {"real": (1.0, 1.0), "rejection": (0.9, 9.0)}.items():
        add_scores(path, rows_of(name, "", {SHARE: share, DISTANCE: distance}, features=64))
    fig = draw(path, metrics=[SHARE, DISTANCE])
    assert [label.removesuffix(" ‡") for label in labels(fig)[3:]] == [
        "rejection sampling",
        "unconditional",
        "real images",
    ]
    assert marked(fig.axes[1])[3] == 9.0 and marked(fig.axes[1])[5] == 1.0
    assert any(list(line.get_xdata()) == [9.0, 9.0] for line in fig.axes[1].lines)


def test_trainings_are_dots_around_their_mean(tmp_path):
    path = write(tmp_path)
    add_scores(path, rows_of("robust", 2, {SHARE: 0.85, DISTANCE: 14.0, COST: 200}, features=64, repeat=2))
    fig = draw(path, metrics=[SHARE, DISTANCE])
    assert "single runs" in small_print(fig) and "single runs" not in small_print(draw(write(tmp_path)))
    row = next(i for i, label in enumerate(labels(fig)) if label.startswith("robust"))
    dots = [x for line in fig.axes[0].lines if line.get_marker() == "." for x, y in line.get_xydata() if y == row]
    assert sorted(dots) == [0.85, 0.95] and marked(fig.axes[0])[row] == pytest.approx(0.9)


def test_only_some_setups(tmp_path):
    found = labels(draw(write(tmp_path), only=["robust"]))
    assert len(found) == 2 and "robust" in found[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": ["kid_judge"]}, "column 'metric' has no 'kid_judge'"),
        ({"only": ["mine"]}, "only: column 'setup' holds 'mine'"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, more, message):
    with pytest.raises(NrcgError, match=message):
        draw(write(tmp_path), **more)


def test_a_file_without_guided_points_is_one_line(tmp_path):
    with pytest.raises(NrcgError, match="no guided setup has a distance"):
        draw(write(tmp_path, {("unconditional", ""): (0.33, 60.0, 100)}))
