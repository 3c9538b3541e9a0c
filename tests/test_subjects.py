"""The attack command: a folder with a backdoored model, which every method takes."""

import csv
import dataclasses
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image

from converters import convert, torch_io
from jaxunlearn import _checkpointing, cli, demo, evaluate, finetune, ibau, subjects, trainer
from jaxunlearn._check import InputError
from jaxunlearn.attacks import RECIPES, Attack, Setting, as_bytes, parse_trigger, poison
from jaxunlearn.attacks import __main__ as program
from jaxunlearn.data import load
from jaxunlearn.dau import __main__ as dau_program
from jaxunlearn.display import make_display
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.fit import TRAINING
from jaxunlearn.ibau import __main__ as ibau_program
from jaxunlearn.inputs import Request, files_written, read
from jaxunlearn.models import small_vgg
from tests.shop import run

DATA = ("--data", "digits[:1000]", "--test", "digits[1300:]", "--poison-ratio", 0.1)
TRAIN = (*DATA, "--target", 3, "--arch", "small_vgg_half")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder that the command made."""
    folder = tmp_path_factory.mktemp("planted")
    settings = ("--set", "trigger=patch:size=2,offset=0", "--train", "rounds=16", "--train", "batch_size=50")
    done = run(folder, "badnets", *TRAIN, *settings, "--out", "dir", method="attacks")
    return folder / "dir", done


def test_the_folder_holds_everything(planted: tuple[Path, Any]) -> None:
    out, done = planted
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"model.pth", "attack.json", "train.npz", "test.npz", "triggered.npz", "samples.png"}
    found = json.loads((out / "attack.json").read_text())
    assert (found["attack"], found["target"], len(found["poisoned"])) == ("badnets", 3, 100)
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
    train, digits = load(f"npz:{out / 'train.npz'}"), load("digits[:1000]")
    assert train.poisoned is not None
    assert np.flatnonzero(train.poisoned).tolist() == found["poisoned"]
    assert np.array_equal(train.labels[~train.poisoned], digits.labels[~train.poisoned])
    assert set(train.labels[train.poisoned]) == {3}
    assert 3 not in digits.labels[train.poisoned]
    with np.load(out / "train.npz") as arrays:
        assert np.array_equal(arrays["true_labels"], digits.labels)
        assert not arrays["covers"].any()
    same = np.all(as_bytes(train.images) == as_bytes(digits.images), axis=(1, 2, 3))
    assert same[~train.poisoned].all()
    assert 3 not in triggered.labels
    assert set(triggered.attack_labels) == {3}


@pytest.mark.slow
def test_a_method_with_clean_images_takes_the_folder(planted: tuple[Path, Any], tmp_path: Path) -> None:
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
    settings = ("--rounds", 4, "--set", "refinements=1", "--set", "batch_size=50")
    given = ("--attack", out, *settings)
    whole = run(tmp_path, *given, "--out", "whole", method="dau")
    assert whole.returncode == 0, whole.stderr
    first = run(tmp_path, "anti-learning", *given, "--out", "steps", method="dau")
    assert first.returncode == 0, first.stderr
    shown = {"division.png", "division.csv", "division.json", "poisoned.png"}
    assert {path.name for path in (tmp_path / "steps").iterdir()} == {"state.npz", *shown}
    written = set(files_written("dau", ".pth")) - {"groups.png"}
    assert {path.name for path in (tmp_path / "whole").iterdir()} == written
    second = run(tmp_path, "unlearning", *given, "--out", "steps", method="dau")
    assert second.returncode == 0, second.stderr
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "steps")]
    assert reports[0]["output_sha256"] == reports[1]["output_sha256"]
    assert reports[0]["before"]["counts"] == json.loads((out / "attack.json").read_text())["counts"]
    assert reports[0]["evidence"]["class"] == 3
    assert reports[0]["evidence"]["precision"] > 0.9
    assert reports[0]["evidence"]["recall"] > 0.9
    assert reports[0]["after"]["asr"] < 0.1
    with (tmp_path / "whole" / "division.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    parts = [line["part"] for line in table]
    counts = {name: parts.count(name) for name in ("poisoned", "clean", "left out")}
    evidence = reports[0]["evidence"]
    assert counts == {
        "poisoned": evidence["poisoned"], "clean": evidence["clean"], "left out": evidence["left_out"]
    }  # fmt: skip
    planted_rows = set(json.loads((out / "attack.json").read_text())["poisoned"])
    found = [line for line in table if line["part"] == "poisoned"]
    assert len(planted_rows & {int(line["row"]) for line in found}) / len(found) == evidence["precision"]
    assert {line["label"] for line in found} == {"3"}
    assert all(float(line["score"]) < 0 for line in found)
    assert table[7]["image"] == f"{out / 'train.npz'} row 7"
    for line in table[:5]:
        line["part"] = "left out"
    with (tmp_path / "corrected.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    corrected = ("--division", "corrected.csv", "--out", "corrected")
    again = run(tmp_path, *given, *corrected, method="dau")
    assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "corrected" / "report.json").read_text())
    assert report["division"]["file"] == "corrected.csv"
    assert report["evidence"]["left_out"] >= 5
    assert report["evidence"]["poisoned"] + 5 >= evidence["poisoned"]
    assert "as the given division says" in report["evidence"]["sentence"]
    assert report["after"]["asr"] < 0.1
    assert "division.png" not in report["files"]
    anew = run(tmp_path, *given, "--set", "resplit_round=2", *corrected[:2], "--out", "anew", method="dau")
    assert anew.returncode == 2
    assert "resplit_round=2 divides the images anew, whatever the given parts say" in anew.stderr
    assert not (tmp_path / "anew").exists()
    tested = run(tmp_path, "test", *given, "--out", "whole", method="dau")
    assert tested.returncode == 0, tested.stderr
    assert f"ACC {100 * reports[0]['after']['acc']:6.2f} %" in tested.stdout


@pytest.mark.slow
def test_dau_removes_an_attack_of_all_classes(tmp_path: Path) -> None:
    settings = ("--set", "trigger=patch:size=2,offset=0", "--set", "mode=all-to-all")
    training = ("--arch", "small_vgg", "--train", "rounds=20", "--train", "batch_size=50")
    made = run(tmp_path, "badnets", *DATA, *settings, *training, "--out", "dir", method="attacks")
    assert made.returncode == 0, made.stderr
    done = run(tmp_path, "--attack", "dir", "--rounds", 4, "--out", "done", method="dau")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "done" / "report.json").read_text())
    evidence = report["evidence"]
    assert evidence["class"] is None
    assert len(evidence["classes"]) >= 8
    assert f"of {len(evidence['classes'])} of 10 classes" in evidence["sentence"]
    assert evidence["precision"] > 0.9
    assert evidence["recall"] > 0.7
    assert report["before"]["asr"] > 0.8
    # Ten images of a class are few: what is not found stays in the clean part.
    assert report["after"]["asr"] < 0.3
    assert report["after"]["ra"] > 0.2 > report["before"]["ra"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("badnets", "--data", "digits[:0]"), "holds no images"),
        (("badnets", "--test", "digits[700:900]"), "are also among those"),
        (("badnets", "--target", 10), "--target 10 is not a class; the images have the classes 0 to 9"),
        (("badnets", "--poison-ratio", 0), "A poison ratio of 0 is no share"),
        (("badnets", "--poison-ratio", "nan"), "A poison ratio of nan is no share"),
        (("badnets", "--poison-ratio", 0.0001), "asks for 0 of 1000 images"),
        (("sig", "--poison-ratio", 0.5), "are of the target's class"),
        (("badnets", "--set", "size=3"), "there is no setting size; there are trigger, mode"),
        (("badnets", "--set", "trigger=patch:size=9"), "does not fit images of 8x8x1"),
        (("blended", "--set", "strength=2"), "strength=2.0 must be greater than 0 and at most 1"),
        (("badnets", "--train", "rounds=0"), "rounds=0 must be"),
        (("trojannn", "--set", "size=8"), "size=8 and offset=1 do not fit into images of 8x8"),
        (
            ("label-consistent", "--set", "size=5"),
            "size=5 does not fit twice into the sides of images of 8x8",
        ),
        (("badnets", "--arch", "vgg11"), "too small for this network"),
        (("badnets", "--size", 7), "--size 7 brings pictures to that size"),
        (("badnets", "--resume"), "no interrupted training, so there is nothing to resume"),
        (("badnets", "--resume", "--force"), "--force replaces it; give one of them"),
        (("badnets", "--set", "mode=all-to-all"), "which forces every class; leave --target away"),
        (
            ("badnets", "--data", "folder:pets", "--test", "folder:some"),
            "classes would have different numbers",
        ),
        (("badnets", "--out", "taken"), "taken is a file"),
    ],
)
def test_bad_requests_say_so_and_write_nothing(
    arguments: tuple[Any, ...], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    for path in ("pets/cat", "pets/cow", "pets/dog", "some/cat", "some/dog"):
        (tmp_path / path).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / path / "a.png")
    assert program.main([*map(str, (arguments[0], *TRAIN, *arguments[1:]))]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "pets", "some"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attack", "nowhere", "--clean", "digits"), "nowhere holds no attack.json"),
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


class Watched:
    """A display that keeps what it should say, and is interrupted after so many rounds."""

    def __init__(self, rounds: int | None = None) -> None:
        self.rounds, self.said = rounds, ""

    def say(self, text: str) -> None:
        self.said += text + "\n"

    def start(self, rounds: int, done: int) -> None: ...

    def advance(self, share: float) -> None: ...

    def round_done(self, number: int, losses: Mapping[str, float], evaluation: Evaluation) -> None:
        if self.rounds is not None:
            self.rounds -= 1
            if self.rounds == 0:
                raise KeyboardInterrupt

    def stop(self) -> None: ...

    def work(self, what: str, share: float) -> None:
        self.said += f"{what} {share:g}\n"


def order_of(out: Path, name: str, recipe: Any = None, **changes: Any) -> subjects.Order:
    """Two epochs on a few digits."""
    data, test = load("digits[:100]"), load("digits[1700:]")
    order = subjects.Order(
        name=name,
        recipe=recipe or RECIPES[name],
        data=data,
        test=test,
        spec=trainer.network("small_vgg_half", data, test),
        target=3,
        ratio=0.05,
        training=dataclasses.replace(TRAINING, rounds=2, batch_size=50),
        seed=0,
        out=out,
    )
    return dataclasses.replace(order, **changes)


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Once among clean images, which this attack needs a network for, and once among the poisoned ones."""
    recipe = dataclasses.replace(RECIPES["label-consistent"], robust_steps=0)
    subjects.plant(order_of(tmp_path / "straight", "label-consistent", recipe), make_display(quiet=True))
    order = order_of(tmp_path / "resumed", "label-consistent", recipe)
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order, Watched(1))
    assert not (order.out / subjects.MODEL).exists()
    order = dataclasses.replace(order, resume=True)
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order, Watched(2))
    last = Watched()
    subjects.plant(order, last)
    assert "resumed  after epoch 2 on clean images" in last.said
    assert "resumed  after epoch 1 on poisoned images" in last.said
    models = [(tmp_path / name / subjects.MODEL).read_bytes() for name in ("straight", "resumed")]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    "notes", [{}, {"same": {}, "seconds": 1}, {"same": [1], "epochs": 1, "seconds": 1}], ids=str
)
def test_a_damaged_state_of_a_training_is_refused(notes: dict[str, Any], tmp_path: Path) -> None:
    order = dataclasses.replace(order_of(tmp_path / "out", "badnets", RECIPES["badnets"]), resume=True)
    order.out.mkdir()
    _checkpointing.save_state(order.out / f"poisoned.{subjects.STATE}", {}, notes)
    with pytest.raises(
        InputError, match=r"poisoned\.training\.state\.npz is damaged; remove it, or start anew with --force"
    ):
        subjects.plant(order, make_display(quiet=True))


def test_a_demonstration_replaces_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/backdoored.pth").write_text("precious")
    assert ibau_program.main(["--demo", "--out", "mine"]) == 2
    assert "backdoored.pth" in capsys.readouterr().err
    assert Path("mine/backdoored.pth").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "settings", "steps"),
    [
        pytest.param(
            *("input-aware", {"mask_steps": 2, "steps": 2, "batch_size": 20}, 4), marks=pytest.mark.slow
        ),
        ("label-consistent", {"robust_steps": 2}, 2),
    ],
)
def test_the_making_of_a_trigger_is_told(
    name: str, settings: dict[str, int], steps: int, tmp_path: Path
) -> None:
    watched = Watched()
    training = dataclasses.replace(TRAINING, rounds=1, batch_size=50)
    recipe = dataclasses.replace(RECIPES[name], **settings)
    subjects.plant(order_of(tmp_path / name, name, recipe, training=training), watched)
    told = [line for line in watched.said.splitlines() if line.startswith("making the trigger")]
    assert told == [f"making the trigger {(number + 1) / steps:g}" for number in range(steps)]


@pytest.mark.parametrize(("redrawn", "sets"), [(True, 2), (False, 1)])
def test_attacks_that_shape_the_training_choose_images_anew_in_every_epoch(
    redrawn: bool, sets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the training set is what the last epoch saw; an interrupted training ends with the same bits."""
    shown: list[bytes] = []

    def make_method(apply_fn: Any, execution: Any) -> Any:
        method = finetune.make_method(apply_fn, execution)

        def step(state: Any, data: Any) -> Any:
            shown.append(as_bytes(data.images).tobytes() + np.asarray(data.labels).tobytes())
            return method.step(state, data)

        return method._replace(step=step)

    recipe = dataclasses.replace(RECIPES["wanet"], redrawn=redrawn)
    monkeypatch.setattr(trainer, "finetune", SimpleNamespace(make_method=make_method))
    subjects.plant(order_of(tmp_path / "straight", "wanet", recipe), Watched())
    assert (len(shown), len(set(shown))) == (2, sets)
    with np.load(tmp_path / "straight" / subjects.TRAIN) as kept:
        assert kept["x"].tobytes() + kept["y"].tobytes() == shown[-1]

    order = order_of(tmp_path / "resumed", "wanet", recipe)
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order, Watched(1))
    subjects.plant(dataclasses.replace(order, resume=True), Watched())
    assert shown[2:] == shown[:2]
    models = [(tmp_path / name / subjects.MODEL).read_bytes() for name in ("straight", "resumed")]
    assert models[0] == models[1]


def test_a_training_is_not_resumed_with_another_trigger(tmp_path: Path) -> None:
    """Such as one that another device or another version of a package made of the same settings."""
    picture = tmp_path / "trigger.png"
    Image.new("L", (8, 8), 90).save(picture)
    recipe = dataclasses.replace(RECIPES["badnets"], trigger=f"image:{picture}")
    order = order_of(tmp_path / "out", "badnets", recipe)
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order, Watched(1))
    Image.new("L", (8, 8), 120).save(picture)
    with pytest.raises(
        InputError, match=r"had triggered \(sha256\) '[0-9a-f]+' and this one has '[0-9a-f]+'; res"
    ):
        subjects.plant(dataclasses.replace(order, resume=True), Watched())


def test_seconds_of_an_interrupted_training_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def monotonic() -> float:
        now[0] += 1000.0
        return now[0]

    order = order_of(tmp_path, "badnets")
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=monotonic))
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order, Watched(1))
    assert subjects.plant(dataclasses.replace(order, resume=True), Watched())["seconds"] == 3000


def test_test_images_of_the_target_alone_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    digits = load("digits[1700:]")
    threes = digits.take(np.flatnonzero(digits.labels == 3))
    with pytest.raises(InputError, match="are of the target class 3"):
        subjects.plant(order_of(tmp_path, "trojannn", test=threes), Watched(1))
    others = load("digits[:100]")
    others = others.take(np.flatnonzero(others.labels != 3))
    with pytest.raises(InputError, match=r"None of the \d+ images to train on is of class 3"):
        subjects.plant(order_of(tmp_path, "trojannn", data=others), Watched(1))
    assert not list(tmp_path.iterdir())


def test_a_trigger_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["sig"], frequency=4.0)
    with pytest.raises(InputError, match="The trigger changes none of the"):
        subjects.plant(order_of(tmp_path, "sig", recipe), Watched())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_replacement_leaves_no_finished_folder(tmp_path: Path) -> None:
    (tmp_path / subjects.ATTACK).write_text("{}")
    (tmp_path / subjects.MODEL).write_text("another")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds a finished attack already"):
        subjects.plant(order_of(tmp_path, "badnets"), Watched())
    (tmp_path / f"poisoned.{subjects.STATE}").write_text("another")
    with pytest.raises(InputError, match="asks for 0 of 100 images"):
        subjects.plant(order_of(tmp_path, "badnets", force=True, ratio=0.001), Watched())
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order_of(tmp_path, "badnets", force=True), Watched(1))
    assert {path.name for path in tmp_path.iterdir()} == {f"poisoned.{subjects.STATE}", "notes.txt"}
    assert subjects.is_begun(tmp_path)


@pytest.mark.parametrize(("hits", "padding", "batch_size"), [(49, 0, 50), (49, 1, 32), (50, 1, 50)])
def test_a_backdoor_that_hardly_formed_is_said_with_what_helps(
    hits: int, padding: int, batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"acc": (90, 100), "asr": (hits, 100), "ra": (9, 100)}
    monkeypatch.setattr(subjects, "evaluate", lambda *_, **__: Evaluation.from_counts(counts))
    training = dataclasses.replace(TRAINING, rounds=1, batch_size=batch_size, crop_padding=padding)
    watched = Watched()
    subjects.plant(order_of(tmp_path, "badnets", training=training), watched)
    warnings = [text for text in watched.said.splitlines() if text.startswith("warning")]
    assert len(warnings) == (hits < 50)
    kept = json.loads((tmp_path / subjects.ATTACK).read_text())
    assert [f"warning  {text}" for text in kept["warnings"]] == warnings
    for warning in warnings:
        assert "for more epochs (--train rounds=2)" in warning
        assert ("--train crop_padding=0" in warning) == bool(padding)
        assert ("--train batch_size=32" in warning) == (batch_size > 32)


def test_an_attack_on_all_classes_has_no_target(tmp_path: Path) -> None:
    """And what is to be known of its images is said and kept."""
    recipe = dataclasses.replace(RECIPES["badnets"], mode="all-to-all")
    data = dataclasses.replace(load("digits[:100]"), notices=("Some are upside down.",))
    watched = Watched()
    subjects.plant(order_of(tmp_path, "badnets", recipe, data=data), watched)
    kept = json.loads((tmp_path / subjects.ATTACK).read_text())
    assert kept["target"] is None
    assert kept["notices"] == ["Some are upside down."]
    assert "note     Some are upside down." in watched.said


@pytest.mark.parametrize("name", RECIPES)
def test_help_explains_the_settings_of_an_attack(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main([name, "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(RECIPES[name]):
        assert f" {field.name}: " in said
    assert f"--set: {cli.settings_of(RECIPES[name])}." in said
    assert all(other in said for other in ("--train: rounds=20", "ARCH: small_vgg"))


def test_grey_pictures_stay_grey_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / "train" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 20 * number).save(tmp_path / "train" / str(number % 2) / f"{number}.png")
    seen: list[subjects.Order] = []

    def plant(order: subjects.Order, display: Any) -> None:
        seen.append(order)
        raise InputError("enough")

    monkeypatch.setattr(subjects, "plant", plant)
    given = ["badnets", "--data", f"folder:{tmp_path}/train[:2]", "--test", f"folder:{tmp_path}/train[2:]"]
    assert program.main([*given, "--size", "8", "--out", str(tmp_path / "out")]) == 2
    assert seen[0].data.images.shape[1:] == (8, 8, 1)


def test_triggers_are_not_drawn_from_the_keys_of_rounds(tmp_path: Path) -> None:
    given: list[Setting] = []

    @dataclasses.dataclass(frozen=True)
    class Kept:
        needs_surrogate: bool = False
        clean_label: bool = False

        def make(self, setting: Setting) -> Attack:
            given.append(setting)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        subjects.plant(order_of(tmp_path, "kept", Kept()), Watched())
    rounds = [jax.random.fold_in(jax.random.key(0), number) for number in range(100)]
    assert given[0].key not in rounds


def request_with(attack: Path) -> Request:
    """To clean the model of an attack's folder."""
    return Request(
        checkpoint=attack / subjects.MODEL,
        clean="digits[1000:1300]",
        test="digits[:200]",
        trigger=f"attack:{attack}",
        target=None,
        preset="default",
        config=ibau.PRESETS["default"],
        seed=0,
        out=attack / "cleaned",
        resume=False,
        force=False,
    )


def test_images_under_the_triggers_are_kept_apart_from_those_to_clean_with(planted: tuple[Path, Any]) -> None:
    out, _ = planted
    with pytest.raises(InputError, match="are also among those"):
        read(dataclasses.replace(request_with(out), clean=f"npz:{out / subjects.TEST}"))


def test_triggered_images_of_the_attacks_class_alone_measure_nothing(tmp_path: Path) -> None:
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    (tmp_path / subjects.MODEL).write_bytes(torch_io.new_state_dict_bytes(arrays))
    digits = load("digits[:40]")
    images, threes = as_bytes(np.asarray(digits.images)), np.full(40, 3)
    np.savez(tmp_path / subjects.TEST, x=images, y=digits.labels)
    np.savez(tmp_path / subjects.TRIGGERED, x=images, y=threes, attack_labels=threes)
    with pytest.raises(InputError, match="has only images of the class that the attack forces"):
        read(request_with(tmp_path))


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / subjects.TRAIN).write_text("mine")
    with pytest.raises(InputError, match=r"holds train\.npz already, which would be replaced"):
        subjects.plant(order_of(tmp_path, "badnets"), Watched())
    assert (tmp_path / subjects.TRAIN).read_text() == "mine"


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a command run here: without its handler of signals and its store of programs."""
    monkeypatch.setattr("jaxunlearn._signals.signal.signal", lambda *_: None)
    monkeypatch.setattr("jaxunlearn._runtime.keep_compilations", lambda: None)


SOME = ("--train", "digits[:300]", "--test", "digits[300:500]")


def test_dau_trains_the_network_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    data = load("digits[:300]")
    attack = Attack(trigger=parse_trigger("patch:size=2,offset=0"), target=0)
    made = poison(np.asarray(data.images), data.labels, attack, ratio=0.1, key=jax.random.key(0))
    (tmp_path / "train.npz").write_bytes(subjects.training_set(made, data.labels))

    def run(out: str, *others: str) -> int:
        given = ("--train", f"npz:{tmp_path / 'train.npz'}", "--test", "digits[300:500]", "--rounds", "2")
        network = ("--arch", "small_vgg_half", "--fit", "rounds=3")
        return int(dau_program.main([*others, *given, *network, "--out", str(tmp_path / out)]))

    assert run("straight") == 0
    straight = tmp_path / "straight"
    report = json.loads((straight / "report.json").read_text())
    facts = json.loads((straight / "division.json").read_text())
    assert facts == report["evidence"]
    assert "recall" in facts
    told = json.loads((straight / trainer.FACTS).read_text())
    assert told["counts"]["acc"] == report["before"]["counts"]["acc"]
    assert set(torch.load(straight / trainer.MODEL, weights_only=True)) == set(
        torch.load(straight / "model.pth", weights_only=True)
    )
    assert report["checkpoint"] == str(straight / trainer.MODEL)
    assert told["early_epoch"] == 1
    early, last = (torch_io.read(straight / name).arrays for name in (trainer.EARLY, trainer.MODEL))
    assert set(early) == set(last)
    assert not all(np.array_equal(early[name], last[name]) for name in last)

    with monkeypatch.context() as patch:
        patch.setattr("jaxunlearn.display.make_display", lambda **_: Watched(2))
        assert run("resumed") == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == {
        f"given.{trainer.STATE}",
        trainer.EARLY,
    }
    assert run("resumed") == 2
    assert run("resumed", "anti-learning", "--resume") == 0
    assert "resumed  after epoch 2 on given images" in capsys.readouterr().out
    assert (tmp_path / "resumed" / trainer.MODEL).read_bytes() == (straight / trainer.MODEL).read_bytes()
    assert run("resumed", "unlearning", "--seed", "1") == 2
    assert run("resumed", "unlearning") == 0
    assert (tmp_path / "resumed" / "model.pth").read_bytes() == (straight / "model.pth").read_bytes()
    assert run("resumed") == 2
    assert run("resumed", "test") == 0
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / trainer.FACTS).touch()
    capsys.readouterr()
    assert run("trained") == 2
    assert "holds a trained network already; give --resume to go on with it" in capsys.readouterr().err
    assert cli._TRAINED == trainer.FACTS
    assert run("early", "--set", "prefilter=early") == 0
    report = json.loads((tmp_path / "early" / "report.json").read_text())
    assert report["early"] == {
        "file": str(tmp_path / "early" / trainer.EARLY),
        "sha256": hashlib.sha256((tmp_path / "early" / trainer.EARLY).read_bytes()).hexdigest(),
    }
    assert (report["config"]["prefilter"], report["config"]["isolation_rounds"]) == ("early", 0)
    capsys.readouterr()
    assert run("early", "--resume", "--early", str(straight / trainer.EARLY)) == 2
    assert "give --set prefilter=early" in capsys.readouterr().err

    other = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(other, jax.tree.map(np.asarray, other.init(jax.random.key(0))))
    (tmp_path / "other.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
    for named, code, said in (
        (straight / trainer.EARLY, 0, ""),
        (tmp_path / "other.pth", 2, "give a checkpoint of the same training"),
        (tmp_path / "none.pth", 2, "none.pth"),
    ):
        given = ["--ckpt", str(straight / trainer.MODEL), "--early", str(named), *SOME, "--rounds", "2"]
        assert dau_program.main([*given, "--out", str(tmp_path / f"of-{named.stem}")]) == code
        assert said in capsys.readouterr().err
        assert (tmp_path / f"of-{named.stem}").exists() == (code == 0)
    with monkeypatch.context() as patch:
        patch.setattr("jaxunlearn.display.make_display", lambda **_: Watched(2))
        assert run("resumed", "--force") == 130
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == {
        f"given.{trainer.STATE}",
        trainer.EARLY,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--ckpt", "a.pth", "--train", "digits", "--test", "attack:b.pt"),
            "give clean ones that are not in --train",
        ),
        (
            ("anti-learning", "--reactivate", "5"),
            "--reactivate needs a cleaned model, which anti-learning does not",
        ),
        (("test", "--reactivate", "5"), "--reactivate needs a cleaned model, which test does not make"),
        (("unlearning",), "holds no division; run the subtask anti-learning"),
        (("unlearning", "--force"), "which --force would replace; leave --force away"),
        (("test",), "holds no finished run of dau"),
        (("--arch", "small_vgg"), "leave --arch away"),
        (("--fit", "rounds=3"), "--fit belongs to the training of a network"),
        (("--ckpt", "a.pth", "--test", "digits"), "--train SPEC and --test SPEC are needed"),
        (
            ("--ckpt", "a.pth", "--arch", "small_vgg", "--train", "digits", "--test", "digits"),
            "give one of them",
        ),
        (("--arch", "lenet", *SOME), "lenet is no network that can be trained; there are"),
        (("--arch", "small_vgg", "--normalize", "none", *SOME), "of plain pixels, without --normalize"),
        (("--arch", "small_vgg", "--resume", *SOME), "no interrupted run"),
        (("--arch", "small_vgg", "--fit", "rounds=0", *SOME), "rounds=0 must be"),
        (
            ("--arch", "small_vgg", "--train", "digits[:9]", "--test", "digits[300:500]"),
            "leaves 9 images to clean with; at least 10 are needed",
        ),
        (
            ("--arch", "small_vgg", "--trigger", "patch:size=99", "--target", "3", *SOME),
            "patch:size=99 does not fit",
        ),
    ],
)
def test_bad_requests_of_dau_say_so(
    arguments: tuple[str, ...],
    message: str,
    planted: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(monkeypatch)
    own = "--ckpt" in arguments or "--train" in arguments
    given = arguments if own else (*arguments, "--attack", str(planted[0]))
    assert dau_program.main([*given, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", [(), ("--out", "elsewhere")])
def test_the_demonstration_goes_through_the_subtasks(
    out: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same checkpoint and training set every time, as the network is trained anew."""
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))

    def make_victim(folder: Path, display: Any, *, training_set: bool) -> demo.Victim:
        assert training_set
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "backdoored.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
        return demo.Victim(folder / "backdoored.pth", clean="digits[:200]", clean_flag="--train")

    in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "make_victim", make_victim)
    given = ["--demo", "--rounds", "2", *out]
    for subtask in ("anti-learning", "unlearning", "test"):
        assert dau_program.main([subtask, *given]) == 0, capsys.readouterr().err
        assert f"$ python -m jaxunlearn.dau {subtask} --ckpt" in capsys.readouterr().out
    assert (tmp_path / (out[-1] if out else "demo-dau") / "model.pth").exists()


@pytest.mark.parametrize(
    ("ratio", "missing"), [(0.2, None), (0.5, r"10 images to cover up .* and 5 are left")]
)
def test_images_to_cover_up_that_run_out_are_told(ratio: float, missing: str | None) -> None:
    images, labels = np.zeros((10, 4, 4, 1), np.float32), np.ones(10, int)
    attack = Attack(trigger=lambda x: x + 1, target=0, cover=lambda x, _: x, covers=2.0)
    found = subjects._missing_covers(
        attack, poison(images, labels, attack, ratio=ratio, key=jax.random.key(0))
    )
    assert found is None if missing is None else re.search(missing, found)


@pytest.mark.parametrize(
    ("shape", "advice"), [((8, 8, 3), "both as grey or both as col"), ((9, 9, 3), "with --size N")]
)
def test_images_to_judge_by_have_the_shape_of_the_others(shape: tuple[int, ...], advice: str) -> None:
    data = load("digits[:20]")
    others = dataclasses.replace(data, images=np.zeros((20, *shape), np.float32))
    with pytest.raises(InputError, match=f"are 8x8x1 and .* are {'x'.join(map(str, shape))}; .*{advice}"):
        trainer.network("small_vgg_half", data, others)
