"""The front: its points are where the numbers are, with what there is of real images, tuning samples and cost."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import both, is_png_and_pdf, legend, small_print
from scored import EMA, LOGPROB, add_scores, rows_of, write_scores

from nrcg.errors import NrcgError
from nrcg.plots.front import plot_front
from nrcg.plots.setups import read_setups
from nrcg.plots.style import styled

SETUPS = Path(__file__).parents[2] / "config" / "setups.yaml"
POINTS = {  # setup, scale: share by the judge, distance, U-Net evaluations
    ("unconditional", ""): (0.33, 60.0, 100),
    (EMA, 3): (0.70, 20.0, 300),
    (EMA, 15): (0.97, 8.0, 300),
    (EMA, 60): (0.60, 30.0, 300),
    (LOGPROB, 3): (0.60, 25.0, 300),
    (LOGPROB, 15): (0.75, 12.0, 300),
    ("robust", 2): (0.95, 10.0, 200),
}


def values_of(share, distance, cost):
    return {"accuracy_judge": share, "cfd_judge": distance} | ({"unet_evaluations": cost} if cost else {})


def write(folder, points=POINTS, costed=True, **more):
    rows = []
    for (setup, scale), (share, distance, cost) in points.items():
        rows += rows_of(setup, scale, values_of(share, distance, cost * costed), features=64, **more)
    return write_scores(folder / "scores.csv", rows)


def draw(path, *outputs, **more):
    return plot_front(outputs or [path.with_suffix(".png")], csv=path, setups=SETUPS, **more)


def markers(ax, setup, filled):
    """The points of a setup on the axes, in the order drawn; the filled ones are those that were chosen."""
    with styled(None):
        look = read_setups(SETUPS)[setup]
    lines = [line for line in ax.lines if (line.get_color(), line.get_marker()) == (look.color, look.marker)]
    return [tuple(map(float, place)) for line in lines if (line.get_markerfacecolor() != "white") == filled
            for place in line.get_xydata()]  # fmt: skip


def bars(ax):
    """Ends of the intervals: across and upwards."""
    found = [segment for bar in ax.collections for segment in bar.get_segments()]
    return (
        [(a[0], b[0], a[1]) for a, b in found if a[1] == b[1]],
        [(a[1], b[1], a[0]) for a, b in found if a[0] == b[0]],
    )


def test_points_are_where_the_numbers_are(tmp_path):
    outputs = both(tmp_path, "front")
    fig = draw(write(tmp_path), *outputs, title="T", note="N")
    assert is_png_and_pdf(outputs) and fig.get_suptitle() == "T" and "N" in small_print(fig)
    left, above, below = fig.axes
    assert markers(left, EMA, filled=False) == [(0.70, 20.0), (0.97, 8.0), (0.60, 30.0)]  # by scale upwards
    assert markers(left, EMA, filled=True) == [(0.97, 8.0)] and markers(left, LOGPROB, filled=True) == [(0.75, 12.0)]
    assert markers(left, "robust", filled=True) == markers(left, "robust", filled=False) == [(0.95, 10.0)]
    assert [tuple(line.get_xydata()[0]) for line in left.lines if line.get_marker() == "X"] == [(0.33, 60.0)]
    assert left.get_xlabel() == "share of the target class by the judge" and left.get_yscale() == "linear"
    assert left.get_ylabel() == below.get_ylabel() == "FD to target class\n(judge)"
    assert above.get_ylabel() == "share by the judge" and below.get_xlabel() == "U-Net evaluations"
    # robust alone needs 200 passes; the two that need 300 are drawn 3 % of the range to either side of one another
    assert markers(below, "robust", filled=True) == [(200, 10.0)] and markers(above, "robust", True) == [(200, 0.95)]
    (a, b), (c, d) = ([markers(ax, setup, True)[0] for setup in (EMA, LOGPROB)] for ax in (above, below))
    assert (a[1], b[1], c[1], d[1]) == (0.97, 0.75, 8.0, 12.0)
    assert (a[0], b[0]) == (c[0], d[0]) == pytest.approx((297, 303))
    assert above.get_xlim() == below.get_xlim()
    for ax, level in ((above, 0.33), (below, 60.0)):
        assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [level]


def test_chosen_points_have_their_intervals(tmp_path):
    across, up = bars(draw(write(tmp_path)).axes[0])
    assert {distance for *_, distance in across} == {8.0, 12.0, 10.0, 60.0} and len(up) == 4
    low, high, _ = next(bar for bar in across if bar[2] == 8.0)
    assert (low, high) == pytest.approx((0.9413, 0.9849), abs=1e-3)  # Wilson's of 97 % of 256
    assert sorted(bar[:2] for bar in up)[0] == pytest.approx((7.84, 8.16))


def test_the_legend_names_scales_and_marks_few_samples(tmp_path):
    ema = r"non-robust + $\hat{x}_0$ + EMA 0.99"
    fig = draw(write(tmp_path))
    assert legend(fig) == ["robust ‡, s = 2", f"{ema} ‡, s = 15", f"{ema} (log p) ‡, s = 15", "unconditional ‡"]
    text = small_print(fig)
    assert "‡ Small sample" in text and "Scales were chosen on the reported samples" in text
    assert "Setups of equal cost are drawn side by side" in text and "Wilson for shares" in text
    labels = legend(draw(write(tmp_path, n=1000)))
    assert labels[0] == "robust, s = 2" and not any("‡" in label for label in labels)


def test_with_real_images(tmp_path):
    path = write(tmp_path)
    add_scores(path, rows_of("real", "", values_of(0.99, 0.5, None), n=1000, features=64))
    fig = draw(path)
    left, above, below = fig.axes
    assert legend(fig)[-1] == "real images (n = 1000)"
    assert [tuple(line.get_xydata()[0]) for line in left.lines if line.get_marker() == "*"] == [(0.99, 0.5)]
    for ax, level in ((above, 0.99), (below, 0.5)):  # they cost nothing: a level, no point
        stars = [line.get_xdata() for line in ax.lines if line.get_marker() == "*"]
        assert np.isnan(np.concatenate(stars).astype(float)).all()
        assert level in [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]


def test_rejection_sampling_is_a_point_with_its_cost(tmp_path):
    path = write(tmp_path)
    add_scores(path, rows_of("rejection", "", values_of(0.9, 5.0, 300), n=90, features=64))
    left, above, below = draw(path).axes
    for ax, point in ((left, (0.9, 5.0)), (above, (300, 0.9)), (below, (300, 5.0))):
        assert [tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "P"] == [point]
    assert "rejection sampling ‡ (n = 90)" in legend(left.figure)


def test_with_tuning_samples_the_chosen_scale_is_theirs(tmp_path):
    path = write(tmp_path)
    for (setup, scale), (_, distance, _) in POINTS.items():
        value = 1.0 if (setup, scale) == (EMA, 60) else distance
        add_scores(path, rows_of(setup, scale, {"cfd_judge": value}, n=50, half=None, seeds="tuning"))
    fig = draw(path)
    left, above, _ = fig.axes
    assert markers(left, EMA, filled=True) == [(0.60, 30.0)] and markers(above, EMA, True)[0][1] == 0.60
    assert "Scales were chosen on 50 other samples per point." in small_print(fig)
    assert any(label.endswith("EMA 0.99 ‡, s = 60") for label in legend(fig))


def test_without_recorded_cost_there_is_the_left_panel_alone(tmp_path):
    fig = draw(write(tmp_path, costed=False))
    (left,) = fig.axes
    assert markers(left, EMA, filled=True) == [(0.97, 8.0)] and left.get_xlim() == (-0.03, 1.03)
    assert "U-Net" not in small_print(fig) and "Filled: the chosen scale" in small_print(fig)


def test_without_unguided_samples_the_setups_are_drawn(tmp_path):
    path = write(tmp_path, {key: value for key, value in POINTS.items() if key[1] != ""})
    fig = draw(path)
    assert len(legend(fig)) == 3 and not any(line.get_marker() == "X" for ax in fig.axes for line in ax.lines)


def test_the_distance_is_logarithmic_over_decades(tmp_path):
    fig = draw(write(tmp_path, POINTS | {(EMA, 60): (0.1, 900.0, 300)}))
    left, above, below = fig.axes
    assert (left.get_yscale(), above.get_yscale(), below.get_yscale()) == ("log", "linear", "log")
    fig.canvas.draw()
    for ax, ticks in ((left, {"10", "100"}), (below, {"10", "20", "50"})):  # the latter spans one decade
        shown = [text.get_text() for text in ax.get_yticklabels(which="both") if text.get_text()]
        assert ticks <= set(shown) and not any("^" in text for text in shown)


def test_a_point_without_one_of_the_numbers_is_left_out(tmp_path):
    path = write(tmp_path)
    add_scores(path, rows_of("nonrobust", 3, {"accuracy_judge": 0.5}) + rows_of("nonrobust", 9, {"cfd_judge": 9.0}))
    assert not any(label.startswith("non-robust,") for label in legend(draw(path)))


def test_nothing_overlaps_or_leaves_the_page(tmp_path):
    path = write(tmp_path)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["metric"] = table["metric"].replace("cfd_judge", "cfd_my_large_extractor_of_features")
    table.to_csv(path, index=False)
    fig = draw(path, note="A note.\n" * 3)
    renderer = fig.canvas.get_renderer()
    axes = [ax.get_tightbbox(renderer) for ax in fig.axes]
    boxes = [*axes, fig.legends[0].get_window_extent(renderer), fig.texts[-1].get_window_extent(renderer)]
    for i, a in enumerate(boxes):
        assert a.x0 >= -1 and a.x1 <= fig.bbox.x1 + 1 and a.y0 >= -1 and a.y1 <= fig.bbox.y1 + 1
        for b in boxes[i + 1 :]:
            assert min(a.x1, b.x1) <= max(a.x0, b.x0) + 1 or min(a.y1, b.y1) <= max(a.y0, b.y0) + 1
    for ax in fig.axes:  # no label is longer than its axis
        assert ax.yaxis.label.get_window_extent(renderer).height <= ax.get_window_extent(renderer).height


def test_without_distance_or_share_it_is_refused(tmp_path):
    path = write_scores(tmp_path / "scores.csv", rows_of(EMA, 3, {"accuracy_judge": 0.7, "fd_judge": 3.0}))
    with pytest.raises(NrcgError, match=r"scores\.csv: no guided point has a distance to the target class; score one"):
        draw(path)
    path = write_scores(tmp_path / "scores.csv", rows_of(EMA, 3, {"accuracy": 0.7, "cfd_judge": 3.0}))
    with pytest.raises(
        NrcgError, match=r"no guided point has both 'cfd_judge' and 'accuracy_judge' in column 'metric'"
    ):
        draw(path)
    path = write(tmp_path, {("robst", 3): (0.5, 3.0, 1)})
    with pytest.raises(NrcgError, match=r"column 'setup' holds 'robst', which is not in .*setups\.yaml"):
        draw(path)
    assert not path.with_suffix(".png").exists()
