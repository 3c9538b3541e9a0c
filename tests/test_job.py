"""Runs in this process, with methods made up for the test."""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from converters import convert, torch_io
from jaxunlearn import cli, ibau, job
from jaxunlearn._check import InputError
from jaxunlearn._checkpointing import STATE_FILE, check_same, load_notes, save_state
from jaxunlearn._files import only_writer
from jaxunlearn._loop import Method, NonFiniteError
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.data import load
from jaxunlearn.dau import __main__ as dau_program
from jaxunlearn.display import make_display
from jaxunlearn.finetune import __main__ as finetune_program
from jaxunlearn.ibau import __main__ as ibau_program
from jaxunlearn.inputs import Request
from jaxunlearn.models import small_vgg


class _State(NamedTuple):
    variables: Any
    round: Any


def failing_in(number: int) -> job.Procedure:
    """A method that gives NaN in one round."""
    return changing(lambda leaf, now: leaf * jnp.where(now == number, jnp.nan, 0.99))


def changing(change: Any, over: Any = lambda _: False) -> job.Procedure:
    """A method that changes every leaf in every round."""

    def make_method(apply_fn: Any, execution: Any) -> Method:
        def step(state: _State, data: Any) -> Any:
            now = state.round + 1
            return _State(jax.tree.map(lambda leaf: change(leaf, now), state.variables), now), now

        return Method(
            lambda variables, *_: _State(variables, jnp.asarray(0)),
            step,
            lambda state: state.variables,
            over,
        )

    evidence = job.Evidence({"sentence": "nothing was looked for."}, {})
    return job.Procedure(
        "failing", make_method, lambda _: {"loss": 0.0}, lambda *_: evidence, lambda _: (1.0,)
    )


def request(folder: Path) -> Request:
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    (folder / "model.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
    return Request(
        checkpoint=folder / "model.pth",
        clean="digits[:40]",
        test="digits[40:80]",
        trigger=None,
        target=None,
        preset="reference",
        config=ibau.Config(rounds=3),
        seed=0,
        out=folder / "out",
        resume=False,
        force=False,
    )


def test_other_work_is_told_by_quarters(capsys: pytest.CaptureFixture[str]) -> None:
    display = make_display(quiet=False)
    for share in (0.1, 0.3, 0.4, 0.9, 1.0, 0.2, 0.6):
        display.work("painting", share)
    assert capsys.readouterr().out.splitlines() == [f"painting  {percent} %" for percent in (25, 75, 100, 50)]


def test_nan_in_a_later_round_keeps_the_last_good_one(tmp_path: Path) -> None:
    asked = request(tmp_path)
    report = job.run(failing_in(3), asked, make_display(quiet=True), time.monotonic())
    assert "Round 3 gave NaN" in report["stopped"]
    assert len(report["rounds"]) == 2
    before, after = (torch_io.read(path).arrays for path in (asked.checkpoint, asked.out / "model.pth"))
    key = "classifier.weight"
    np.testing.assert_allclose(after[key], before[key] * 0.99**2, rtol=1e-5)
    assert json.loads((asked.out / "report.json").read_text()) == report


def test_nan_in_the_first_round_leaves_nothing(tmp_path: Path) -> None:
    asked = request(tmp_path)
    with pytest.raises(NonFiniteError, match="Round 1"):
        job.run(failing_in(1), asked, make_display(quiet=True), time.monotonic())
    assert not asked.out.exists()


def test_a_run_that_is_over_ends_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = changing(lambda leaf, now: leaf, over=lambda state: state.round >= 2)
    asked = dataclasses.replace(request(tmp_path), config=ibau.Config(rounds=9))
    report = job.run(method, asked, make_display(quiet=False), time.monotonic())
    assert [entry["round"] for entry in report["rounds"]] == [1, 2]
    assert report["stopped"] is None
    said = capsys.readouterr().out
    assert "over     after round 2, as its stopping rule says" in said
    assert "round 3/9" not in said


def watching(look: Any) -> job.Procedure:
    """A method that looks at something in its first round."""

    def change(leaf: Any, now: Any) -> Any:
        if now == 1:
            look()
        return leaf

    return changing(change)


def elsewhere(folder: Path) -> subprocess.CompletedProcess[str]:
    """Another program that would write into a folder."""
    writes = (
        "import sys, pathlib, jaxunlearn._files as f\nwith f.only_writer(pathlib.Path(sys.argv[1])): print(1)"
    )
    return subprocess.run(
        [sys.executable, "-c", writes, str(folder)], capture_output=True, text=True, check=False
    )


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    asked, others = request(tmp_path), []
    job.run(
        watching(lambda: others.append(elsewhere(asked.out))),
        asked,
        make_display(quiet=True),
        time.monotonic(),
    )
    assert "InputError: Another run is writing into" in others[0].stderr
    assert others[0].stdout == ""
    assert elsewhere(asked.out).stdout == "1\n"  # the lock went with the run
    with only_writer(asked.out), pytest.raises(InputError, match="Another run"):
        job.run(failing_in(9), dataclasses.replace(asked, force=True), make_display(quiet=True), 0.0)
    assert (asked.out / "report.json").exists()  # of the first run: what was refused has removed nothing


def test_a_second_run_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), checkpoint=tmp_path / "nothing.pth")
    with only_writer(asked.out):
        (asked.out / STATE_FILE).touch()  # the advice to go on with it would be wrong
        for resume in (False, True):
            with pytest.raises(InputError, match="Another run"):
                job.run(
                    failing_in(9), dataclasses.replace(asked, resume=resume), make_display(quiet=True), 0.0
                )


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), only_writer(tmp_path / "file" / "out"):
        pass


def test_a_folder_that_was_made_for_nothing_goes(tmp_path: Path) -> None:
    for name, was_there, written in (("new", False, False), ("used", False, True), ("old", True, False)):
        folder = tmp_path / name
        if was_there:
            folder.mkdir()
        with pytest.raises(FloatingPointError), only_writer(folder):
            if written:
                (folder / STATE_FILE).touch()
            raise FloatingPointError
        assert folder.exists() == (was_there or written), name


def test_crops_that_may_miss_an_image_are_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(tmp_path)
    places = ("--ckpt", str(asked.checkpoint), "--clean", asked.clean, "--test", str(asked.test))
    for program in (finetune_program, ibau_program):
        done = program.main([*places, "--out", str(asked.out), "--set", "crop_padding=8"])
        assert done == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith(
            "error: crop_padding=8 is not less than a side of the images, which are 8x8"
        )
        assert not asked.out.exists()


def test_a_folder_is_looked_at_before_images_are_read(tmp_path: Path) -> None:
    asked = request(tmp_path)
    job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic())
    with pytest.raises(InputError, match="holds a finished run already"):
        job.run(
            failing_in(9), dataclasses.replace(asked, clean="nothing-there"), make_display(quiet=True), 0.0
        )


@pytest.mark.parametrize("answer", [3, None])
def test_a_model_that_lost_much_is_said_to_have(
    answer: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(tmp_path)
    digits = load(asked.test)
    known = dataclasses.replace(asked, test=f"npz:{tmp_path / 'known.npz'}")
    model = convert.from_torch(torch_io.read(asked.checkpoint).arrays)
    given = model.spec.apply(
        jax.tree.map(jnp.asarray, model.variables), jnp.asarray(digits.images), train=False
    )[0]
    pixels = np.round(255 * np.asarray(digits.images)).astype(np.uint8)
    np.savez(tmp_path / "known.npz", x=pixels, y=np.argmax(given, 1).astype(np.int32))
    always = lambda leaf, now: leaf + 1e6 * (jnp.arange(10) == answer) if leaf.shape == (10,) else leaf  # noqa: E731
    report = job.run(changing(always), known, make_display(quiet=False), time.monotonic())
    lost = round(100 * (1 - float(np.mean(np.argmax(given, 1) == 3))))
    expected = f"the cleaned model has lost {lost} points of ACC"
    said = [line for line in capsys.readouterr().out.splitlines() if expected in line]
    assert report["before"]["acc"] == 1.0
    assert len(said) == (answer is not None)
    warned = [f"warning  {text}" for text in report["warnings"] if expected in text]
    assert warned == said


def saved(path: Path, dtype: torch.dtype, *names: str) -> Path:
    """A network in another precision that answers 0 to everything, under those names or bare."""
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    state = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
    state["classifier.weight"] *= 0
    state["classifier.bias"] += 256
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    torch.save(dict.fromkeys(names, state) or state, path)
    return path


def towards_three(leaf: Any, now: Any) -> Any:
    """Half a unit more of the fourth of ten biases."""
    return leaf + 0.5 * (jnp.arange(10) == 3) if leaf.shape == (10,) else leaf


def test_what_is_judged_at_the_end_is_what_the_file_holds(tmp_path: Path) -> None:
    """256.5 is 256 in bfloat16: what unlearning did is lost when it is written."""
    path = saved(tmp_path / "low.pth", torch.bfloat16)
    asked = dataclasses.replace(request(tmp_path), checkpoint=path, config=ibau.Config(rounds=1))
    report = job.run(changing(towards_three), asked, make_display(quiet=True), time.monotonic())
    written = torch_io.read(asked.out / "model.pth").arrays["classifier.bias"].astype(np.float32)
    assert written.tolist()[:3] == [256.0] * 3
    assert report["after"] == report["before"]
    assert report["rounds"][0]["counts"]["acc"] != report["before"]["counts"]["acc"]


def test_weights_beyond_the_precision_of_the_file_are_not_written(tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), checkpoint=saved(tmp_path / "low.pth", torch.float16))
    with pytest.raises(InputError, match="too large for the precision"):
        job.run(changing(lambda leaf, _: leaf * 1e3), asked, make_display(quiet=True), time.monotonic())
    assert not (asked.out / "model.pth").exists()


def test_whole_numbers_are_not_trained(tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), checkpoint=saved(tmp_path / "whole.pth", torch.int64))
    with pytest.raises(
        InputError, match="is int64, and weights have to be floating-point numbers to be trained"
    ):
        job.run(changing(lambda leaf, _: leaf), asked, make_display(quiet=True), time.monotonic())


@pytest.mark.parametrize("kind", ["several state dicts", "safetensors"])
def test_a_finished_run_can_be_judged_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = request(tmp_path)
    if kind == "safetensors":
        read = torch_io.read(asked.checkpoint)
        (tmp_path / "in.safetensors").write_bytes(torch_io.encode_safetensors(read, read.arrays))
        asked = dataclasses.replace(asked, checkpoint=tmp_path / "in.safetensors")
    else:
        path = saved(tmp_path / "two.pth", torch.float32, "net", "model")
        asked = dataclasses.replace(asked, checkpoint=path, key="net")
    report = job.run(changing(towards_three), asked, make_display(quiet=True), time.monotonic())
    capsys.readouterr()
    job.judge(changing(towards_three), asked, make_display(quiet=False))
    assert f"ACC {100 * report['after']['acc']:6.2f} %" in capsys.readouterr().out


def test_the_model_that_is_written_is_the_one_that_reactivation_is_tried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = dataclasses.replace(
        request(tmp_path), config=ibau.Config(rounds=1), trigger="patch:size=2", target=3, reactivate=(5,)
    )
    tried: list[Any] = []

    def judged(inputs: Any, variables: Any, count: int, seed: int) -> Any:
        tried.append((variables, count, seed))
        return inputs.judge(variables)

    monkeypatch.setattr(job, "judge_reactivated", judged)
    farther = changing(lambda leaf, now: 100 * towards_three(leaf, now))
    report = job.run(farther, asked, make_display(quiet=True), time.monotonic())
    written = convert.from_torch(torch_io.read(asked.out / "model.pth").arrays).variables
    [(variables, count, seed)] = tried
    assert (count, seed) == (5, 0)
    jax.tree.map(np.testing.assert_array_equal, variables, written)
    assert report is not None
    assert report["reactivation"][0]["counts"] == report["after"]["counts"] != report["before"]["counts"]


def test_nothing_is_lost_where_the_results_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is there still, and no report that would make a half-written run a finished one."""
    asked = dataclasses.replace(request(tmp_path), config=ibau.Config(rounds=2))
    usual = job.write_together

    def full(folder: Path, files: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_together", full)
    with pytest.raises(OSError, match="No space"):
        unlearn_nothing(asked)
    assert [path.name for path in asked.out.iterdir()] == ["state.npz"]
    monkeypatch.setattr(job, "write_together", usual)
    assert len(unlearn_nothing(asked, resume=True)["rounds"]) == 2
    assert not (asked.out / "state.npz").exists()


def test_a_state_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.npz"
    save_state(path, {"w": jnp.ones(3)}, {"round": 1})

    def failing(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(OSError, match="No space"):
        save_state(path, {"w": jnp.zeros(3)}, {"round": 2})
    assert load_notes(path) == {"round": 1}


def test_a_setting_that_is_new_is_a_difference_even_where_it_is_none() -> None:
    with pytest.raises(InputError, match=r"had config \(b\) None and this one has None"):
        check_same({"config": {"a": 1, "b": None}}, {"config": {"a": 1}})


def test_a_replaced_run_leaves_no_old_model_behind_where_the_new_one_fails(tmp_path: Path) -> None:
    asked = request(tmp_path)
    job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic())
    assert (asked.out / "model.pth").exists()
    (asked.out / "notes.txt").write_text("mine")
    again = dataclasses.replace(asked, force=True)
    with pytest.raises(NonFiniteError):
        job.run(failing_in(1), again, make_display(quiet=True), time.monotonic())
    assert [path.name for path in asked.out.iterdir()] == ["notes.txt"]


def test_a_run_is_not_resumed_with_another_picture_of_the_trigger(tmp_path: Path) -> None:
    picture = tmp_path / "trigger.png"
    Image.new("L", (8, 8), 90).save(picture)
    asked = dataclasses.replace(request(tmp_path), trigger=f"image:{picture}", target=1)
    job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic(), until=1)
    Image.new("L", (8, 8), 120).save(picture)
    with pytest.raises(InputError, match="had trigger on grey"):
        resumed = dataclasses.replace(asked, resume=True)
        job.run(failing_in(9), resumed, make_display(quiet=True), time.monotonic())


def _other_model(asked: Request) -> Request:
    path = asked.checkpoint
    read = torch_io.read(path)
    path.write_bytes(
        torch_io.new_state_dict_bytes({name: np.asarray(2 * array) for name, array in read.arrays.items()})
    )
    return asked


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("checkpoint", _other_model),
        ("preset", lambda asked: dataclasses.replace(asked, preset="default")),
        (r"config \(rounds\)", lambda asked: dataclasses.replace(asked, config=ibau.Config(rounds=4))),
        ("seed", lambda asked: dataclasses.replace(asked, seed=1)),
        (r"clean \(spec\)", lambda asked: dataclasses.replace(asked, clean="digits[80:120]")),
        (r"test \(spec\)", lambda asked: dataclasses.replace(asked, test="digits[41:81]")),
        (r"preprocessing", lambda asked: dataclasses.replace(asked, normalize="0.5/0.25")),
        ("trigger", lambda asked: dataclasses.replace(asked, trigger="patch:size=2", target=1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_is_only_resumed_as_it_was_begun(name: str, change: Any, tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), normalize="none")
    job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic(), until=1)
    kept = (asked.out / "state.npz").read_bytes()
    with pytest.raises(InputError, match=f"The interrupted run had {name}"):
        job.run(
            failing_in(9),
            change(dataclasses.replace(asked, resume=True)),
            make_display(quiet=True),
            time.monotonic(),
        )
    assert (asked.out / "state.npz").read_bytes() == kept


def test_images_that_changed_under_their_name_are_not_gone_on_with(tmp_path: Path) -> None:
    path, labels = tmp_path / "clean.npz", np.arange(40) % 10
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    np.savez(path, x=images, y=labels)
    asked = dataclasses.replace(request(tmp_path), clean=f"npz:{path}")
    job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic(), until=1)
    np.savez(path, x=255 - images, y=labels)
    with pytest.raises(InputError, match=r"had clean \(sha256\)"):
        unlearn_nothing(asked, resume=True)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise PermissionError(13, "Permission denied", "photos")

    assert cli.guarded(work, tmp_path, "*.npz") == 2
    assert capsys.readouterr().err == "error: photos cannot be read or written (Permission denied).\n"


def test_a_full_disk_is_said_with_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise OSError(28, "No space left on device")

    assert cli.guarded(work, tmp_path, "*.npz") == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path} cannot be read or written (No space left on device).\n"
    )
    (tmp_path / "state.npz").touch()
    assert cli.guarded(work, tmp_path, "*.npz") == 2
    assert capsys.readouterr().err.endswith(
        f"the finished rounds are kept in {tmp_path}; go on with --resume.\n"
    )


def test_a_reader_that_went_away_is_not_taken_for_a_bad_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", sys.stdout)
    assert cli.guarded(work, tmp_path, "*.npz") == 2
    assert capsys.readouterr().err == "error: nobody reads what is printed any more; give --quiet.\n"


def test_a_program_without_standard_streams_runs_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        raise InputError("Something is wrong.")

    for stream in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(stream, None)
    make_display(quiet=False).say("hello")
    assert cli.guarded(work, tmp_path) == 2


@pytest.mark.parametrize("error", [OSError(36, "File name too long"), KeyboardInterrupt()])
def test_a_name_that_is_too_long_is_said_in_one_sentence(
    error: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert cli.guarded(work, tmp_path / ("a" * 300), "*.npz") in (2, 130)
    assert capsys.readouterr().err.count("\n") == 1


def test_links_that_lead_in_circles_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert finetune_program.main(["--attack", str(tmp_path / "loop"), "--clean", "digits[:20]"]) == 2
    assert "loop holds no attack.json" in capsys.readouterr().err
    with pytest.raises(InputError, match="loop cannot be written"):
        unlearn_nothing(request(tmp_path), out=tmp_path / "loop")


def test_dau_says_what_it_takes_in_place_of_clean_images(capsys: pytest.CaptureFixture[str]) -> None:
    """Who comes from another method gives --clean, whose SPEC would be taken for a part of the work."""
    for given in (["--clean", "digits"], ["--clean=digits"]):
        with pytest.raises(SystemExit, match="2"):
            dau_program.main(["--ckpt", "model.pth", *given])
        assert "dau takes --train, the images that the model was trained on" in capsys.readouterr().err


def test_without_a_home_no_programs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    kept = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        keep_compilations()
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def unlearn_nothing(asked: Request, **changes: Any) -> Any:
    method = changing(lambda leaf, _: leaf)
    return job.run(method, dataclasses.replace(asked, **changes), make_display(quiet=True), time.monotonic())


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "curves.png"])
def test_files_of_others_are_not_replaced(name: str, tmp_path: Path) -> None:
    """Such as the model of an attack's folder; the state of an interrupted run is no file of others."""
    asked = dataclasses.replace(request(tmp_path), config=ibau.Config(rounds=1))
    asked.out.mkdir()
    (asked.out / name).write_text("mine")
    with pytest.raises(InputError, match=f"out holds {name} already, which would be replaced; .*--force"):
        unlearn_nothing(asked)
    assert [path.name for path in asked.out.iterdir()] == [name]
    assert (asked.out / name).read_text() == "mine"
    assert name in unlearn_nothing(asked, force=True)["files"]
    assert (asked.out / name).read_bytes() != b"mine"


def test_evidence_of_others_is_not_replaced_but_that_of_the_first_stage(tmp_path: Path) -> None:
    method = changing(lambda leaf, _: leaf)._replace(
        name="dau", evidence=lambda *_: job.Evidence({"sentence": ""}, {"division.png": b"ours"})
    )
    asked, display = request(tmp_path), make_display(quiet=True)
    asked.out.mkdir()
    (asked.out / "division.png").write_text("mine")
    with pytest.raises(InputError, match=r"out holds division\.png already"):
        job.run(method, asked, display, time.monotonic(), until=1)
    (asked.out / "division.png").unlink()
    assert job.run(method, asked, display, time.monotonic(), until=1) is None
    assert {path.name for path in asked.out.iterdir()} == {"division.png", "state.npz"}
    report = job.run(method, dataclasses.replace(asked, resume=True), display, time.monotonic())
    assert report is not None
    assert len(report["rounds"]) == 3


def test_pictures_of_a_division_that_is_not_the_last_do_not_stay(tmp_path: Path) -> None:
    """Neither where the run ends with fewer, nor where another run takes its place."""

    def evidence(*names: str) -> Any:
        files = dict.fromkeys(names, b"ours")
        return changing(lambda leaf, _: leaf)._replace(
            name="dau", evidence=lambda *_: job.Evidence({"sentence": ""}, files)
        )

    asked, display = request(tmp_path), make_display(quiet=True)
    both, one = evidence("division.png", "poisoned.png"), evidence("division.png")
    job.run(both, asked, display, time.monotonic(), until=1)
    job.run(one, dataclasses.replace(asked, resume=True), display, time.monotonic())
    assert not (asked.out / "poisoned.png").exists()
    assert (asked.out / "division.png").exists()
    job.run(both, dataclasses.replace(asked, force=True), display, time.monotonic(), until=1)
    job.run(evidence(), dataclasses.replace(asked, force=True), display, time.monotonic(), until=1)
    assert {path.name for path in asked.out.iterdir()} == {"state.npz"}


def test_only_files_that_runs_write_are_removed(tmp_path: Path) -> None:
    asked = request(tmp_path)
    asked.out.mkdir()
    named = ["thesis.csv", "../model.pth", "division.csv", 5, {}]
    (asked.out / "report.json").write_text(json.dumps({"files": named}))
    for name in ("thesis.csv", "division.csv"):
        (asked.out / name).write_text("mine")
    unlearn_nothing(asked, force=True)
    assert (asked.out / "thesis.csv").exists()
    assert not (asked.out / "division.csv").exists()
    assert asked.checkpoint.exists()


def test_the_report_names_what_was_cleaned_and_what_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "several.pth", torch.float32, "net", "best")
    content = torch.load(path, weights_only=True)
    buffers = {0: {"momentum_buffer": torch.zeros(3)}}
    content |= {"ema": {"module": content["best"]}, "optimizer": {"state": buffers}, "epoch": 3}
    content["ema"]["itself"] = content["ema"]
    torch.save(content, path)
    asked = dataclasses.replace(request(tmp_path), checkpoint=path, key="net", config=ibau.Config(rounds=1))
    report = job.run(changing(towards_three), asked, make_display(quiet=False), time.monotonic())
    assert report is not None
    assert (report["checkpoint"], report["key"]) == (str(path), "net")
    expected = "only net is cleaned; the others (best, ema.module) stay as they are"
    assert sum(expected in notice for notice in report["notices"]) == 1
    assert expected in capsys.readouterr().out
    written = torch.load(asked.out / "model.pth", weights_only=True)
    assert torch.equal(written["best"]["classifier.bias"], content["best"]["classifier.bias"])
    assert not torch.equal(written["net"]["classifier.bias"], content["net"]["classifier.bias"])


def test_one_state_dict_needs_no_notice(tmp_path: Path) -> None:
    asked = request(tmp_path)
    report = unlearn_nothing(asked, config=ibau.Config(rounds=1))
    assert (report["checkpoint"], report["key"]) == (str(asked.checkpoint), "net")
    assert not any("state dicts" in notice for notice in report["notices"])


FOREIGN = (
    {},
    [],
    None,
    "text",
    {"files": []},
    {"files": ["model.pth"]},
    {"files": [{}], "preprocessing": {}},
    {"files": ["model.pth"], "preprocessing": {"mean": [10**400], "std": [1], "channels": "rgb"}},
)


@pytest.mark.parametrize("content", [*map(json.dumps, FOREIGN), "{", "[" * 100_000, "\xff"])
def test_a_report_of_another_kind_is_not_judged_by(content: str, tmp_path: Path) -> None:
    asked = request(tmp_path)
    asked.out.mkdir()
    (asked.out / "report.json").write_text(content, "latin-1")
    with pytest.raises(InputError, match=r"report\.json is not the report of a finished run"):
        job.judge(failing_in(9), asked, make_display(quiet=True))


COUNTED: dict[str, Any] = {"acc": [1, 2], "asr": None, "ra": None}


def notes_with(rounds: Any, seconds: Any = 0.0) -> dict[str, Any]:
    times = dict.fromkeys(job._ACTIVITIES, seconds)
    return {"before": COUNTED, "rounds": rounds, "seconds": times, "fingerprint": {}}


@pytest.mark.parametrize(
    "notes",
    [
        {},
        [],
        {"a": 1},
        3,
        {"before": COUNTED, "rounds": [{}]},
        notes_with([{"round": -5, **COUNTED}]),
        notes_with([{"round": 1, "loss": math.nan, **COUNTED}]),
        notes_with([], math.nan),
        notes_with([], 10**400),
    ],
    ids=lambda notes: str(notes)[:60],
)
def test_a_state_of_another_kind_is_not_gone_on_with(notes: Any, tmp_path: Path) -> None:
    asked = request(tmp_path)
    asked.out.mkdir()
    np.savez(asked.out / "state.npz", __notes__=np.frombuffer(json.dumps(notes).encode(), np.uint8))
    with pytest.raises(InputError, match=r"state\.npz is damaged; remove it, or start anew with --force"):
        unlearn_nothing(asked, resume=True)


def test_an_interruption_says_what_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise KeyboardInterrupt

    assert cli.guarded(work, tmp_path / "out", "*.npz") == 130
    assert capsys.readouterr().err == "interrupted: nothing was written.\n"
    (tmp_path / "backdoored.pth").touch()
    assert cli.guarded(work, tmp_path, "*.npz") == 130
    assert capsys.readouterr().err == "interrupted: there is nothing to go on from.\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate"),
        jax.errors.JaxRuntimeError(
            "INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes."
        ),
    ],
)
def test_memory_that_runs_out_is_said_in_one_sentence(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert cli.guarded(work, tmp_path, "*.npz", "trained.json") == 2
    said = "error: memory ran out; give fewer or smaller images, or smaller settings, such as batch_size."
    assert capsys.readouterr().err == f"{said}\n"
    (tmp_path / "trained.json").touch()
    assert cli.guarded(work, tmp_path, "*.npz", "trained.json") == 2
    assert capsys.readouterr().err.startswith(f"{said} the finished rounds are kept in")


def test_a_device_that_is_not_there_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise RuntimeError("Unable to initialize backend 'gpux': no such thing\nand more")

    assert cli.guarded(work, tmp_path) == 2
    assert capsys.readouterr().err == (
        "error: JAX cannot use the device that JAX_PLATFORMS names (Unable to initialize backend 'gpux': no such "
        "thing).\n"
    )


def test_a_path_that_is_empty_is_not_this_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        ibau_program.main(["--demo", "--out", ""])
    assert ended.value.code == 2
    assert "the path is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_program_are_no_answers(tmp_path: Path) -> None:
    def work() -> int:
        raise RuntimeError("This is a mistake of ours.")

    with pytest.raises(RuntimeError, match="ours"):
        cli.guarded(work, tmp_path)


@pytest.mark.parametrize(
    ("kind", "given", "name"),
    [
        ("ckpt", ".", "planted"),
        ("ckpt", "..", "above"),
        ("ckpt", "a.pth", "a"),
        ("ckpt", "dir/b.c", "b"),
        ("attack", ".", "planted"),
        ("attack", "some/subject-0.1", "subject-0.1"),
    ],
)
def test_results_are_called_after_what_was_given(
    kind: str, given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "above" / "planted").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "planted")
    flags = argparse.Namespace(
        **{"demo": False, "attack": None, "ckpt": None, "arch": None, kind: Path(given)}
    )
    assert cli._subject(flags) == name


@pytest.mark.parametrize("force", [False, True])
def test_a_given_division_is_not_replaced(force: bool, tmp_path: Path) -> None:
    """Somebody may have corrected it by hand."""
    asked = request(tmp_path)
    given = asked.out / "division.csv"
    given.parent.mkdir()
    given.write_text(
        "row,part\n" + "".join(f"{row},{'poisoned' if row == 39 else 'clean'}\n" for row in range(40))
    )
    method = changing(lambda leaf, _: leaf)._replace(name="dau")
    asked = dataclasses.replace(asked, division=given, force=force)
    with pytest.raises(
        InputError, match=r"The run's division\.csv would replace .*division\.csv; give another"
    ):
        job.run(method, asked, make_display(quiet=True), time.monotonic())
    assert given.read_text().endswith("39,poisoned\n")


@pytest.mark.parametrize("force", [False, True])
def test_the_given_model_is_not_replaced(force: bool, tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path), out=tmp_path, force=force)
    given = asked.checkpoint.read_bytes()
    with pytest.raises(
        InputError, match=r"The run's model.pth would replace .*model.pth; give another folder"
    ):
        job.run(failing_in(9), asked, make_display(quiet=True), time.monotonic())
    assert asked.checkpoint.read_bytes() == given
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
