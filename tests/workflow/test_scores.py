"""What Snakemake plans for scores: further trainings, samples for tuning, real images, features that are kept."""

import re

import pytest
from scratch import jobs, overlay, snakemake

TARGET = "results/test/sportballs/scores.csv"


@pytest.fixture
def planned(checkout, tmp_path):
    """The dry run of one data set's scores with a change of the toy config."""

    def plan(change=lambda data: None, **top):
        def both(config):
            config.update(top, run_datasets=["sportballs"])
            change(config["datasets"]["sportballs"])

        return snakemake(checkout, "-n", "-p", "--configfile", overlay(checkout, tmp_path, both), "--", TARGET)

    return plan


def test_repeats_train_each_guiding_classifier_anew_and_draw_its_samples_with_each(planned):
    once, thrice = planned(), planned(lambda data: data.update(repeats=3))
    assert "Exception" not in once  # no rule was tried for another's files
    # nonrobust and robust guide; each training draws and is scored, but for unguided samples (twice) and real images
    assert jobs(thrice)["train_classifier"] - jobs(once)["train_classifier"] == 2 * 2
    assert jobs(thrice)["score"] - 3 == 3 * (jobs(once)["score"] - 3)
    guided = jobs(once)["features"] - 1
    assert jobs(thrice)["features"] == 3 * guided + 1
    seeds = re.findall(r"nrcg train classifier .*?--out (\S+?robust\S*) .*?\"seed\": (\d+)", thrice)
    assert len(seeds) == len(set(seeds)) == 6 and len({seed for name, seed in seeds if "/nonrobust" in name}) == 3
    collected = re.search(r"nrcg measure collect .*", thrice)[0]
    assert all(f"sportballs:robust:{i}=" in collected for i in (1, 2, 3)) and "sportballs:real:1=" in collected


def test_samples_for_tuning_are_drawn_first_and_not_shown(planned):
    output = planned()
    assert set(re.findall(r"nrcg sample .*--start (\d+) --stop (\d+)", output)) == {("0", "10"), ("10", "14")}
    assert set(re.findall(r"nrcg measure features .*--first-seed (\d+)", output)) == {"4"}
    assert set(re.findall(r"nrcg measure score .*--tuning (\d+)", output)) == {"4"}  # real images have none
    assert "--tuning" not in re.search(r"nrcg measure score .*verdicts/real_.*", output)[0]


def test_features_are_deleted_unless_asked_for(planned):
    told = "Would remove temporary output .*features/"
    assert re.search(told, planned()) and not re.search(told, planned(keep_features=True))


@pytest.mark.parametrize("name", ["real", "rejection"])
def test_a_setup_cannot_be_called_as_other_rows_are(checkout, tmp_path, name):
    row = f"\n{name}: {{label: mine, classifier: robust, guidance: {{on: xt}}}}\n"
    setups = (checkout / "config/setups.yaml").read_text() + row
    (tmp_path / "setups.yaml").write_text(setups)
    change = overlay(checkout, tmp_path, lambda config: config.update(setups=str(tmp_path / "setups.yaml")))
    output = snakemake(checkout, "-n", "--configfile", change, check=False)
    assert f"{name!r} is reserved for a row of the scores" in output
