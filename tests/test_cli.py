"""The command line as people use it: as a process of its own, from another folder."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import jaxunlearn
from converters import torch_io
from experiments.torch_ibau import SmallVGG
from jaxunlearn import __main__ as overview
from jaxunlearn import ibau
from jaxunlearn.cli import settings_of
from jaxunlearn.data import load
from jaxunlearn.ibau.__main__ import main as ibau_main
from jaxunlearn.inputs import files_written
from tests.shop import GOOD, PATCH, WIDTHS, command, environment, run, shop

__all__ = ["shop"]  # the fixture


@pytest.fixture(scope="module")
def finished(victim: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One complete run with everything given."""
    folder = victim.parent
    arguments = ("--ckpt", victim, "--clean", "digits[1000:1300]", "--test", "digits[1300:]", "--out", "done")
    return folder / "done", run(folder, *arguments, *PATCH, "--target", 0, "--reactivate", 5, 20)


def test_a_run_writes_everything(finished: tuple[Path, Any]) -> None:
    out, done = finished
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"model.pth", "model.safetensors", "report.json", "curves.png", "perturbation.png"}
    assert names == set(files_written("ibau", ".pth"))
    for name in ("curves.png", "perturbation.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 300
            assert len(set(picture.convert("L").tobytes())) > 20


def test_the_report_is_complete_and_true(finished: tuple[Path, Any], victim: Path) -> None:
    out, _ = finished
    report = json.loads((out / "report.json").read_text())
    assert set(report) >= {
        *("before", "after", "der", "rounds", "method", "preset", "config", "seed", "architecture"),
        *("input_sha256", "output_sha256", "seconds", "device", "versions"),
    }
    assert report["input_sha256"] == torch_io.hash_file(victim)
    assert report["output_sha256"] == torch_io.hash_file(out / "model.pth")
    assert set(report["seconds"]) == {"load", "compile", "unlearn", "evaluate"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert len(report["rounds"]) == report["config"]["rounds"]
    assert (report["preprocessing"]["name"], report["preprocessing"]["chosen"]) == ("none", "by accuracy")
    assert report["warnings"] == []
    test = load("digits[1300:]")
    for when, path in (("before", victim), ("after", out / "model.pth")):
        counts = torch_counts(path, test)
        for name, (hits, total) in counts.items():
            found_hits, found_total = report[when]["counts"][name]
            assert total == found_total
            assert abs(hits - found_hits) <= 1, name  # two backends may round one logit apart
            assert report[when][name] == found_hits / found_total


def torch_counts(path: Path, test: Any) -> dict[str, tuple[int, int]]:
    """ACC, ASR and RA by PyTorch alone."""
    model = SmallVGG(10, 1, 8, WIDTHS).eval()
    model.load_state_dict(torch.load(path, weights_only=True)["net"], strict=True)
    images, labels = torch.from_numpy(test.images).permute(0, 3, 1, 2), torch.from_numpy(test.labels)
    triggered = images.clone()
    triggered[:, :, 6:, 6:] = 1.0
    with torch.no_grad():
        clean, attacked = model(images).argmax(1), model(triggered).argmax(1)
    others = labels != 0
    total = int(others.sum())
    return {
        "acc": (int((clean == labels).sum()), len(labels)),
        "asr": (int((attacked[others] == 0).sum()), total),
        "ra": (int((attacked == labels)[others].sum()), total),
    }


def test_the_planted_trigger_stops_working_and_accuracy_stays(finished: tuple[Path, Any]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    assert report["before"]["asr"] > 0.9
    assert report["after"]["asr"] < 0.05
    assert report["after"]["acc"] > report["before"]["acc"] - 0.03
    assert report["after"]["ra"] > report["after"]["acc"] - 0.1
    assert report["der"] > 0.9


def test_reactivation_is_judged_by_other_images(finished: tuple[Path, Any]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    entries = report["reactivation"]
    assert [entry["images"] for entry in entries] == [5, 20]
    whole = report["after"]["counts"]["asr"][1]
    assert [entry["counts"]["asr"][1] for entry in entries] == [whole - 5, whole - 20]
    judged = report["after"]["counts"]["acc"][1]
    assert all(0 < entry["counts"]["acc"][1] < judged - entry["images"] for entry in entries)
    assert entries[1]["asr"] >= report["after"]["asr"]
    assert all(entry["acc"] > report["after"]["acc"] - 0.1 for entry in entries)
    assert sum(line.startswith("again") for line in finished[1].stdout.splitlines()) == 2


def test_the_evidence_names_the_class_without_knowing_it(finished: tuple[Path, Any]) -> None:
    evidence = json.loads((finished[0] / "report.json").read_text())["evidence"]
    assert evidence["class"] == 0
    assert evidence["share_before"] > 0.5 > evidence["share_after"]
    assert evidence["rival"] != 0
    assert 0 < evidence["rival_share"] < evidence["share_before"] - 0.2
    rival = f"{100 * evidence['rival_share']:.1f} % to class {evidence['rival']}"
    lead = f"a lead of {100 * (evidence['share_before'] - evidence['rival_share']):.0f} points"
    said = f"to class 0, and the best towards another {rival} ({lead}, which speaks for a backdoor); after"
    assert said in evidence["sentence"]
    assert f"perturbation of norm {evidence['norm']:.2f}" in evidence["sentence"]


def test_the_model_comes_back_as_it_came(finished: tuple[Path, Any], victim: Path) -> None:
    from safetensors.torch import load_file

    before = torch.load(victim, weights_only=True)
    after = torch.load(finished[0] / "model.pth", weights_only=True)
    assert list(before) == list(after) == ["net"]
    assert list(before["net"]) == list(after["net"])
    for key, tensor in before["net"].items():
        assert (tensor.shape, tensor.dtype) == (after["net"][key].shape, after["net"][key].dtype)
    safe = load_file(finished[0] / "model.safetensors")
    assert all(torch.equal(safe[key], tensor) for key, tensor in after["net"].items())


def test_plain_lines_show_every_round(finished: tuple[Path, Any]) -> None:
    lines = finished[1].stdout.splitlines()
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all(word in rounds[0] for word in ("inner_loss", "outer_loss", "ACC", "ASR", "RA", "left"))
    assert any(line.startswith("before") for line in lines)
    assert any(line.startswith("after") for line in lines)


def test_interrupted_and_resumed_gives_the_same_bits(
    finished: tuple[Path, Any],
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = victim.parent
    arguments = ("--ckpt", victim, "--clean", "digits[1000:1300]", "--test", "digits[1300:]", "--out", "cut")
    arguments = (*arguments, *PATCH, "--target", 0)
    # Shells let their background jobs ignore it, and so these tests if they are one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round 1/3"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert {path.name for path in (folder / "cut").iterdir()} == {"state.npz"}

    monkeypatch.chdir(folder)
    monkeypatch.setattr("jaxunlearn._signals.signal.signal", lambda *_: None)
    monkeypatch.setattr("jaxunlearn._runtime.keep_compilations", lambda: None)
    for other, difference in (
        (("--seed", "1"), "had seed 0 and this one has 1"),
        (("--normalize", "half"), "had preprocessing"),
    ):
        assert ibau_main([*map(str, arguments), "--resume", *other]) == 2
        assert difference in capsys.readouterr().err
    resumed = run(folder, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed  after round 1" in resumed.stdout
    straight = json.loads((finished[0] / "report.json").read_text())
    report = json.loads((folder / "cut" / "report.json").read_text())
    assert report["output_sha256"] == straight["output_sha256"]
    assert report["rounds"] == straight["rounds"]
    assert (folder / "cut" / "model.pth").read_bytes() == (finished[0] / "model.pth").read_bytes()


def test_quiet_without_trigger_and_test_images(shop: Path) -> None:
    done = run(shop, *GOOD, "--quiet", "--rounds", 1, method="finetune")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    report = json.loads((shop / "good-finetune" / "report.json").read_text())
    assert report["before"]["asr"] is None
    assert report["der"] is None
    assert report["before"]["counts"]["acc"][1] == 12
    assert any("12 of the clean images are held back" in notice for notice in report["notices"])
    assert any("attack success rate is unknown" in notice for notice in report["notices"])
    assert any("--normalize" in warning for warning in report["warnings"])  # the network was never trained


@pytest.mark.parametrize(
    ("method", "preset", "rounds", "pictures"),
    [
        pytest.param("finetune", "default", 1, set(), marks=pytest.mark.slow),
        ("ulrl", "reference", 21, {"scores.png"}),
        pytest.param("sau", "reference", 1, {"perturbation.png"}, marks=pytest.mark.slow),
        ("sau", "fast", 1, {"perturbation.png"}),
    ],
)
def test_the_other_methods_have_the_same_command(
    shop: Path, method: str, preset: str, rounds: int, pictures: set[str]
) -> None:
    name = f"{method}-{preset}"
    flags = (*PATCH, "--target", 3, "--preset", preset, "--rounds", rounds, "--out", name)
    done = run(shop, *GOOD, *flags, method=method)
    assert done.returncode == 0, done.stderr
    report = json.loads((shop / name / "report.json").read_text())
    assert (report["method"], report["preset"], len(report["rounds"])) == (method, preset, rounds)
    assert report["before"]["asr"] is not None and report["after"]["ra"] is not None
    assert report["evidence"]["sentence"] in done.stdout
    common = {"model.pth", "model.safetensors", "report.json", "curves.png"}
    assert {path.name for path in (shop / name).iterdir()} == common | pictures
    assert common | pictures == set(files_written(method, ".pth"))
    for picture in pictures:
        with Image.open(shop / name / picture) as opened:
            assert opened.width > 300


def test_photographs_of_any_size(shop: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        (shop / "photos" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10 + number % 3, 12)).astype(np.uint8)
        Image.fromarray(pixels).save(shop / "photos" / str(number % 2) / f"{number}.png")
    given = ("--ckpt", "good.pth", "--clean", "folder:photos", "--out", "sized", "--rounds", 1)
    done = run(shop, *given, method="finetune")
    assert done.returncode == 0, done.stderr
    notices = json.loads((shop / "sized" / "report.json").read_text())["notices"]
    assert any("60 of the 60 pictures" in notice and "from 10x12 to 12x12" in notice for notice in notices)
    assert any("2 of the model's 10 classes" in notice for notice in notices)


def test_nan_in_the_first_round_stops_with_a_sentence(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--set",
        "learning_rate=1e38",
        "--set",
        "optimizer=sgd",
        "--set",
        "batch_size=8",
        "--out",
        "nan",
    )
    monkeypatch.chdir(shop)
    monkeypatch.setattr("jaxunlearn._signals.signal.signal", lambda *_: None)
    monkeypatch.setattr("jaxunlearn._runtime.keep_compilations", lambda: None)
    assert ibau_main([*GOOD, "--preset", "reference", *arguments]) == 1
    assert "Round 1 gave NaN or infinite values in" in capsys.readouterr().err
    assert not (shop / "nan").exists()


def test_help_names_every_flag_of_the_readme_and_every_setting(shop: Path) -> None:
    done = run(shop, "--help")
    assert done.returncode == 0
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| `--")]
    flags = {flag for row in rows for flag in re.findall(r"--[a-z-]+", row.split("|")[1])}
    assert len(flags) > 15
    settings = {text.partition("=")[0] for text in settings_of(ibau.PRESETS["default"]).split(", ")}
    trains = run(shop, "--help", method="dau")
    for name in (*flags, "--demo", "--reactivate", *settings):
        assert (
            name
            in (trains if name in ("--train", "--arch", "--fit", "--division", "--early") else done).stdout
        )


def test_the_package_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(overview.__file__).parent
    assert {path.parent.name for path in folder.glob("*/__main__.py")} == set(overview.COMMANDS)
    assert overview.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"python -m jaxunlearn.{name} " in said for name in overview.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ibau", "--ckpt", "m.pth"], "ibau follows a dot: python -m jaxunlearn.ibau --ckpt m.pth"),
        (["clean"], "there is no command clean; there are ibau, "),
        (["--demo"], "there is no command --demo"),
    ],
)
def test_what_is_no_command_of_the_package_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        overview.main(arguments)
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_the_package_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        overview.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"jaxunlearn {jaxunlearn.__version__}\n"
