"""A frozen campaign in its quick variant, from models to lines of results."""

import dataclasses
import hashlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, tables
from experiments.campaigns import (
    CAMPAIGNS,
    NOTHING,
    PUBLISHED,
    PUBLISHED_ASR,
    RETRAINING,
    SOURCES,
    Attacked,
    Campaign,
    Cleaning,
)
from jaxunlearn import cli, ibau, report, subjects
from jaxunlearn._check import DivergedError, InputError
from jaxunlearn._loop import NonFiniteError
from jaxunlearn.attacks import RECIPES
from jaxunlearn.models import NAMES
from tests.shop import execute


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_every_campaign_asks_for_what_there_is(name: str) -> None:
    campaign = CAMPAIGNS[name]
    assert campaign.arch in NAMES
    for attacked in campaign.subjects:
        assert attacked.data in SOURCES
        cli.configured(RECIPES[attacked.attack], attacked.settings)
    for cleaning in campaign.cleanings:
        if cleaning.method in (NOTHING, RETRAINING):
            continue
        presets: Any = __import__(f"jaxunlearn.{cleaning.method}", fromlist=["PRESETS"]).PRESETS
        cli.configured(presets[cleaning.preset], cleaning.settings)
    quick = campaign.quick()
    assert (len(quick.subjects), len(quick.seeds)) == (1, 1)
    assert quick.arch in ("small_vgg_half", "preact_resnet18", "small_vit")
    assert ("vit" in quick.arch) == ("vit" in campaign.arch)
    assert round(quick.subjects[0].ratio * quick.train_images) >= 1
    kinds, quick_kinds = (
        list(dict.fromkeys((one.method, one.preset, one.settings) for one in some.cleanings))
        for some in (campaign, quick)
    )
    assert quick_kinds == (kinds if len(kinds) <= 3 else [*kinds[:2], kinds[-1]])
    assert all(
        text and not text.endswith(".") for text in (campaign.takes, campaign.expected, campaign.published)
    )
    assert f"python -m experiments.reproduce {name}" in campaign.header(name)
    assert len({reproduce._key(line) for line in lines_of(campaign)}) == len(lines_of(campaign))


@pytest.fixture(scope="session")
def leaderboard(shared: Path) -> list[dict[str, Any]]:
    board = json.loads((shared / "reference" / "backdoorbench-leaderboard.json").read_text())
    return [dict(zip(board["columns"], row, strict=True)) for row in board["rows"]]


@pytest.mark.parametrize(("data", "attack", "ratio"), PUBLISHED_ASR)
def test_published_ranges_are_those_of_the_leaderboard(
    data: str, attack: str, ratio: float, leaderboard: list[dict[str, Any]]
) -> None:
    theirs = {"badnets": "badnet", "input-aware": "inputaware", "label-consistent": "lc"}.get(attack, attack)
    wanted = {"dataset": data, "attack": theirs, "defence": "no", "poison_ratio": ratio}
    found = {row["net"]: row["attack_success_rate"] for row in leaderboard if wanted.items() <= row.items()}
    assert len(found) == 4
    rates = min(found.values()), found["PreActResNet-18"], max(found.values())
    assert tuple(round(rate, 1) for rate in rates) == PUBLISHED_ASR[data, attack, ratio]


@pytest.mark.parametrize(("data", "ratio"), PUBLISHED)
def test_published_means_are_those_of_the_leaderboard(
    data: str, ratio: float, leaderboard: list[dict[str, Any]]
) -> None:
    for defence, means in zip(("no", "ft", "i-bau"), PUBLISHED[data, ratio], strict=True):
        wanted = {"dataset": data, "net": "PreActResNet-18", "defence": defence, "poison_ratio": ratio}
        found = [row for row in leaderboard if wanted.items() <= row.items()]
        for name, mean in zip(("clean_accuracy", "attack_success_rate"), means, strict=True):
            assert round(statistics.mean(row[name] for row in found), 1) == mean


def lines_of(campaign: Any) -> list[dict[str, Any]]:
    return [
        reproduce._config(campaign, attacked, cleaning, campaign.arch, seed)
        for attacked in campaign.subjects
        for cleaning in campaign.cleanings
        for seed in campaign.seeds
    ]


@pytest.mark.parametrize("name", sorted(path.stem for path in tables.RESULTS.glob("*.jsonl")))
def test_the_committed_lines_are_of_their_campaign(name: str) -> None:
    lines = lines_of(CAMPAIGNS[name])
    asked = {reproduce._key(line) for line in lines}
    asked |= {  # the defaults of before, until those models are cleaned anew
        reproduce._key({**line, "settings": [setting]})
        for setting in ("distillation=false", "withhold=false")
        for line in lines
        if (line["method"], line["preset"]) in (("ibau", "default"), ("sau", "default"))
    }
    counts: dict[str, Any] = {}
    for line in tables.read_lines(tables.RESULTS / f"{name}.jsonl"):
        assert reproduce._key(line) in asked
        # All lines of a model are of one model.
        found = line["before"]["counts"]
        assert counts.setdefault(reproduce._model_key(line), found) == found


def test_some_attacks_of_a_campaign_alone(capsys: pytest.CaptureFixture[str]) -> None:
    some = CAMPAIGNS["dau-gtsrb"].of(["lf", "badnets"])
    assert [(one.attack, one.ratio) for one in some.subjects] == [
        ("badnets", 0.1),
        ("lf", 0.1),
        ("badnets", 0.01),
    ]
    with pytest.raises(SystemExit):
        reproduce.main(["dau-gtsrb", "--attacks", "badnets", "wanet", "blend"])
    assert "dau-gtsrb holds no blend and no wanet" in capsys.readouterr().err


@pytest.mark.parametrize("given", [("--seeds", "7"), ("--arch", "small_vgg")])
def test_other_results_need_a_file_of_their_own(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        reproduce.main(["dau-gtsrb", *given])
    assert "give --out a file for them" in capsys.readouterr().err


def test_some_attacks_are_quick_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Campaign] = []
    monkeypatch.setattr(reproduce, "run", lambda campaign, *_, **__: asked.append(campaign) or [])
    assert reproduce.main(["dau-gtsrb", "--quick", "--attacks", "lf"]) == 0
    assert [one.attack for one in asked[0].subjects] == ["lf"]


@pytest.mark.parametrize(
    "error",
    [NonFiniteError(1, ["loss"], None), DivergedError("Round 1 gave NaN or infinite values in loss.")],
)
def test_what_gives_nan_holds_nothing_up(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_subject(*arguments: Any) -> Path:
        if arguments[-1] == 0:
            raise error
        return tmp_path

    def clean(campaign: Any, attacked: Any, cleaning: Cleaning, *_: Any) -> dict[str, Any]:
        if cleaning.method == "ibau":
            raise NonFiniteError(1, ["kernel"], None)
        return dict.fromkeys((*reproduce._REPORTED, "code"))

    two = dataclasses.replace(SMALL, cleanings=(*SMALL.cleanings, Cleaning("sau", clean=10)), seeds=(0, 1))
    monkeypatch.setattr(reproduce, "make_subject", make_subject)
    monkeypatch.setattr(reproduce, "clean", clean)
    monkeypatch.setattr(reproduce, "CAMPAIGNS", {"two": two})
    out = tmp_path / "lines.jsonl"
    assert reproduce.main(["two", "--out", str(out)]) == 1
    assert [(line["method"], line["seed"]) for line in tables.read_lines(out)] == [("sau", 1)]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith(
        "no result: digits badnets, seed 0: Round 1 gave NaN or infinite values in loss"
    )
    assert told[1].startswith(
        f"no result: {tmp_path.name}, ibau default: Round 1 gave NaN or infinite values in ker"
    )


def test_a_finished_cleaning_is_taken_for_no_other(tmp_path: Path) -> None:
    def clean(cleaning: Cleaning) -> dict[str, Any]:
        return reproduce.clean(SMALL, BADNETS, cleaning, tmp_path, tmp_path, 0)

    once = Cleaning("ibau", clean=10)
    label = json.dumps([once.preset, once.settings, once.clean, 0])
    folder = tmp_path / f"ibau-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    folder.mkdir()
    config = report.plain(dataclasses.asdict(ibau.PRESETS["default"]))
    assert config["radius"] == "inf"
    (folder / "report.json").write_text(json.dumps({"config": config}))
    assert clean(once)["config"]["rounds"] == config["rounds"]
    assert clean(once)["code"] is None
    (folder / "code.txt").write_text("0123456789ab")
    assert clean(once)["code"] == "0123456789ab"
    (folder / "report.json").write_text(json.dumps({"config": config | {"rounds": 77}}))
    with pytest.raises(InputError, match="holds a cleaning with config/rounds 77 and"):
        clean(once)


def test_a_folder_names_every_code_that_worked_on_it(tmp_path: Path) -> None:
    (tmp_path / "code.txt").write_text("0123456789ab")
    for _ in range(2):
        reproduce._add_code(tmp_path)
        assert reproduce._made_from(tmp_path) == f"0123456789ab {reproduce.code()}"
    reproduce._add_code(tmp_path / "new")
    assert reproduce._made_from(tmp_path / "new") == reproduce.code()


def test_what_ends_a_campaign_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: BaseException) -> Any:
        def run(*_: Any, **__: Any) -> None:
            raise error

        return run

    monkeypatch.setattr(reproduce, "run", fails(KeyboardInterrupt()))
    assert reproduce.main(["digits"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(reproduce, "run", fails(InputError("There are no such images.")))
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["digits"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("error: There are no such images.\n")
    monkeypatch.setattr(reproduce, "run", fails(InputError("It is damaged; start anew with --force.")))
    with pytest.raises(SystemExit):
        reproduce.main(["digits"])
    assert capsys.readouterr().err.endswith("(Of a campaign: remove that folder, or give another --work.)\n")


BADNETS = Attacked("digits", "badnets")
SMALL = Campaign("", "", "", "", (BADNETS,), (Cleaning("ibau", clean=10),), train_images=100, test_images=50)
CHANGES = [
    (dataclasses.replace(SMALL, training=("rounds=3",)), BADNETS, "training/rounds 12 and 3 is asked for"),
    (dataclasses.replace(SMALL, train_images=90), BADNETS, "data/images 100 and 90 is asked for"),
    (dataclasses.replace(SMALL, test_images=40), BADNETS, "test/images 50 and 40 is asked for"),
    (SMALL, dataclasses.replace(BADNETS, target=3), "target 5 and 3 is asked for"),
]


@pytest.mark.parametrize(("campaign", "attacked", "message"), CHANGES)
def test_a_finished_model_is_taken_for_no_other(
    campaign: Campaign, attacked: Attacked, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = []

    def plant(order: subjects.Order, display: Any) -> None:
        planted.append(order.out)
        order.out.mkdir(exist_ok=True)
        made = order.settings() | {"acc": 0.9}
        if order.settings()["settings"]["mode"] == "all-to-all":
            made["target"] = None
        (order.out / subjects.ATTACK).write_text(json.dumps(made))

    def make(campaign: Campaign, attacked: Attacked) -> Path:
        return reproduce.make_subject(campaign, attacked, tmp_path, tmp_path, "small_vgg_half", 0)

    monkeypatch.setattr(subjects, "plant", plant)
    folder = make(SMALL, BADNETS)
    assert folder.name == "digits-badnets-0.1-small_vgg_half-0"
    assert make(SMALL, BADNETS) == folder
    described = subjects.described
    monkeypatch.setattr(subjects, "described", lambda data: described(data) | {"spec": "elsewhere"})
    assert make(SMALL, BADNETS) == folder
    with pytest.raises(InputError, match=f"{folder.name} holds a model with {message}; give another --work"):
        make(campaign, attacked)
    assert planted == [folder]
    every = dataclasses.replace(BADNETS, settings=("mode=all-to-all",))
    assert make(SMALL, every) == make(SMALL, every)
    assert len(planted) == 2


@pytest.mark.parametrize(("campaign", "attacked", "message"), CHANGES)
def test_results_are_taken_for_no_others(campaign: Campaign, attacked: Attacked, message: str) -> None:
    del message
    first, second = (
        reproduce._config(*of, SMALL.cleanings[0], "small_vgg_half", 0)
        for of in ((SMALL, BADNETS), (campaign, attacked))
    )
    assert reproduce._key(first) != reproduce._key(second)


def test_lines_of_another_model_are_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"acc": [9, 10], "asr": [8, 9], "ra": [1, 9]}
    (tmp_path / subjects.ATTACK).write_text(json.dumps({"counts": counts}))
    monkeypatch.setattr(reproduce, "make_subject", lambda *_: tmp_path)
    out = tmp_path / "lines.jsonl"
    earlier = reproduce._config(SMALL, BADNETS, Cleaning("sau", clean=10), "small_vgg_half", 0)
    out.write_text(json.dumps(earlier | {"before": {"counts": counts | {"acc": [8, 10]}}}) + "\n")
    with pytest.raises(InputError, match=r"lines\.jsonl holds results of .*: it was trained anew"):
        reproduce.run(SMALL, tmp_path, tmp_path, out, arch="small_vgg_half", seeds=(0,))


def test_lines_say_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dict.fromkeys(reproduce._REPORTED) | {"stopped": "Round 2 gave NaN.", "warnings": ["grey"]}
    monkeypatch.setattr(reproduce, "make_subject", lambda *_: tmp_path)
    monkeypatch.setattr(reproduce, "clean", lambda *_: found | {"rounds": [], "code": None})
    (tmp_path / "code.txt").write_text("0123456789ab")
    counts = {"acc": [9, 10], "asr": [8, 9], "ra": [1, 9]}
    (tmp_path / subjects.ATTACK).write_text(json.dumps({"counts": counts}))
    out = tmp_path / "lines.jsonl"
    old = reproduce._config(SMALL, BADNETS, SMALL.cleanings[0], "small_vgg_half", 0)
    old |= {"before": {"counts": counts}}
    out.write_text(json.dumps(old) + "\n")
    reproduce.run(SMALL, tmp_path, tmp_path, out, arch="small_vgg_half", seeds=(0, 1))
    assert capsys.readouterr().out == f"1 of 2 results are in {out}; 1 are to be made.\n"
    before, line = tables.read_lines(out)
    assert before == old
    assert (line["seed"], line["stopped"], line["warnings"]) == (1, "Round 2 gave NaN.", ["grey"])
    assert (line["code"], line["model_code"]) == (None, "0123456789ab")


def in_own_process(*arguments: object) -> str:
    """What a program prints, compiled as runs of the tests are."""
    done = execute(Path(__file__).parents[1], [sys.executable, *map(str, arguments)])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_quick_campaign_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lines.jsonl"
    arguments = ["digits", "--quick", "--work", str(tmp_path / "work"), "--out", str(out)]
    said = in_own_process("-m", "experiments.reproduce", *arguments)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["method"] for line in lines] == ["finetune", "ibau", "dau"]
    assert lines[0]["before"] == lines[1]["before"] == lines[2]["before"]
    for line in lines:
        assert line["before"]["counts"]["acc"][1] == 300
        assert line["stopped"] is None
        assert line["code"] == line["model_code"] == reproduce.code()
        assert set(line["seconds"]) == {"load", "compile", "unlearn", "evaluate"}
    assert "== digits-badnets" in said
    assert "finetune" in tables.render_campaign(lines).splitlines()[0]
    assert reproduce.main(arguments) == 0
    assert len(out.read_text().splitlines()) == 3
    assert "==" not in capsys.readouterr().out

    (folder,) = (tmp_path / "work" / "digits-quick").iterdir()
    program = (
        "import json, sys, pathlib; from experiments import reproduce; "
        "print(json.dumps(reproduce.retrain(pathlib.Path(sys.argv[1]), seed=0)))"
    )
    retrained = json.loads(in_own_process("-c", program, folder).splitlines()[-1])
    assert set(retrained) == set(reproduce._REPORTED)
    assert retrained["before"] == lines[0]["before"]
    assert retrained["after"]["asr"] < 0.1 < retrained["before"]["asr"]
