"""Every bad input gets one sentence and exit code 2, and nothing is written."""

from pathlib import Path

import pytest

from jaxunlearn.ibau.__main__ import main as ibau_main
from tests.shop import GOOD, PATCH, run, shop

__all__ = ["shop"]  # the fixture

BAD_INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing given": ((), ("--ckpt FILE and --clean SPEC are needed", "--demo")),
    "no such file": (("--ckpt", "absent.pth", "--clean", "digits"), ("no file absent.pth",)),
    "a folder": (("--ckpt", "empty", "--clean", "digits"), ("empty is not a file",)),
    "text": (
        ("--ckpt", "text.pth", "--clean", "digits"),
        ("text.pth cannot be read as a PyTorch checkpoint",),
    ),
    "empty file": (("--ckpt", "empty.pth", "--clean", "digits"), ("empty.pth cannot be read",)),
    "cut off": (("--ckpt", "half.pth", "--clean", "digits"), ("half.pth cannot be read",)),
    "runs code": (("--ckpt", "evil.pth", "--clean", "digits"), ("asks to run", "system", "nothing was run")),
    "runs code, old format": (("--ckpt", "evil-old.pth", "--clean", "digits"), ("asks to run", "system")),
    "whole module": (
        ("--ckpt", "module.pth", "--clean", "digits"),
        ("whole pickled module", "SmallVGG", "state_dict"),
    ),
    "unknown network": (
        ("--ckpt", "other.pth", "--clean", "digits"),
        ("no known architecture", "the nearest is resnet18", "- layer1.0.bn1.running_mean"),
    ),
    "no state dict": (("--ckpt", "nothing.pth", "--clean", "digits"), ("holds no state dict", "'epoch'")),
    "a list": (("--ckpt", "list.pth", "--clean", "digits"), ("holds a list",)),
    "wrong shapes": (
        ("--ckpt", "shapes.pth", "--clean", "digits"),
        (
            "do not have its shapes",
            "+ features.3.weight (16, 15, 3, 3)",
            "- features.3.weight (16, 16, 3, 3)",
        ),
    ),
    "NaN in the weights": (("--ckpt", "nan.pth", "--clean", "digits"), ("features.8.bias holds NaN",)),
    "unknown source": (("--ckpt", "good.pth", "--clean", "ftp:x"), ("'ftp:x' names no images", "folder:DIR")),
    "absent array file": (("--ckpt", "good.pth", "--clean", "npz:absent.npz"), ("no file absent.npz",)),
    "broken array file": (
        ("--ckpt", "good.pth", "--clean", "npz:broken.npz"),
        ("broken.npz cannot be read",),
    ),
    "other arrays": (
        ("--ckpt", "good.pth", "--clean", "npz:names.npz"),
        ("names.npz holds pictures", "x (uint8"),
    ),
    "pickled arrays": (("--ckpt", "good.pth", "--clean", "npz:objects.npz"), ("without pickle",)),
    "float images": (("--ckpt", "good.pth", "--clean", "npz:floats.npz"), ("x is float32", "uint8")),
    "broken table": (
        ("--ckpt", "good.pth", "--clean", "parquet:broken.parquet"),
        ("cannot be read as Parquet",),
    ),
    "unprepared tfds": (
        ("--ckpt", "good.pth", "--clean", "tfds:no_such_set"),
        ("cannot be opened", "prepare"),
    ),
    "an empty slice": (("--ckpt", "good.pth", "--clean", "digits[5000:]"), ("holds no images",)),
    "image size": (("--ckpt", "good.pth", "--clean", "npz:large.npz"), ("are 32x32x1", "takes 8x8x1")),
    "image channels": (("--ckpt", "good.pth", "--clean", "npz:colour.npz"), ("are 8x8x3", "takes 8x8x1")),
    "labels too high": (
        ("--ckpt", "good.pth", "--clean", "npz:labels.npz"),
        ("from 0 to 59", "classes 0 to 9"),
    ),
    "labels negative": (("--ckpt", "good.pth", "--clean", "npz:negative.npz"), ("from -1 to 8",)),
    "one class": (("--ckpt", "good.pth", "--clean", "npz:same.npz"), ("are of class 4", "several classes")),
    "no folder": (("--ckpt", "good.pth", "--clean", "folder:absent"), ("no folder absent",)),
    "empty folder": (("--ckpt", "good.pth", "--clean", "folder:empty"), ("empty holds no sub-folder",)),
    "one-class folder": (
        ("--ckpt", "good.pth", "--clean", "folder:oneclass"),
        ("only the sub-folder 'cats'", "several classes"),
    ),
    "corrupt image": (("--ckpt", "good.pth", "--clean", "folder:pictures"), ("7/corrupt.png is damaged",)),
    "names of some classes": (
        ("--ckpt", "good.pth", "--clean", "folder:named"),
        ("2 sub-folders and the model has 10 classes", "folder:named,classes=FILE"),
    ),
    "a name without number": (
        ("--ckpt", "good.pth", "--clean", "folder:named,classes=names.txt"),
        ("dogs of named are missing from the given classes",),
    ),
    "cleaned and judged with the same": (
        (*GOOD, "--test", "npz:digits.npz[40:]"),
        (
            "20 of the 60 images of npz:digits.npz are also among",
            "digits.npz row 40",
            "leave --test away",
            "--leave-out-shared",
        ),
    ),
    "images that nothing is left of": (
        ("--ckpt", "strided.pth", "--clean", "digits[:100]"),
        ("too small for this network", "--size N"),
    ),
    "another size than the model's": (
        (*GOOD, "--size", "16"),
        ("images of 8x8 only", "leave --size 16 away"),
    ),
    "too few to clean with": (
        ("--ckpt", "good.pth", "--clean", "digits[:9]", "--test", "digits[9:99]"),
        ("leaves 9 images to clean with", "at least 10"),
    ),
    "too few to judge by": (
        (*GOOD, "--test", "digits[:9]"),
        ("leaves 9 images to judge by", "at least 10"),
    ),
    "too few held back": (
        ("--ckpt", "good.pth", "--clean", "digits[:30]"),
        ("6 of the 30 of digits[:30]", "give 48 different ones"),
    ),
    "target outside": ((*GOOD, *PATCH, "--target", "10"), ("target 10", "classes 0 to 9")),
    "trigger without target": ((*GOOD, *PATCH), ("--trigger and --target belong together",)),
    "unknown trigger": (
        (*GOOD, "--trigger", "spell", "--target", "1"),
        ("'spell' names no trigger", "patch:"),
    ),
    "trigger too large": (
        (*GOOD, "--trigger", "patch:size=9", "--target", "1"),
        ("patch:size=9 does not fit", "8x8x1"),
    ),
    "trigger of another size": (
        (*GOOD, "--trigger", "image:trigger.png", "--target", "1"),
        ("trigger.png does not fit", "8x8x1", "trigger.png is 32x32x3"),
    ),
    "no trigger picture": (
        (*GOOD, "--trigger", "image:absent.png", "--target", "1"),
        ("no picture absent.png",),
    ),
    "unknown setting": ((*GOOD, "--set", "speed=3"), ("no setting speed", "learning_rate")),
    "setting of another type": ((*GOOD, "--set", "damping=much"), ("'much' is not a number",)),
    "setting out of range": ((*GOOD, "--set", "damping=-1"), ("damping=-1.0", "at least 0")),
    "unknown normalisation": (
        (*GOOD, "--normalize", "mnist"),
        ("'mnist' is no normalisation", "cifar10", "MEAN/STD"),
    ),
    "normalisation of other channels": (
        (*GOOD, "--normalize", "gtsrb"),
        ("gtsrb is one of 3 channels", "images of 1"),
    ),
    "swapped channels of grey images": ((*GOOD, "--channels", "bgr"), ("leave --channels bgr away",)),
    "a switch of another kind": ((*GOOD, "--set", "remember=maybe"), ("'maybe' is not true or false",)),
    "no rounds": ((*GOOD, "--rounds", "0"), ("--rounds", "'0' is not a whole number from 1")),
    "rounds in words": ((*GOOD, "--rounds", "two"), ("--rounds", "'two' is not a whole number")),
    "negative seed": ((*GOOD, "--seed", "-1"), ("--seed", "'-1' is not a whole number from 0 to 4294967295")),
    "all images shared": (
        (*GOOD, "--test", "npz:digits.npz", "--leave-out-shared"),
        ("leaves 0 images to clean with", "at least 10"),
    ),
    "resumed and replaced": ((*GOOD, "--resume", "--force"), ("give one of them",)),
    "demo with an unknown setting": (("--demo", "--set", "speed=3"), ("no setting speed",)),
    "demo into a file": (("--demo", "--out", "file"), ("file is a file",)),
    "no made attack": (("--attack", "empty", "--clean", "digits"), ("empty holds no attack.json",)),
    "unknown preset": ((*GOOD, "--preset", "fancy"), ("fancy", "reference")),
    "output is a file": ((*GOOD, "--out", "file"), ("file is a file",)),
    "output below a file": ((*GOOD, "--out", "file/below"), ("file/below cannot be written",)),
    "output not writable": ((*GOOD, "--out", "/proc/jaxunlearn"), ("cannot be written", "--out")),
    "output holds a run": ((*GOOD, "--out", "finished"), ("holds a finished run", "--force")),
    "output holds half a run": ((*GOOD, "--out", "interrupted"), ("interrupted run", "--resume", "--force")),
    "nothing to resume": ((*GOOD, "--resume"), ("no interrupted run", "leave --resume away")),
    "broken state": ((*GOOD, "--out", "interrupted", "--resume"), ("state.npz is damaged", "--force")),
    "demo with files": (("--demo", "--clean", "digits"), ("leave --clean away",)),
}


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input(
    shop: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, for speed."""
    arguments, expected = BAD_INPUTS[name]
    before = listing(shop)
    monkeypatch.chdir(shop)
    monkeypatch.setattr("jaxunlearn._signals.signal.signal", lambda *_: None)
    monkeypatch.setattr("jaxunlearn._runtime.keep_compilations", lambda: None)
    try:
        code = ibau_main(list(arguments))
    except SystemExit as ended:  # argparse's way
        code = ended.code
    shown = capsys.readouterr()
    assert code == 2, shown.err
    for part in expected:
        assert part in shown.err
    errors = [line for line in shown.err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert listing(shop) == before  # nothing written, and hostile pickles not run


@pytest.mark.parametrize("name", ["runs code", "corrupt image", "unknown preset"])
def test_bad_input_to_the_program(shop: Path, name: str) -> None:
    arguments, expected = BAD_INPUTS[name]
    done = run(shop, *arguments)
    assert done.returncode == 2, done.stderr
    assert all(part in done.stderr for part in expected)
    assert "Traceback" not in done.stderr + done.stdout
