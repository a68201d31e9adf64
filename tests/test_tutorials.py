"""Every command of the tutorials, as it stands, in a folder that has the project's files."""

import os
import re
import subprocess

import pytest
from environment_yml import ROOT

TUTORIALS = ROOT / "docs/tutorials"
COMMANDS = {
    page.stem: re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S) for page in TUTORIALS.glob("*.md")
}
SHOWN = {  # what a page says that its commands print or write
    "own_classifier": (r"\bguided: (\d+) of 12 .*, (\d+) to the judge", ["unguided.png", "guided.png"]),
    "own_pictures": (r"train_ddpm +1", ["pictures.png", "soccer.png"]),
    "own_stabilizer": (r"agreement: cosine .* baseballs to the judge", ["agreement.npy"]),
    "paper_point": (
        r"according to the judge: [\d.]+ \[",
        ["results/one_point/sportballs/scores/nonrobust_x0_ema0.99_scale_4.csv"],
    ),
}
PARTS = ["Snakefile", "config", "docs", "nrcg", "resources", "workflow"]


def test_every_tutorial_has_commands_and_every_script_is_run():
    run = " ".join(block for blocks in COMMANDS.values() for block in blocks)
    scripts = [path.name for path in TUTORIALS.iterdir() if path.suffix in (".py", ".sh", ".yaml")]
    assert COMMANDS.keys() == SHOWN.keys()
    assert [name for name in scripts if f"docs/tutorials/{name}" not in run] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_its_commands_do_what_the_page_says(tmp_path, name):
    for part in PARTS:
        (tmp_path / part).symlink_to(ROOT / part)
    blocks = [block for block in COMMANDS[name] if "{% include" not in block]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = "set -euo pipefail\n" + "\n".join(blocks)
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    printed, written = SHOWN[name]
    assert (found := re.search(printed, run.stdout)), run.stdout[-3000:]
    assert all((tmp_path / file).stat().st_size for file in written)
    if name == "own_classifier":
        assert all(int(count) >= 10 for count in found.groups()), found[0]
