"""`nrcg measure collect`: the scores of all setups in one file, in order, and taken from it again."""

import pytest
from typer.testing import CliRunner

from nrcg.cli import app
from nrcg.errors import NrcgError
from nrcg.evaluation.points import COLUMNS, read_points
from nrcg.io.tables import SCORE_COLUMNS

ROWS = "reported,fid,1.5,0.30000000000000004,2,8,1,3", "reported,accuracy,0.1,0.05,0.25,8,1,"


def collect(out, *words):
    result = CliRunner().invoke(app, ["measure", "collect", *map(str, words), "--out", str(out)])
    if result.exception:
        raise result.exception


def scores(path, *scales, rows=ROWS):
    header = ",".join(["scale", *SCORE_COLUMNS])
    path.write_text("\n".join([header, *(f"{scale},{row}" for scale in scales for row in rows), ""]))
    return path


def test_scores_are_collected_in_order_and_given_as_they_were(tmp_path):
    guided, free = (
        scores(tmp_path / "g.csv", 10, 2.5),
        scores(tmp_path / "f.csv", "", rows=(ROWS[0], "tuning" + ROWS[0][8:])),
    )
    parts = {"b:robust:1": guided, "a:robust:2": guided, "a:robust:1": guided, "a:free:1": free}
    collect(tmp_path / "all.csv", *(word for name, path in parts.items() for word in ("--scores", f"{name}={path}")))
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert (
        lines[0] == ",".join(COLUMNS) == "dataset,setup,repeat,scale,seeds,metric,value,low,high,n,n_diverged,features"
    )
    assert lines[1:5] == [
        "a,free,1,,reported,fid,1.5,0.30000000000000004,2.0,8,1,3",
        "a,free,1,,tuning,fid,1.5,0.30000000000000004,2.0,8,1,3",
        "a,robust,1,2.5,reported,fid,1.5,0.30000000000000004,2.0,8,1,3",
        "a,robust,1,2.5,reported,accuracy,0.1,0.05,0.25,8,1,",
    ]
    assert [line.partition(",reported,fid")[0] for line in lines[3::2]] == [
        "a,robust,1,2.5", "a,robust,2,2.5", "a,robust,1,10.0", "a,robust,2,10.0", "b,robust,1,2.5", "b,robust,1,10.0"
    ]  # fmt: skip
    collect(tmp_path / "a.csv", "--given", f"a={tmp_path}/all.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == lines[:11]
    assert (
        read_points(tmp_path / "a.csv").reported["value"].tolist()
        == read_points(tmp_path / "all.csv", "a").reported["value"].tolist()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale,seeds,metric,value\n1,reported,fid,1\n", r"one\.csv: no column 'low'"),
        ("", r"one\.csv: not a readable table"),
        (f"scale,{','.join(SCORE_COLUMNS)}\n", r"one\.csv: no rows"),
        (f"scale,{','.join(SCORE_COLUMNS)}\n1,{ROWS[0]}", r"one\.csv: truncated"),
        (f"scale,{','.join(SCORE_COLUMNS)}\n1,{ROWS[0].replace('8', '8.5')}\n", r"one\.csv: column 'n' holds '8\.5'"),
        (f"scale,{','.join(SCORE_COLUMNS)}\nbig,{ROWS[0]}\n", r"one\.csv: column 'scale' holds 'big'"),
    ],
)
def test_tables_that_are_no_scores_are_named(tmp_path, text, message):
    (tmp_path / "one.csv").write_text(text)
    with pytest.raises(NrcgError, match=message):
        collect(tmp_path / "all.csv", "--scores", f"a:b:1={tmp_path}/one.csv")
    assert not (tmp_path / "all.csv").exists()


def test_what_cannot_be_collected_is_named(tmp_path):
    one, every = scores(tmp_path / "one.csv", 1), tmp_path / "all.csv"
    collect(every, "--scores", f"a:b:1={one}", "--scores", f"c:b:1={one}")
    for words, message in (
        (("--scores", f"a:b={one}"), "write DATASET:SETUP:TRAINING=CSV with a number"),
        (("--scores", f"a:b:x={one}"), "write DATASET:SETUP:TRAINING=CSV with a number"),
        (("--scores", f"a:b:1={one}", "--given", f"a={one}"), "give either --scores for each setup, or --given"),
        ((), "give either --scores"),
        (("--given", f"a={one}"), r"one\.csv: no column 'dataset'"),
        (("--given", f"d={every}"), r"all\.csv: column 'dataset' has no 'd'; it holds a, c"),
    ):
        with pytest.raises(NrcgError, match=message):
            collect(tmp_path / "out.csv", *words)
