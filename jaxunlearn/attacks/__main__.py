"""``python -m jaxunlearn.attacks``: makes backdoored models to test defences on."""

import argparse
import inspect
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn import cli
from jaxunlearn._check import InputError
from jaxunlearn._signals import leave


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, makes the attack, and returns the exit code; see ``jaxunlearn.cli.main``."""
    from jaxunlearn.attacks import RECIPES
    from jaxunlearn.models import NAMES

    given = sys.argv[1:] if argv is None else argv
    name = next((text for text in given if text in RECIPES), None)
    flags = _parser(RECIPES, NAMES, name).parse_args(given)
    out = flags.out or Path(f"{flags.name}-attack")
    return cli.guarded(lambda: _plant(flags, out), out, "*.state.npz")


def _parser(
    recipes: Mapping[str, Any], networks: Sequence[str], name: str | None = None
) -> argparse.ArgumentParser:
    """The flags; their help explains the settings of one attack, or lists those of all."""
    from jaxunlearn.fit import TRAINING

    attacks = (f"{one} ({cli.settings_of(recipes[one])})" for one in sorted(recipes))
    of_attacks = (
        f"NAME, with its settings (--set): {', '.join(attacks)}.\nNAME --help explains those of one attack."
        if name is None
        else f"{name}: {inspect.getdoc(recipes[name])}\n\n--set: {cli.settings_of(recipes[name])}."
    )
    parser = argparse.ArgumentParser(
        prog="python -m jaxunlearn.attacks",
        description="Trains an image classifier with a known backdoor, to test defences on.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n\n".join(
            _wrapped(text)
            for text in (
                of_attacks,
                f"--train: {cli.settings_of(TRAINING)}; crop_padding and batch_size as the "
                "images need, and AdamW for transformers.",
                "SPEC and TRIGGER as for the methods (python -m jaxunlearn.ibau --help).",
                f"ARCH: {', '.join(networks)}.",
            )
        ),
    )
    parser.add_argument("name", choices=sorted(recipes), metavar="NAME", help="of the attack")
    parser.add_argument("--data", required=True, metavar="SPEC", help="images to train on")
    parser.add_argument("--test", required=True, metavar="SPEC", help="other images to judge by")
    parser.add_argument(
        "--arch",
        default="small_vgg",
        choices=networks,
        metavar="ARCH",
        help="the network (default small_vgg)",
    )
    parser.add_argument(
        "--poison-ratio", type=float, default=0.1, metavar="R", help="share of images to poison (default 0.1)"
    )
    parser.add_argument(
        "--target", type=int, metavar="N", help="the class to force (default 0; none with mode=all-to-all)"
    )
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
    parser.add_argument("--out", type=cli.path, metavar="DIR", help="output folder (default: NAME-attack)")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted training in DIR")
    parser.add_argument("--force", action="store_true", help="replace what DIR holds")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _wrapped(text: str) -> str:
    """A docstring at the width of the terminal: lines of a paragraph or an entry are joined and filled anew."""
    entries: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent, words = len(line) - len(line.lstrip()), line.strip()
        before, earlier = entries[-1] if entries else (0, "")
        if words and earlier and (indent > before > 0 or indent == before == 0):
            entries[-1] = (before, f"{earlier} {words}")
        else:
            entries.append((indent, words))
    width = shutil.get_terminal_size().columns - 2
    return "\n".join(
        textwrap.fill(
            words,
            width,
            initial_indent=" " * indent,
            subsequent_indent=" " * 2 * indent,
            break_on_hyphens=False,
        )
        for indent, words in entries
    )


def _plant(flags: argparse.Namespace, out: Path) -> int:
    from jaxunlearn import subjects, trainer
    from jaxunlearn._runtime import keep_compilations
    from jaxunlearn.attacks import RECIPES
    from jaxunlearn.display import make_display
    from jaxunlearn.fit import training_for

    keep_compilations()
    recipe: Any = cli.configured(RECIPES[flags.name], flags.set)
    if flags.target is not None and getattr(recipe, "mode", None) == "all-to-all":
        raise InputError(
            "--target is given with mode=all-to-all, which forces every class; leave --target away."
        )
    target = flags.target or 0
    data, test, spec = trainer.read_sets(
        flags.data, flags.test, flags.arch, size=flags.size, leave_out=flags.leave_out_shared
    )
    if not 0 <= target < spec.classes:
        raise InputError(
            f"--target {target} is not a class; the images have the classes 0 to {spec.classes - 1}."
        )
    order = subjects.Order(
        name=flags.name,
        recipe=recipe,
        data=data,
        test=test,
        spec=spec,
        target=target,
        ratio=flags.poison_ratio,
        training=cli.configured(
            training_for(spec.image_shape, len(data.labels), spec.family), flags.train, "--train"
        ),
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
    leave(main())
