"""The attack command: a folder with a backdoored model, which every method takes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters import convert, torch_io
from jaxunlearn import cli, evaluate, ibau, subjects
from jaxunlearn._check import InputError
from jaxunlearn.attacks import __main__ as program
from jaxunlearn.data import load
from tests.shop import run

TRAIN = ("--data", "digits[:800]", "--test", "digits[1300:]", "--poison-ratio", 0.1, "--target", 3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder that the command made."""
    folder = tmp_path_factory.mktemp("planted")
    settings = ("--set", "trigger=patch:size=2,offset=0", "--train", "rounds=8", "--train", "batch_size=50")
    done = run(folder, "badnets", *TRAIN, *settings, "--out", "dir", method="attacks")
    return folder / "dir", done


def test_the_folder_holds_everything(planted: tuple[Path, Any]) -> None:
    out, done = planted
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"model.pth", "attack.json", "train.npz", "test.npz", "triggered.npz", "samples.png"}
    found = json.loads((out / "attack.json").read_text())
    assert (found["attack"], found["target"], len(found["poisoned"])) == ("badnets", 3, 80)
    assert found["asr"] > 0.9
    assert found["acc"] > 0.85
    with Image.open(out / "samples.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 20


def test_what_it_says_is_true_of_the_files(planted: tuple[Path, Any]) -> None:
    out, _ = planted
    found = json.loads((out / "attack.json").read_text())
    spec, variables = convert.from_torch(torch_io.read(out / "model.pth").arrays)
    test, triggered = load(f"npz:{out / 'test.npz'}"), subjects.read_triggered(out)
    assert (
        evaluate(spec.apply, variables, test.images, test.labels, triggered=triggered).counts()
        == found["counts"]
    )
    train, digits = load(f"npz:{out / 'train.npz'}"), load("digits[:800]")
    assert train.poisoned is not None
    assert np.flatnonzero(train.poisoned).tolist() == found["poisoned"]
    assert np.array_equal(train.labels[~train.poisoned], digits.labels[~train.poisoned])
    assert set(train.labels[train.poisoned]) == {3}
    assert 3 not in digits.labels[train.poisoned]
    changed = np.abs(train.images - digits.images).max(axis=(1, 2, 3)) > 0.5 / 255 + 1e-6
    assert not changed[~train.poisoned].any()
    assert 3 not in triggered.labels
    assert set(triggered.attack_labels) == {3}


def test_a_method_takes_the_folder(planted: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = planted
    found = json.loads((out / "attack.json").read_text())
    arguments = ("--attack", out, "--clean", "digits[1000:1300]", "--rounds", 1, "--out", "done")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "done" / "report.json").read_text())
    assert report["before"]["counts"] == found["counts"]
    assert report["after"]["asr"] < 0.1


def test_dau_takes_the_folder_in_steps(planted: tuple[Path, Any], tmp_path: Path) -> None:
    """Division, then unlearning, end with the same bits as one run; precision and recall are known here."""
    out, _ = planted
    few = ("--set", "batch_size=50", "--set", "isolated_share=0.03", "--set", "superpositions=16")
    settings = ("--rounds", 4, "--set", "refinements=1", *few)
    given = ("--attack", out, *settings)
    whole = run(tmp_path, *given, "--out", "whole", method="dau")
    assert whole.returncode == 0, whole.stderr
    first = run(tmp_path, "anti-learning", *given, "--out", "steps", method="dau")
    assert first.returncode == 0, first.stderr
    assert {path.name for path in (tmp_path / "steps").iterdir()} == {"state.npz", "division.png"}
    second = run(tmp_path, "unlearning", *given, "--out", "steps", method="dau")
    assert second.returncode == 0, second.stderr
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "steps")]
    assert reports[0]["output_sha256"] == reports[1]["output_sha256"]
    assert reports[0]["evidence"]["class"] == 3
    assert reports[0]["evidence"]["precision"] > 0.9
    assert reports[0]["evidence"]["recall"] > 0.9
    assert reports[0]["after"]["asr"] < 0.1
    tested = run(tmp_path, "test", *given, "--out", "whole", method="dau")
    assert tested.returncode == 0, tested.stderr
    assert f"ACC {100 * reports[0]['after']['acc']:6.2f} %" in tested.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("badnets", "--data", "digits[:0]"), "holds no images"),
        (("badnets", "--test", "digits[700:900]"), "are also among those"),
        (("badnets", "--target", 10), "--target 10 is not a class; the images have the classes 0 to 9"),
        (("badnets", "--poison-ratio", 0), "asks for 0 of 800 images"),
        (("sig", "--poison-ratio", 0.5), "are of the target's class"),
        (("badnets", "--set", "size=3"), "there is no setting size; there are trigger, mode"),
        (("badnets", "--set", "trigger=patch:size=9"), "does not fit images of 8x8x1"),
        (("blended", "--set", "strength=2"), "strength=2.0 must be greater than 0 and at most 1"),
        (("badnets", "--train", "rounds=0"), "rounds=0 must be"),
        (("badnets", "--resume"), "no interrupted training to resume"),
        (("badnets", "--out", "taken"), "taken is a file"),
    ],
)
def test_bad_requests_say_so_and_write_nothing(
    arguments: tuple[Any, ...], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert program.main([*map(str, (arguments[0], *TRAIN, *arguments[1:]))]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"taken"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attack", "nowhere", "--clean", "digits"), "nowhere holds no model.pth"),
        (("--attack", "x", "--ckpt", "y", "--clean", "digits"), "leave --ckpt away"),
        (("--attack", "x", "--trigger", "patch:", "--clean", "digits"), "leave --trigger away"),
    ],
)
def test_bad_attack_folders_say_so(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from jaxunlearn.ibau.__main__ import PROCEDURE

    monkeypatch.chdir(tmp_path)
    assert cli.main(PROCEDURE, ibau.PRESETS, "", list(arguments)) == 2
    assert message in capsys.readouterr().err


def test_damaged_triggered_images_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "triggered.npz", x=np.zeros((2, 4, 4, 1), np.uint8), y=np.zeros(2, int))
    with pytest.raises(InputError, match="does not hold the arrays x, y, attack_labels"):
        subjects.read_triggered(tmp_path)
    np.savez(
        tmp_path / "triggered.npz",
        x=np.zeros((2, 4, 4, 1)),
        y=np.zeros(2, int),
        attack_labels=np.zeros(3, int),
    )
    with pytest.raises(InputError, match=r"shapes \(2, 4, 4, 1\), \(2,\) and \(3,\)"):
        subjects.read_triggered(tmp_path)
