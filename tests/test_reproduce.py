"""A frozen campaign in its quick variant, from models to lines of results."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, tables
from experiments.campaigns import CAMPAIGNS, RETRAINING, SOURCES
from jaxunlearn import cli
from jaxunlearn.attacks import RECIPES
from jaxunlearn.models import NAMES


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_every_campaign_asks_for_what_there_is(name: str) -> None:
    campaign = CAMPAIGNS[name]
    assert campaign.arch in NAMES
    for attacked in campaign.subjects:
        assert attacked.data in SOURCES
        cli.configured(RECIPES[attacked.attack], attacked.settings)
    for cleaning in campaign.cleanings:
        if cleaning.method == RETRAINING:
            continue
        presets: Any = __import__(f"jaxunlearn.{cleaning.method}", fromlist=["PRESETS"]).PRESETS
        cli.configured(presets[cleaning.preset], cleaning.settings)
    quick = campaign.quick()
    assert (len(quick.subjects), len(quick.seeds)) == (1, 1)
    assert len({reproduce._key(line) for line in lines_of(campaign)}) == len(lines_of(campaign))


def lines_of(campaign: Any) -> list[dict[str, Any]]:
    return [
        reproduce._config(campaign, attacked, cleaning, campaign.arch, seed)
        for attacked in campaign.subjects
        for cleaning in campaign.cleanings
        for seed in campaign.seeds
    ]


def test_a_quick_campaign_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lines.jsonl"
    arguments = ["digits", "--quick", "--work", str(tmp_path / "work"), "--out", str(out)]
    assert reproduce.main(arguments) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["method"] for line in lines] == ["finetune", "ibau"]
    assert lines[0]["before"] == lines[1]["before"]
    for line in lines:
        assert line["before"]["counts"]["acc"][1] == 300
        assert set(line["seconds"]) == {"load", "compile", "unlearn", "evaluate"}
    assert "== digits-badnets" in capsys.readouterr().out
    assert "finetune" in tables.render_campaign(lines).splitlines()[0]
    assert reproduce.main(arguments) == 0
    assert len(out.read_text().splitlines()) == 2
    assert "==" not in capsys.readouterr().out

    (folder,) = (tmp_path / "work" / "digits-quick").iterdir()
    retrained = reproduce.retrain(folder, seed=0)
    assert retrained["before"] == lines[0]["before"]
    assert retrained["after"]["asr"] < 0.1 < retrained["before"]["asr"]
