"""What a checkpoint file is and what it asks for, found by looking at it: nothing is unpickled here.

Archives are judged by their directory and pickles by their opcodes, so that the reader proper only ever sees
files whose cost is bounded: no member that expands, no value that grows without end.
"""

import mmap
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn._check import InputError

_LARGEST_PICKLE_BYTES = 64 * 2**20
_MOST_MEMBERS = 100_000
_MOST_OPCODES = 3_000_000
_MOST_NODES = 100_000  # of one value, counting shared parts as often as they are used
_DEEPEST = 100
_LARGEST_GROWTH = 2  # of an archive's members over the file; torch.save does not compress
_SLACK_BYTES = 16 * 2**20
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, storage keys
_LONGEST_NAME = 200
_BYTES_CODEC = "latin1"  # in which protocol 2 writes bytes; others can take for ever
# The records that end an archive, in this order; the first two only where numbers need 64 bits, or torch wrote it.
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_ZIP64_FIELD = 1


class Screened(NamedTuple):
    """A file that may be opened.

    Attributes:
      kind: of container: ``zip`` (torch.save), ``legacy`` (torch.save before 1.6) or ``safetensors``.
      globals: names that its pickles ask for, in order.
    """

    kind: str
    globals: tuple[str, ...]


class _Opcodes(NamedTuple):
    """What the opcodes of a pickle say; ``problem`` is None for one that can be opened."""

    globals: tuple[str, ...]
    problem: str | None


class _UnreadableError(Exception):
    """A pickle that is not worth following any further; the message is half a sentence."""


class _Value(NamedTuple):
    """A value on the stack of a pickle, as far as it matters here.

    Attributes:
      nodes: values in it, shared parts counted every time: what hashing or printing it costs.
      depth: of tuples in tuples.
      text: the string, if it is one.
      name: under which it was asked for, if it was.
      second: the string that is the second of two in a tuple.
    """

    nodes: int = 1
    depth: int = 0
    text: str = ""
    name: str = ""
    second: str = ""


_ATOM = _Value()


def screen(path: Path) -> Screened:
    """Finds out what kind of checkpoint a file is, and refuses what must not be opened.

    Raises:
      InputError: if it is no checkpoint, another kind of program, damaged, or built to exhaust its reader.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        pickles = _archived_pickles(path)
        kind = "zip"
    elif start[8:9] == b"{":
        return Screened("safetensors", ())
    elif start[257:262] == b"ustar":
        raise InputError(
            f"{path} is a tar archive, as torch wrote before 2017; load and save it again with a newer torch in the "
            "environment that it comes from."
        )
    else:
        pickles = _legacy_pickles(path)
        kind = "legacy"
    asked: dict[str, None] = {}
    problem = None
    for opcodes in pickles:
        asked |= dict.fromkeys(opcodes.globals)
        problem = problem or opcodes.problem
    if problem is not None:
        raise refusal(path, tuple(asked), problem)
    return Screened(kind, tuple(asked))


def refusal(
    path: Path, asked: tuple[str, ...], problem: str = "damaged, or another kind of file"
) -> InputError:
    """Why a file that asks for these names cannot be read, for the person who has it."""
    # Names are the attacker's words: no control characters reach the terminal.
    odd = [ascii(name)[1:-1][:_LONGEST_NAME] for name in asked if not _harmless(name)]
    if any(name.startswith("torch.nn.modules.") for name in odd):
        return InputError(
            f"{path} holds a whole pickled module ({odd[0]}), which cannot be read without running code; in "
            "the program that wrote it, save model.state_dict() instead."
        )
    if any(name.startswith("PIL.") for name in odd):
        return InputError(
            f"{path} holds pictures as Python objects ({odd[0]}), which are not opened; in BackdoorBench, save the "
            "attack with its images on disk (give save_attack_result a folder), or save its model entry alone."
        )
    if odd:
        return InputError(
            f"{path} asks to run {odd[0]} when it is opened, so it was refused and nothing was run; do not open "
            "it with other tools, and get a file that holds only weights."
        )
    return InputError(
        f"{path} cannot be read as a PyTorch checkpoint ({problem}); give a file that "
        "torch.save wrote from a state_dict, or a safetensors file."
    )


def _harmless(name: str) -> bool:
    return bool(
        re.fullmatch(
            r"torch\.(\w*Storage|\w*Tensor|Size|device|nn\.parameter\.Parameter|[a-z]+\d+\w*|_utils\._rebuild\w+)"
            r"|collections\.(OrderedDict|Counter)|builtins\.set|_codecs\.encode"
            r"|numpy\.(ndarray|dtype|(_core|core)\.multiarray\.(_reconstruct|scalar))",
            name,
        )
    )


def _archived_pickles(path: Path) -> Iterator[_Opcodes]:
    """The pickles of a torch.save archive, after a look at its directory."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_program(path, archive)
            _check_directory(path, archive)
            _check_sizes(path, archive)
            (pickle,) = (entry for entry in archive.infolist() if _is_pickle(entry))
            yield _read_opcodes(archive.read(pickle))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise refusal(path, ()) from None


def _check_program(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses archives that hold something else than weights, by a name of their own."""
    names = _names(archive)
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise InputError(
            f"{path} is a TorchScript program, not weights; save the state_dict of the original module instead."
        )
    if "archive_format" in inner or "serialized_exported_program.json" in {*inner, *names}:
        raise InputError(
            f"{path} is a program exported by torch.export, not weights; save the state_dict of the original module "
            "instead."
        )
    if any(name.endswith(".npy") for name in names):
        raise InputError(
            f"{path} holds NumPy arrays; python -m converters brings Flax variables back into a PyTorch file."
        )


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses archives that another reader could read otherwise than they are read here."""
    entries, names = archive.infolist(), _names(archive)
    if not _describes_itself(path, archive):
        raise refusal(path, (), "an archive whose end does not describe what it holds")
    if any(entry.comment for entry in entries):
        raise refusal(path, (), "an archive with comments, which torch.save does not write")
    if any(_has_odd_fields(entry.extra) for entry in entries):
        raise refusal(path, (), "an archive with extra fields, which torch.save does not write")
    odd = [name for name in names if _leaves(name)]
    if odd:
        raise refusal(path, (), f"a member named {odd[0][:_LONGEST_NAME]!r}")
    if len(set(names)) < len(names):
        raise refusal(path, (), "two members of one name, for a reader that ignores case")
    if any(entry.flag_bits & 1 for entry in entries):
        raise refusal(path, (), "encrypted")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise refusal(path, (), "compressed in an unusual way")
    if sum(name.count("/") == 1 and name.endswith("/data.pkl") for name in names) != 1:
        raise refusal(path, (), "an archive without data.pkl, so not from torch.save")
    if sum(map(_is_pickle, entries)) > 1:
        raise refusal(path, (), "an archive with pickles besides data.pkl, which torch.save does not write")


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses archives that take far more than their own size to read."""
    entries = archive.infolist()
    if len(entries) > _MOST_MEMBERS:
        raise refusal(path, (), f"an archive of {len(entries)} members")
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > _LARGEST_GROWTH * size + _SLACK_BYTES:
        raise refusal(path, (), f"an archive of {size} bytes that expands to {total}")
    if any(_is_pickle(entry) and entry.file_size > _LARGEST_PICKLE_BYTES for entry in entries):
        raise refusal(path, (), "a pickle larger than any state dict needs")


def _names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the members as the reader proper takes them: whole, also behind a zero, and without case."""
    return [entry.orig_filename.lower() for entry in archive.infolist()]


def _describes_itself(path: Path, archive: zipfile.ZipFile) -> bool:
    """Whether every reader finds the directory that was read here.

    Readers differ in where they look for it when records at the end of the file contradict one another.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
        tail = file.read()
    signature, _, _, _, count, length, start, _ = _END.unpack(tail[-_END.size :])
    if signature != b"PK\5\6":
        return False
    end = size - _END.size
    found = tail[: -_END.size]
    if found[-_LOCATOR.size :].startswith(b"PK\6\7") and len(found) == _LOCATOR.size + _END64.size:
        _, _, position, _ = _LOCATOR.unpack(found[_END64.size :])
        end -= len(found)
        signature, _, _, _, _, _, _, count, length, start = _END64.unpack(found[: _END64.size])
        if signature != b"PK\6\6" or position != end:
            return False
    return start == archive.start_dir and start + length == end and count == len(archive.infolist())


def _has_odd_fields(extra: bytes) -> bool:
    """Whether a member's extra fields are anything but one of large sizes, which can be read in one way only."""
    return bool(extra) and (
        len(extra) < 4 or struct.unpack("<2H", extra[:4]) != (_ZIP64_FIELD, len(extra) - 4)
    )


def _is_pickle(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.lower().endswith(".pkl")


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or "\\" in name or not name.isprintable()


def _legacy_pickles(path: Path) -> Iterator[_Opcodes]:
    """The pickles in a row that a legacy file begins with."""
    if path.stat().st_size == 0:  # which mmap refuses
        raise refusal(path, (), "empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(_LEGACY_PICKLES):
            opcodes = _read_opcodes(content)
            yield opcodes
            if opcodes.problem is not None:
                return


def _read_opcodes(stream: "mmap.mmap | bytes") -> _Opcodes:
    """Follows the opcodes of a pickle with sizes in place of values.

    Tuples are what matters: hashing or printing one costs twice as much with every opcode that makes a pair of
    it and itself. Only what was asked for by name may be called, because the reader prints other callables.
    """
    asked: dict[str, None] = {}
    try:
        problem = _follow(stream, asked)
    except _UnreadableError as error:
        problem = str(error)
    except Exception:  # damaged opcodes raise anything from ValueError to struct.error
        problem = "damaged"
    return _Opcodes(tuple(asked), problem)


def _follow(stream: "mmap.mmap | bytes", asked: dict[str, None]) -> str | None:
    """Adds the names that a pickle asks for to ``asked``; returns what is wrong with it."""
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[int, _Value] = {}
    problem = None
    for name, argument in _opcodes_of(stream):
        if name in _PUTS:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _ATOMS:
            stack.append(_Value(text=argument) if isinstance(argument, str) else _ATOM)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("GLOBAL", "INST"):
            called = argument.replace(" ", ".")
            asked[called] = None
            stack.append(_Value(name=called))
        elif name not in ("PROTO", "FRAME", "STOP"):
            operands, to_mark = _OPERANDS[name]
            cut = (marks.pop() if to_mark else len(stack)) - operands
            if cut < 0:
                raise _UnreadableError("damaged")
            taken = stack[cut:]
            del stack[cut:]
            stack.append(taken[0] if name in _IN_PLACE else _made_of(taken))
            if name in ("TUPLE", "TUPLE2") and len(taken) == 2:
                stack[-1] = stack[-1]._replace(second=taken[1].text)
            if name == "STACK_GLOBAL":
                asked[f"{taken[0].text}.{taken[1].text}"] = None
            if name in ("REDUCE", "NEWOBJ"):
                problem = problem or _odd_call(*taken)
        if name not in _KNOWN:
            problem = problem or f"torch.save writes no {name}"
    return problem


def _odd_call(called: _Value, arguments: _Value) -> str | None:
    """What is wrong with a call, if anything is."""
    if not called.name:
        return "it calls what it did not ask for"
    if called.name == "_codecs.encode" and arguments.second != _BYTES_CODEC:
        return f"it encodes text otherwise than in {_BYTES_CODEC}"
    return None


def _opcodes_of(stream: "mmap.mmap | bytes") -> Iterator[tuple[str, Any]]:
    """Names of opcodes with their arguments."""
    genops: Callable[[Any], Any] = pickletools.genops  # a memory map reads like a file
    for count, (opcode, argument, _) in enumerate(genops(stream)):
        if count == _MOST_OPCODES:
            raise _UnreadableError("a pickle longer than any state dict needs")
        yield opcode.name, argument


def _made_of(parts: list[_Value]) -> _Value:
    """A value that holds others."""
    if not parts:
        return _ATOM
    made = _Value(1 + sum(part.nodes for part in parts), 1 + max(part.depth for part in parts))
    if made.nodes > _MOST_NODES or made.depth > _DEEPEST:
        raise _UnreadableError("values nested without end")
    return made


def _operands(opcode: pickletools.OpcodeInfo) -> tuple[int, bool]:
    """How many values an opcode takes from below a mark (or from the top), and whether it takes a mark."""
    before = opcode.stack_before
    to_mark = pickletools.markobject in before
    return (before.index(pickletools.markobject) if to_mark else len(before)), to_mark


_OPERANDS = {opcode.name: _operands(opcode) for opcode in pickletools.opcodes}
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"})
_GETS = frozenset({"BINGET", "LONG_BINGET", "GET"})
_ATOMS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if not opcode.stack_before and opcode.stack_after and opcode.name not in {*_GETS, "MARK", "GLOBAL"}
)
_IN_PLACE = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
# What the reader proper follows; of others only the names that they ask for matter.
_KNOWN = frozenset(
    {
        *_PUTS,
        *_GETS,
        *_IN_PLACE,
        "PROTO",
        "STOP",
        "MARK",
        "GLOBAL",
        "REDUCE",
        "NEWOBJ",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_TUPLE",
        "EMPTY_LIST",
        "EMPTY_DICT",
        "EMPTY_SET",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "BINFLOAT",
        "LONG1",
        "BINUNICODE",
        "SHORT_BINSTRING",
        "BINPERSID",
    }
    - {"PUT", "GET", "MEMOIZE", "ADDITEMS"}
)
