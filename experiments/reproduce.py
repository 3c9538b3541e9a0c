"""Runs a frozen config of ``experiments/campaigns.py``: makes its models, cleans each with every method.

Command   python -m experiments.reproduce NAME --work DIR [--shared DIR] [--quick] [--arch ARCH] [--attacks ATTACK ...]
Time      see the config: ``python -m experiments.reproduce --list``

Every model and every cleaning is a folder in ``--work``, as the command line makes it, so that nothing finished is done
twice and an interrupted training or cleaning goes on where it was. Only retraining keeps no folder: it is done anew if
interrupted. Each finished cleaning, and each retraining, appends one JSON line to ``NAME.jsonl`` there, which
``python -m experiments.tables FILE`` renders as tables and a picture. ``--out experiments/results/NAME.jsonl`` adds
what is missing to the results that the pages show.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters import convert, torch_io
from experiments.campaigns import CAMPAIGNS, NOTHING, RETRAINING, SOURCES, Attacked, Campaign, Cleaning
from experiments.reproduction import code
from experiments.tables import read_lines
from jaxunlearn import cli, finetune, fit, job, report, subjects, trainer
from jaxunlearn._check import DivergedError, InputError
from jaxunlearn._checkpointing import STATE_FILE
from jaxunlearn._files import write_whole
from jaxunlearn._loop import NonFiniteError
from jaxunlearn._runtime import keep_compilations
from jaxunlearn._signals import interruptible
from jaxunlearn._tree import named_leaves
from jaxunlearn.attacks import RECIPES
from jaxunlearn.data import keep_apart, load, read_arrays
from jaxunlearn.display import make_display
from jaxunlearn.evaluate import Evaluation, evaluate
from jaxunlearn.fit import training_for
from jaxunlearn.inputs import REPORT_FILE, Request
from jaxunlearn.models import NAMES

_REPORTED = ("before", "after", "der", "evidence", "stopped", "warnings", "seconds", "device", "versions")
_OF_CODE = ("code", "model_code")  # from which the line was made, and the model that was cleaned
_OF_CLEANING = ("method", "preset", "settings", "clean")
_CODE_FILE = "code.txt"  # keeps it in a folder


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=sorted(CAMPAIGNS), metavar="NAME", help="of the config")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--work", type=cli.path, default=Path("campaigns"), help="folder for models and runs")
    parser.add_argument("--shared", type=cli.path, default=Path("../shared"), help="folder that holds data")
    parser.add_argument("--out", type=cli.path, help="JSON lines (default: NAME.jsonl in --work)")
    parser.add_argument("--quick", action="store_true", help="a variant of minutes")
    parser.add_argument("--arch", choices=NAMES, help="another network")
    parser.add_argument("--seeds", type=cli.seed, nargs="+", help="other seeds")
    parser.add_argument("--attacks", nargs="+", metavar="ATTACK", help="these alone")
    given = sys.argv[1:] if argv is None else argv
    flags = parser.parse_args(given)
    if flags.name is None and len(given) > flags.list:
        parser.error("give the NAME of a config; --list says which there are")
    if flags.list or flags.name is None:
        for name, campaign in CAMPAIGNS.items():
            print(f"{campaign.header(name)}\n")
        return 0
    campaign = CAMPAIGNS[flags.name]
    if flags.attacks:
        if missing := set(flags.attacks) - {one.attack for one in campaign.subjects}:
            there = ", ".join(sorted({one.attack for one in campaign.subjects}))
            parser.error(f"{flags.name} holds no {' and no '.join(sorted(missing))}; there are {there}")
        campaign = campaign.of(flags.attacks)
    campaign = campaign.quick() if flags.quick else campaign
    if (flags.arch or flags.seeds) and not flags.out:
        parser.error(
            f"--arch and --seeds make results that are not {flags.name}'s; give --out a file for them"
        )
    name = f"{flags.name}{'-quick' if flags.quick else ''}"
    work = flags.work.resolve()
    out = flags.out or work / f"{name}.jsonl"
    arch, seeds = flags.arch or campaign.arch, tuple(dict.fromkeys(flags.seeds or campaign.seeds))
    try:
        with interruptible():
            failed = run(campaign, flags.shared.resolve(), work / name, out, arch=arch, seeds=seeds)
    except InputError as error:
        of_runs = any(flag in str(error) for flag in ("--force", "--resume"))
        advice = " (Of a campaign: remove that folder, or give another --work.)" if of_runs else ""
        parser.error(f"{error}{advice}")
    except OSError as error:
        parser.error(f"{error.filename or work} cannot be read or written ({error.strerror})")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on where this one was.\n")
        return 130
    for line in failed:
        sys.stderr.write(f"no result: {line}\n")
    return 1 if failed else 0


def run(campaign: Campaign, shared: Path, work: Path, out: Path, *, arch: str, seeds: Any) -> list[str]:
    """Makes every model and cleans it with every method; appends what is new to ``out``.

    Returns:
      What stopped at NaN or infinity before it gave anything, a sentence each; the rest was done nevertheless.
    """
    keep_compilations()
    code()  # of what was imported, whatever becomes of the files
    failed: list[str] = []
    lines = read_lines(out)
    known = {_key(line) for line in lines}
    planned = [
        (
            seed,
            attacked,
            [_config(campaign, attacked, cleaning, arch, seed) for cleaning in campaign.cleanings],
        )
        for seed in seeds
        for attacked in campaign.subjects
    ]
    missing = [_key(config) not in known for *_, wanted in planned for config in wanted]
    print(
        f"{missing.count(False)} of {len(missing)} results are in {out}; {sum(missing)} are to be made.",
        flush=True,
    )
    for seed, attacked, wanted in planned:
        if all(_key(config) in known for config in wanted):
            continue
        try:
            folder = make_subject(campaign, attacked, shared, work, arch, seed)
        except (NonFiniteError, DivergedError) as error:
            failed.append(f"{attacked.data} {attacked.attack}, seed {seed}: {error}")
            continue
        _check_same_model(folder, out, [line for line in lines if _model_key(line) == _model_key(wanted[0])])
        for cleaning, config in zip(campaign.cleanings, wanted, strict=True):
            if _key(config) in known:
                continue
            try:
                found = _found(campaign, attacked, cleaning, shared, folder, seed)
            except NonFiniteError as error:
                failed.append(f"{folder.name}, {cleaning.method} {cleaning.preset}: {error}")
                continue
            line = config | {name: found[name] for name in (*_REPORTED, *_OF_CODE)}
            _append(out, line)
            known.add(_key(config))
    return failed


def _append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to a file that others may add to meanwhile: in one piece, so that a kill leaves none half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(line) + "\n").encode())
        os.fsync(file.fileno())


def _found(
    campaign: Campaign, attacked: Attacked, cleaning: Cleaning, shared: Path, folder: Path, seed: int
) -> dict[str, Any]:
    """What a cleaning leaves, as in a report, and from which code it is and the model that was cleaned."""
    of_model = _made_from(folder)
    if cleaning.method == NOTHING:
        found = leave(folder) | {"code": of_model}
    elif cleaning.method == RETRAINING:
        found = retrain(folder, seed) | {"code": code()}
    else:
        found = clean(campaign, attacked, cleaning, shared, folder, seed)
    return found | {"model_code": of_model}


def _attack_in(folder: Path) -> dict[str, Any]:
    """What a model's folder says of its attack."""
    return _read(folder / subjects.ATTACK)


def _read(path: Path) -> dict[str, Any]:
    """What a file of a finished model or cleaning says.

    Raises:
      InputError: if it is damaged.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{path} is damaged; remove {path.parent}, and it is made anew.") from None


def _made_from(folder: Path) -> str | None:
    """From which code a folder was made, or codes, if it was interrupted; None if it does not say so."""
    path = folder / _CODE_FILE
    return path.read_text(errors="replace").strip() if path.exists() else None


def _add_code(folder: Path) -> None:
    """Says in a folder that the present code begins it or goes on with it."""
    codes = (_made_from(folder) or "").split()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / _CODE_FILE, " ".join(dict.fromkeys([*codes, code()])).encode())


def make_subject(
    campaign: Campaign, attacked: Attacked, shared: Path, work: Path, arch: str, seed: int
) -> Path:
    """The folder of a backdoored model, made if it is not there yet.

    Raises:
      InputError: if the folder holds a model that was made with other settings.
    """
    source = SOURCES[attacked.data]
    label = "-".join(
        [attacked.data, attacked.attack, *attacked.settings, f"{attacked.ratio:g}", arch, str(seed)]
    )
    folder = work / "".join(letter if letter.isalnum() or letter in "-.=" else "_" for letter in label)
    data = load(f"{source.train.format(shared=shared)}[:{campaign.train_images}]")
    test = load(source.test.format(shared=shared)).take(slice(campaign.test_images))
    data = keep_apart(data, test, leave_out=True)
    spec = trainer.network(arch, data, test)
    usual = dataclasses.replace(
        training_for(spec.image_shape, len(data.labels), spec.family), flip=source.flip
    )
    order = subjects.Order(
        name=attacked.attack,
        recipe=cli.configured(RECIPES[attacked.attack], attacked.settings),
        data=data,
        test=test,
        spec=spec,
        target=attacked.target,
        ratio=attacked.ratio,
        training=cli.configured(usual, campaign.training),
        seed=seed,
        out=folder,
        resume=subjects.is_begun(folder),
    )
    if (folder / subjects.ATTACK).exists():
        asked = json.loads(json.dumps(order.settings()))
        made = _attack_in(folder)
        if made["target"] is None:  # an attack that forces every class
            made["target"] = order.target
        for settings in (asked, made):  # where images lie does not matter; their hashes are compared
            for name in ("data", "test"):
                settings[name] = {key: value for key, value in settings[name].items() if key != "spec"}
        _check_same(folder, "model", made, asked)
        return folder
    print(f"== {folder.name}", flush=True)
    _add_code(folder)
    subjects.plant(order, make_display(quiet=False))
    return folder


def _check_same_model(folder: Path, out: Path, lines: list[dict[str, Any]]) -> None:
    """Refuses a model that is not the one which lines of results are of: trained anew, it seldom is."""
    if not lines:
        return
    counts = _attack_in(folder)["counts"]
    for line in lines:
        if line["before"]["counts"] != counts:
            raise InputError(
                f"{out} holds results of {folder.name} before cleaning with the counts {line['before']['counts']}, and "
                f"the model in {folder} has {counts}: it was trained anew. Remove the lines of that model, or give "
                "another --out."
            )


def _check_same(folder: Path, what: str, made: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuses a finished folder whose settings are not those asked for."""
    found, expected = (named_leaves({name: tree.get(name) for name in asked}) for tree in (made, asked))
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"{folder} holds a {what} with {name} {found.get(name)!r} and {expected.get(name)!r} is asked for; "
                "give another --work, or remove the folder to have it made anew."
            )


def clean(
    campaign: Campaign, attacked: Attacked, cleaning: Cleaning, shared: Path, folder: Path, seed: int
) -> dict[str, Any]:
    """The report of one cleaning, run if it was not yet, and from which code it is."""
    program = importlib.import_module(f"jaxunlearn.{cleaning.method}.__main__")
    package = importlib.import_module(f"jaxunlearn.{cleaning.method}")
    label = json.dumps([cleaning.preset, cleaning.settings, cleaning.clean, seed])
    out = folder / f"{cleaning.method}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    config = cli.configured(package.PRESETS[cleaning.preset], cleaning.settings)
    if (out / REPORT_FILE).exists():
        made = _read(out / REPORT_FILE)
        _check_same(
            out,
            "cleaning",
            made,
            {"config": json.loads(json.dumps(report.plain(dataclasses.asdict(config))))},
        )
        return made | {"code": _made_from(out)}
    first = campaign.train_images
    given = f"{SOURCES[attacked.data].train.format(shared=shared)}[{first}:{first + cleaning.clean}]"
    request = Request(
        checkpoint=folder / subjects.MODEL,
        clean=given if cleaning.clean else f"npz:{folder / subjects.TRAIN}",
        test=f"npz:{folder / subjects.TEST}",
        trigger=f"attack:{folder}",
        target=None,
        preset=cleaning.preset,
        config=config,
        seed=seed,
        out=out,
        resume=(out / STATE_FILE).exists(),
        force=False,
        normalize="none",
        leave_out_shared=True,
    )
    print(
        f"-- {folder.name}  {cleaning.method} {cleaning.preset} {cleaning.clean or 'training set'}",
        flush=True,
    )
    _add_code(out)
    finished = job.run(program.PROCEDURE, request, make_display(quiet=False), time.monotonic())
    if finished is None:
        raise RuntimeError(f"{out} was not finished.")
    return finished | {"code": _made_from(out)}


def leave(folder: Path) -> dict[str, Any]:
    """What a model does as its attack left it, as in a report."""
    made = _attack_in(folder)
    rates = report.rates_and_counts(Evaluation.from_counts(made["counts"]))
    return _line(rates, rates, made["seconds"]) | {name: made[name] for name in ("device", "versions")}


def retrain(folder: Path, seed: int) -> dict[str, Any]:
    """What a network does that was trained on the clean part of a model's training set alone, as in a report."""
    print(f"-- {folder.name}  {RETRAINING}", flush=True)
    started = time.monotonic()
    made = _attack_in(folder)
    train, test = (read_arrays(folder / name) for name in (subjects.TRAIN, subjects.TEST))
    spec = convert.from_torch(torch_io.read(folder / subjects.MODEL).arrays).spec
    kept = ~train["poisoned"]
    images, shown = (arrays["x"] / np.float32(255) for arrays in (train, test))
    init_key, training_key = jax.random.split(jax.random.key(seed))
    variables = fit(
        spec.apply,
        spec.init(init_key),
        images[kept],
        train["y"][kept],
        finetune.Config(**made["training"]),
        training_key,
    )
    seconds = time.monotonic() - started
    triggered = subjects.read_triggered(folder)
    after = evaluate(spec.apply, variables, shown, test["y"], triggered=triggered)
    before = Evaluation.from_counts(made["counts"])
    rates = report.rates_and_counts(before), report.rates_and_counts(after)
    return _line(*rates, seconds) | {"der": report.der(before, after)}


def _line(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What is reported where no method was run."""
    return {
        "before": before,
        "after": after,
        "der": None,
        "evidence": {},
        "stopped": None,
        "warnings": [],
        "seconds": {"unlearn": round(seconds, 3)},
        "device": report.device(),
        "versions": report.versions(),
    }


def _config(
    campaign: Campaign, attacked: Attacked, cleaning: Cleaning, arch: str, seed: int
) -> dict[str, Any]:
    """What a line of results is of."""
    return {
        "data": attacked.data,
        "attack": attacked.attack,
        "attack_settings": list(attacked.settings),
        "ratio": attacked.ratio,
        "target": attacked.target,
        "arch": arch,
        "train_images": campaign.train_images,
        "test_images": campaign.test_images,
        "training": list(campaign.training),
        "method": cleaning.method,
        "preset": cleaning.preset,
        "settings": list(cleaning.settings),
        "clean": cleaning.clean,
        "seed": seed,
    }


def _key(line: dict[str, Any]) -> str:
    """What a line is of, without what it reports."""
    return json.dumps({name: line[name] for name in sorted(line) if name not in (*_REPORTED, *_OF_CODE)})


def _model_key(line: dict[str, Any]) -> str:
    """Which model a line is of."""
    return _key({name: value for name, value in line.items() if name not in _OF_CLEANING})


if __name__ == "__main__":
    sys.exit(main())
