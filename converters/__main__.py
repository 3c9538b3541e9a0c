"""``python -m converters``: brings checkpoints into other formats and back, and tells what a file is."""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters import convert, torch_io
from converters.convert import Converted
from converters.inspection import as_text, inspect
from converters.torch_io import Checkpoint, is_finite
from jaxunlearn._check import InputError
from jaxunlearn._files import print_any_name, write_whole
from jaxunlearn._signals import INTERRUPTED, ignore, interruptible, leave
from jaxunlearn._tree import named_leaves
from jaxunlearn._typing import Variables
from jaxunlearn.data import read_arrays

_TORCH_ENDINGS = (".pth", ".pt", ".ckpt", ".bin")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, converts or inspects, and returns the exit code.

    0 done, 2 something given cannot be used, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    inspecting = arguments[:1] == ["inspect"]
    print_any_name()
    try:
        with interruptible():
            if inspecting:
                _inspect(_inspect_parser().parse_args(arguments[1:]))
            else:
                _convert(_convert_parser().parse_args(arguments))
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:  # of names too long, and folders that must not be looked into
        place = error.filename or "the output"
        sys.stderr.write(f"error: {place} cannot be used ({error.strerror}); give another path.\n")
        return 2
    except KeyboardInterrupt:
        ignore()
        sys.stderr.write("interrupted: nothing was written.\n")
        return INTERRUPTED
    return 0


def _convert_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m converters",
        description="Converts a checkpoint without running it; `python -m converters inspect FILE` describes one.",
        epilog="OUT ends in .safetensors (the state dict under its own names), in .npz (Flax variables by path) or, "
        "with --like, in .pth or .pt (the container of that file, with other weights).",
    )
    parser.add_argument(
        "input", type=Path, metavar="IN", help="a checkpoint, or an .npz that was written here"
    )
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--arch", metavar="NAME", help="refuse a file of another architecture")
    parser.add_argument(
        "--key", metavar="NAME", help="which of the file's state dicts (with --like: of that file's)"
    )
    parser.add_argument("--like", type=Path, metavar="FILE", help="the checkpoint whose container OUT takes")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    return parser


def _inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m converters inspect", description="Describes a checkpoint without running it."
    )
    parser.add_argument("input", type=Path, metavar="FILE")
    parser.add_argument("--key", metavar="NAME", help="which of the file's state dicts")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _inspect(flags: argparse.Namespace) -> None:
    description = inspect(torch_io.read(flags.input, flags.key, finite=False))
    text = (
        json.dumps(description, indent=1) + "\n"
        if flags.json
        else as_text({"file": flags.input, **description})
    )
    sys.stdout.write(text)


def _convert(flags: argparse.Namespace) -> None:
    output: Path = flags.output
    if not flags.input.exists():
        raise InputError(
            f"There is no file {flags.input}; give a checkpoint and the name of a file to write, or inspect and a "
            "checkpoint."
        )
    if output.exists() and not flags.force:
        raise InputError(f"{output} exists; give --force to replace it, or another name.")
    if not output.absolute().parent.is_dir():
        raise InputError(
            f"There is no folder {output.absolute().parent}; make it first, or give another name."
        )
    content = _into_container(flags) if flags.like is not None else _out_of_container(flags)
    try:
        write_whole(output, content)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}); give another name.") from None
    sys.stdout.write(f"wrote {output} ({len(content)} bytes)\n")


def _out_of_container(flags: argparse.Namespace) -> bytes:
    """A checkpoint as safetensors or as Flax variables."""
    kind = flags.output.suffix
    if kind not in (".safetensors", ".npz"):
        raise InputError(
            f"{flags.output} ends in {kind or 'nothing'}; expected .safetensors or .npz, or a PyTorch file with --like "
            "FILE to say what it should look like."
        )
    checkpoint = torch_io.read(flags.input, flags.key)
    if kind == ".safetensors":
        if flags.arch is not None:
            _recognised(checkpoint, flags.arch)
        _report(checkpoint)
        return torch_io.encode_safetensors(checkpoint, checkpoint.arrays)
    model = _recognised(checkpoint, flags.arch)
    _report(checkpoint)
    buffer = io.BytesIO()
    leaves: dict[str, Any] = named_leaves(model.variables)
    np.savez(buffer, **leaves)
    return buffer.getvalue()


def _into_container(flags: argparse.Namespace) -> bytes:
    """Weights from safetensors, Flax variables or another checkpoint in the container of ``--like``."""
    like = torch_io.read(flags.like, flags.key)
    if flags.output.suffix != like.suffix and flags.output.suffix not in _TORCH_ENDINGS:
        raise InputError(f"{flags.output} should end in {like.suffix}, like {flags.like}.")
    model = _recognised(like, flags.arch)
    _report(like)
    if flags.input.suffix == ".npz":
        variables = _read_variables(flags.input, model.variables)
        converted = convert.to_torch(model.spec, variables, like=like.arrays)
        odd = [key for key, array in converted.items() if not is_finite(array)]
        if odd:
            raise InputError(
                f"{flags.input} gives NaN or infinite values for {odd[0]}, which {flags.like} stores as "
                f"{converted[odd[0]].dtype}; expected finite weights that this type can hold."
            )
        return torch_io.encode(like, converted)
    arrays = torch_io.read(flags.input).arrays
    wrong = [
        key for key in {**like.arrays, **arrays} if _kind(arrays.get(key)) != _kind(like.arrays.get(key))
    ]
    if wrong:
        raise InputError(
            f"{flags.input} and {flags.like} differ in {len(wrong)} tensors, {wrong[0]} first: "
            f"{_kind(arrays.get(wrong[0]))} and {_kind(like.arrays.get(wrong[0]))}; they must hold the same network."
        )
    return torch_io.encode(like, arrays)


def _recognised(checkpoint: Checkpoint, name: str | None) -> Converted:
    model = convert.from_torch(checkpoint.arrays)
    if name is not None and model.spec.name != name:
        raise InputError(
            f"The checkpoint holds a {model.spec.name}, not a {name}; leave --arch away or correct it."
        )
    return model


def _report(checkpoint: Checkpoint) -> None:
    for notice in checkpoint.notices:
        sys.stderr.write(f"note: {notice}\n")


def _kind(array: np.ndarray | None) -> str:
    return "nothing" if array is None else f"{array.dtype} of shape {array.shape}"


def _read_variables(path: Path, variables: Variables) -> Variables:
    """Flax variables like these from an ``.npz`` of leaves by path."""
    expected = named_leaves(variables)
    archive = read_arrays(path)
    names = set() if isinstance(archive, np.ndarray) else set(archive)
    wrong = sorted(names ^ set(expected))
    leaves = {} if wrong else {name: archive[name] for name in expected}
    wrong += [name for name, leaf in leaves.items() if _form(leaf) != _form(expected[name])]
    if wrong:
        raise InputError(
            f"{path} does not hold the variables of this network: {wrong[0][:80]!r} differs; expected the leaves that "
            "python -m converters writes for it."
        )
    return jax.tree.unflatten(jax.tree.structure(variables), list(leaves.values()))


def _form(array: Any) -> tuple[Any, ...]:
    """What an array must have in common with the one whose place it takes; its precision may differ."""
    return array.dtype.kind, array.shape


if __name__ == "__main__":
    leave(main())
