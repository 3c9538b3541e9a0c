"""``python -m jaxunlearn.attacks``: makes backdoored models to test defences on."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn import cli
from jaxunlearn._check import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, makes the attack, and returns the exit code; see ``jaxunlearn.cli.main``."""
    from jaxunlearn.attacks import RECIPES
    from jaxunlearn.models import NAMES

    flags = _parser(RECIPES, NAMES).parse_args(argv)
    out = flags.out or Path(f"{flags.name}-attack")
    return cli.guarded(lambda: _plant(flags, out), out, "*.state.npz")


def _parser(recipes: Mapping[str, Any], networks: Sequence[str]) -> argparse.ArgumentParser:
    attacks = (f"{name} ({cli.settings_of(recipes[name])})" for name in sorted(recipes))
    parser = argparse.ArgumentParser(
        prog="python -m jaxunlearn.attacks",
        description="Trains an image classifier with a known backdoor, to test defences on.",
        epilog=f"NAME, with its settings (--set): {', '.join(attacks)}. "
        "SPEC and TRIGGER as for the methods (python -m jaxunlearn.ibau --help). "
        f"ARCH: {', '.join(networks)}.",
    )
    parser.add_argument("name", choices=sorted(recipes), metavar="NAME", help="of the attack")
    parser.add_argument("--data", required=True, metavar="SPEC", help="images to train on")
    parser.add_argument("--test", required=True, metavar="SPEC", help="other images to judge by")
    parser.add_argument("--arch", default="small_vgg", choices=networks, metavar="ARCH", help="the network")
    parser.add_argument(
        "--poison-ratio", type=float, default=0.1, metavar="R", help="share of images to poison (default 0.1)"
    )
    parser.add_argument("--target", type=int, default=0, metavar="N", help="the class to force (default 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the attack; repeatable"
    )
    parser.add_argument(
        "--train",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the training, such as rounds=30 or flip=true; repeatable",
    )
    parser.add_argument(
        "--size", type=cli.positive, metavar="N", help="height and width to bring pictures to"
    )
    parser.add_argument(
        "--leave-out-shared", action="store_true", help="train without images that are also test images"
    )
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N", help="of every random choice (default 0)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: NAME-attack)")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted training in DIR")
    parser.add_argument("--force", action="store_true", help="replace what DIR holds")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _plant(flags: argparse.Namespace, out: Path) -> int:
    from jaxunlearn import subjects
    from jaxunlearn._runtime import keep_compilations
    from jaxunlearn.attacks import RECIPES
    from jaxunlearn.data import Takes, keep_apart, load
    from jaxunlearn.display import make_display
    from jaxunlearn.fit import training_for

    keep_compilations()
    recipe: Any = cli.configured(RECIPES[flags.name], flags.set)
    takes = None if flags.size is None else Takes((flags.size, flags.size, 3), classes=None)
    data, test = load(flags.data, takes), load(flags.test, takes)
    if takes is not None and data.images.shape[1:3] != takes.shape[:2]:
        height, width = data.images.shape[1:3]
        raise InputError(
            f"--size {flags.size} brings pictures to that size, and {data.origin} holds arrays of {height}x{width}; "
            "leave --size away."
        )
    spec = subjects.network(flags.arch, data, test)
    data = keep_apart(data, test, leave_out=flags.leave_out_shared)
    if not 0 <= flags.target < spec.classes:
        raise InputError(
            f"--target {flags.target} is not a class; the images have the classes 0 to {spec.classes - 1}."
        )
    order = subjects.Order(
        name=flags.name,
        recipe=recipe,
        data=data,
        test=test,
        spec=spec,
        target=flags.target,
        ratio=flags.poison_ratio,
        training=cli.configured(training_for(spec.image_shape, len(data.labels)), flags.train, "--train"),
        seed=flags.seed,
        out=out,
        resume=flags.resume,
        force=flags.force,
    )
    display = make_display(quiet=flags.quiet)
    content = subjects.plant(order, display)
    display.say(f"written  {out}; clean it with --attack {out}, in {content['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
