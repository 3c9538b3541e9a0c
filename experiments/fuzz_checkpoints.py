"""Hostile and damaged checkpoints through the real readers: nothing may run, hang, or fill the memory.

Command   python -m experiments.fuzz_checkpoints --files 20000 --seed 0
What      writes files of every family below into a temporary folder and reads each as the programs do:
          torch_io.read, convert.from_torch and inspect, and BackdoorBench's images where a file names some
Hardware  two CPU cores
Time      a quarter of an hour
Expected  every file gives a result or an InputError: experiments/results/fuzz_checkpoints.json, from this command

Files are read in worker processes. An audit hook records every event that reading data has no business with
(starting processes, exec, sockets, writing files outside the worker's own needs), the address space of a worker
may grow by 4 GiB, and a file has thirty seconds of processor time. Anything but a result or an InputError is a
failure: its family, seed and number are printed and the file is kept in ``--keep``.
"""

import argparse
import collections
import encodings
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import platform
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.torch_ibau import SmallVGG

SECONDS = 30  # of processor time; a slow machine takes ten to compare a file with every large network
STUCK_SECONDS = 300  # without any word from a worker
MEMORY = 4 * 2**30
# What reading data has no business with, by the beginning of the audit event's name.
FORBIDDEN = (
    *(
        "exec",
        "compile",
        "subprocess.",
        "socket.",
        "pty.",
        "shutil.",
        "ctypes.dlopen",
        "webbrowser.",
        "urllib.",
    ),
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "os.remove", "os.rename"),
    *("os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod"),
)


CODECS = str(Path(encodings.__file__).parent)  # of the standard library, imported when they are named


# --- good files, to be spoilt ---


def good_state_dict(rng: random.Random) -> dict[str, torch.Tensor]:
    """Of a small network, in one of several precisions."""
    network = SmallVGG(rng.randint(2, 5), 1, 8, (2, 2, 2))
    dtype = rng.choice((torch.float32, torch.float16, torch.bfloat16, torch.float64))
    return collections.OrderedDict(
        (key, value.to(dtype) if value.is_floating_point() else value)
        for key, value in network.state_dict().items()
    )


def good_content(rng: random.Random) -> Any:
    """Bare, in a container, or as BackdoorBench writes it."""
    state_dict = good_state_dict(rng)
    kind = rng.randrange(3)
    if kind == 0:
        return state_dict
    if kind == 1:
        return {rng.choice(("net", "model", "state_dict", "ema")): state_dict, "epoch": 3}
    return attack_content(rng, state_dict)


def attack_content(rng: random.Random, state_dict: Any, paths: tuple[str, ...] = ()) -> dict[str, Any]:
    """What attack_result.pt holds."""
    table = {
        np.int64(i): {"path": path, "other_info": [0, 1]}
        for i, path in enumerate(paths or ("record/bd_test_dataset/1/0.png",))
    }
    container = {"save_folder_path": "record", "data_dict": table, "save_file_format": ".png"}
    return {
        "model_name": rng.choice(("small_vgg", "x" * 1000, 3, None)),
        "num_classes": rng.choice((10, -1, 10**20, "ten")),
        "model": state_dict,
        "img_size": rng.choice(((8, 8, 3), [1], "big", (-1, 2, 3))),
        "clean_data": "cifar10",
        "bd_test": {"bd_data_container": container, "poison_indicator": np.ones(4)},
    }


def saved(content: Any, **options: Any) -> bytes:
    """As torch.save writes it."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def good_file(rng: random.Random) -> bytes:
    """A file of any container that can be read."""
    kind = rng.randrange(3)
    if kind == 0:
        return saved(good_content(rng))
    if kind == 1:
        return saved(good_content(rng), _use_new_zipfile_serialization=False)
    return safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    """The members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {name: source.read(name) for name in source.namelist()}


def with_pickle(stream: bytes) -> bytes:
    """An archive like torch.save's with this pickle."""
    return archive(
        {"a/data.pkl": stream, "a/byteorder": b"little", "a/data/0": bytes(64), "a/version": b"3\n"}
    )


def safetensors(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


# --- families ---


def wrapped(rng: random.Random, stream: bytes) -> bytes:
    """A pickle in one of the places where a reader meets it."""
    kind = rng.randrange(4)
    if kind == 0:
        return stream
    if kind == 1:
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
        return magic + stream + pickle.dumps([], 2)
    return with_pickle(stream)


def names(rng: random.Random) -> tuple[bytes, bytes]:
    """Something that a hostile pickle calls."""
    return rng.choice(
        (
            (b"os", b"system"),
            (b"posix", b"system"),
            (b"builtins", b"eval"),
            (b"builtins", b"exec"),
            (b"builtins", b"getattr"),
            (b"subprocess", b"Popen"),
            (b"torch", b"load"),
            (b"torch.hub", b"load"),
            (b"numpy", b"load"),
            (b"numpy.core.multiarray", b"fromfile"),
            (b"torch._utils", b"_rebuild_wrapper_subclass"),
            (b"torch.serialization", b"load"),
            (b"torch._tensor", b"_rebuild_from_type_v2"),
            (b"builtins", b"bytearray"),
            (b"collections", b"Counter"),
            (b"torch", b"FloatTensor"),
            (b"torch.nn.modules.linear", b"Linear"),
            (b"\xc3\xa9\x1b[31m", b"x"),
        )
    )


def calls(rng: random.Random) -> bytes:
    """REDUCE, BUILD, INST, OBJ, NEWOBJ, GLOBAL, STACK_GLOBAL and EXT, in protocols 0 to 5."""
    module, name = names(rng)
    canary = os.environ.get("FUZZ_CANARY", "/nonexistent/canary")
    argument = rng.choice((f"touch {canary}", f"open({canary!r}, 'w')", canary)).encode()
    text = b"X" + struct.pack("<I", len(argument)) + argument
    short = b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"
    named = b"c" + module + b"\n" + name + b"\n"
    number = b"\x8a\x05" + struct.pack("<q", rng.choice((2**33, 2**38, -1)))[:5]
    body = rng.choice(
        (
            named + text + b"\x85R",
            named + number + b"\x85R",
            named + text + b"\x85\x81",
            short + text + b"\x85R",
            b"(" + text + b"i" + module + b"\n" + name + b"\n",
            b"(" + named + text + b"o",
            named + b")\x81}" + text + b"K\x01sb",
            bytes([0x82, rng.randrange(1, 256)]) + text + b"\x85R",
            named + text + b"\x85R0}",
            b"}" + named + b"b",
        )
    )
    proto = rng.randrange(6)
    return wrapped(rng, (b"" if proto == 0 else bytes([0x80, proto])) + body + b".")


def nested_pickles(rng: random.Random) -> bytes:
    """Pickles that hold pickles, and legacy files with a hostile one in any place."""
    inner = calls(rng)
    stream = pickle.dumps({"net": inner, "w": rng.random()}, rng.randrange(6))
    return wrapped(rng, stream) + (inner if rng.random() < 0.5 else b"")


def memo_bombs(rng: random.Random) -> bytes:
    """Values that double with every opcode, as keys, in sets, in calls; and values nested without end."""
    levels = rng.choice((5, 20, 40, 60, 200))
    pair = rng.choice((b"\x86", b"(h%ch%ct", b"]"))
    if pair == b"\x86":
        doubling = b")" + b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(levels))
    elif pair == b"]":
        doubling = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(levels))
    else:
        doubling = b")" + b"\x85" * rng.choice((50, 1000, 20_000))
    end = rng.choice(
        (b"}" + doubling + b"K\x01s", doubling + b")R", doubling, b"}(X\x01\x00\x00\x00w" + doubling + b"u")
    )
    shared = b"}" + b"".join(b"q%c}(K\x00h%cK\x01h%cu" % (i, i, i) for i in range(levels))
    return wrapped(rng, b"\x80\x02" + rng.choice((end, shared)) + b".")


def archives(rng: random.Random) -> bytes:
    """Zip bombs, traversal names, repeated and encrypted members, lies about sizes."""
    members = members_of(saved(good_content(rng)))
    kind = rng.randrange(7)
    if kind == 0:
        return archive({**members, "archive/data/99": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    if kind == 1:
        name = rng.choice(
            ("../../evil", "/etc/evil", "archive/../../x", "a\\..\\b", "archive/\x1b[2J", "x" * 60000)
        )
        return archive({**members, name: b"evil"})
    if kind == 2:
        return archive(
            {rng.choice((f"{i}/data.pkl", f"a/{i}")): b"\x80\x02}." for i in range(rng.choice((3, 3000)))}
        )
    content = bytearray(archive(members))
    at = content.find(b"PK\x01\x02")
    field, size = rng.choice(((8, 2), (10, 2), (20, 4), (24, 4), (28, 2), (42, 4)))
    if kind == 3:
        content[at + field : at + field + size] = rng.randbytes(size)
    elif kind == 4:
        content[at + 8] |= 1
    elif kind == 5:
        end = content.rfind(b"PK\x05\x06")
        content[end + 8 + rng.randrange(12)] ^= 1 << rng.randrange(8)
    else:
        members["archive/constants.pkl" if rng.random() < 0.5 else "archive/.format_version"] = rng.randbytes(
            5
        )
        return archive(members)
    return bytes(content)


def damaged(rng: random.Random) -> bytes:
    """Good files cut off, with flipped bits, or spliced."""
    content = bytearray(good_file(rng))
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(content[: rng.randrange(len(content))])
    if kind == 1:
        for _ in range(rng.choice((1, 10, 100))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(content)
    other = good_file(rng)
    start, stop = sorted(rng.randrange(len(content)) for _ in range(2))
    if kind == 2:
        return bytes(content[:start] + other[start:stop] + content[stop:])
    return bytes(content[:start] + content[stop:])


def damaged_pickles(rng: random.Random) -> bytes:
    """Good archives whose pickle has other opcodes and numbers; checksums are right."""
    members = members_of(saved(good_content(rng)))
    name = next(name for name in members if name.endswith("data.pkl"))
    stream = bytearray(members[name])
    for _ in range(rng.choice((1, 3, 10))):
        at = rng.randrange(len(stream))
        kind = rng.randrange(3)
        if kind == 0:
            stream[at] = rng.randrange(256)
        elif kind == 1:
            stream[at:at] = rng.choice(
                (b"(", b".", b"R", b"b", b"\x81", b"0", b"\x85", b"J\xff\xff\xff\x7f", b"h\x00")
            )
        else:
            del stream[at]
    return archive({**members, name: bytes(stream)})


def tensors(rng: random.Random) -> bytes:
    """Repeated elements that expand to terabytes, storages that lie, types that are no weights, NaN."""
    odd = rng.choice(
        (
            lambda: torch.zeros(1).expand(2 ** rng.randrange(10, 31), 2 ** rng.randrange(1, 31)),
            lambda: torch.zeros(1, dtype=torch.complex64),
            lambda: torch.eye(3).to_sparse(),
            lambda: torch.zeros(2, device="meta"),
            lambda: torch.full((2,), rng.choice((float("nan"), float("inf")))),
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            lambda: torch.zeros(0),
            lambda: torch.zeros(()),
            lambda: torch.zeros([1] * 60),
            lambda: torch.zeros(2, dtype=torch.uint16),
            lambda: torch.zeros(2, dtype=torch.float8_e4m3fn),
            lambda: torch.nn.Parameter(torch.zeros(2)),
            lambda: torch.full((2,), 3e38),
        )
    )()
    state_dict = good_state_dict(rng)
    state_dict[
        rng.choice((*state_dict, "w", "a.weight_mask", "a.weight_g", "a.parametrizations.weight.original"))
    ] = odd
    if rng.random() < 0.3:
        members = members_of(saved(state_dict))
        name = rng.choice([name for name in members if "/data/" in name])
        members[name] = members[name][: rng.randrange(len(members[name]) + 1)]
        return archive(members)
    return saved({"net": state_dict}, _use_new_zipfile_serialization=rng.random() < 0.7)


def keys(rng: random.Random) -> bytes:
    """Keys that are no texts, empty, very long, unprintable or like paths, in states and containers."""
    odd = rng.choice(
        (
            3,
            None,
            (1, 2),
            b"bytes",
            "",
            "a" * 10**6,
            "\x1b[2J",
            "a\nb",
            "../../x",
            "/etc/passwd",
            "\ud800",
            1.5,
            True,
        )
    )
    state_dict: dict[Any, Any] = dict(good_state_dict(rng))
    if rng.random() < 0.5:
        state_dict[odd] = torch.zeros(1)
        return saved(rng.choice((state_dict, {"net": state_dict})))
    many = {
        f"{prefix}k{i}": torch.zeros(1) for prefix in ("module.", "") for i in range(rng.choice((1, 500)))
    }
    return saved(
        rng.choice(({odd: state_dict}, {"net": many}, many, {"ema": many, odd: 1}, {"net": {odd: 1}}))
    )


def safetensors_lies(rng: random.Random) -> bytes:
    """Headers that lie about lengths, offsets, shapes and types, or are nested, repeated or no JSON."""
    entry: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    lie = rng.choice(
        (
            {"dtype": rng.choice(("F8_E4M3", "X", 3, None, "BOOL"))},
            {"shape": rng.choice(([2**62, 4], [-1], [2.0], "2", [True, 2], [1] * 100, [2**64], None))},
            {"data_offsets": rng.choice(([8, 0], [0, 2**62], [-8, 0], [0], [0, 8, 16], "08", [0, 4], None))},
            {"extra": 1},
            {},
        )
    )
    header: Any = {rng.choice(("w", "", "a" * 10**5, "\x00")): {**entry, **lie}}
    kind = rng.randrange(5)
    if kind == 0:
        header["__metadata__"] = rng.choice(({"a": 1}, [], {"a": "b"}, "text"))
    elif kind == 1:
        header = b'{"w":' + b"[" * rng.choice((10, 100_000)) + b"]" * rng.choice((10, 100_000)) + b"}"
    elif kind == 2:
        one = json.dumps(entry).encode()
        header = rng.choice(
            (b'{"w":' + one + b',"w":' + one + b"}", b"{" + b"9" * 9000 + b"}", b'{"w":1e999}', b"{\xff}")
        )
    length = rng.choice((None, None, None, 0, 2**63, 2**64 - 1, 10**9))
    return safetensors(header, bytes(rng.choice((8, 8, 0, 100))), length)


def attacks(rng: random.Random) -> bytes:
    """attack_result.pt with paths that leave the folder, object arrays, pictures, made-up number types."""
    paths = (
        "record/bd_test_dataset/1/../../../../etc/passwd",
        "/etc/passwd",
        "bd_test_dataset//etc/passwd",
        "..\\..\\bd_test_dataset\\1\\0.png",
        "bd_test_dataset/1/\x00.png",
        "x/bd_test_dataset/1/" + "a" * 5000,
    )
    content = attack_content(rng, good_state_dict(rng), (rng.choice(paths),))
    content["odd"] = rng.choice(
        (
            np.array([{"a": 1}], object),
            np.zeros(2, "i4,f8"),
            np.array(["text"]),
            np.zeros(2, ">f8"),
            np.datetime64("2020-01-01"),
            np.zeros((0, 3)),
            np.asfortranarray(np.ones((2, 3))),
            np.complex64(1),
            None,
        )
    )
    if rng.random() < 0.5:
        return saved(content)
    members = members_of(saved(content))
    name = next(name for name in members if name.endswith("data.pkl"))
    old, new = rng.choice(
        (
            (b"i8", b"O8"),
            (b"f8", b"V8"),
            (b"K\x03X\x01\x00\x00\x00<", b"K\x04X\x01\x00\x00\x00<"),
            (b"K\x04\x85", b"K\x7f\x85"),
            (b"numpy._core", b"numpy.core"),
            (b"numpy\ndtype", b"numpy\nload"),
            (b"numpy\nndarray", b"numpy\nmatrix"),
        )
    )
    return archive({**members, name: members[name].replace(old, new)})


def programs(rng: random.Random) -> bytes:
    """TorchScript, whole modules, exported programs, NumPy archives, tar archives, and what is none of all that."""
    kind = rng.randrange(6)
    if kind == 0:
        return archive(
            {"a/constants.pkl": b"\x80\x02).", "a/data.pkl": b"\x80\x02).", "a/code/m.py": b"import os"}
        )
    if kind == 1:
        return saved(torch.nn.Linear(1, 1), _use_new_zipfile_serialization=rng.random() < 0.5)
    if kind == 2:
        return archive({"m/archive_format": b"pt2", "m/models/model.json": b"{}"})
    buffer = io.BytesIO()
    if kind == 3:
        np.savez(buffer, x=np.zeros(3))
    elif kind == 4:
        with tarfile.open(
            fileobj=buffer, mode="w", format=rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT))
        ) as tar:
            for name in ("storages", "tensors", "../../evil"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    else:
        buffer.write(
            rng.choice(
                (
                    b"",
                    b"P",
                    b"PK\x03\x04",
                    b"\x80",
                    b"\x80\x02",
                    b"{",
                    bytes(600),
                    rng.randbytes(400),
                    b"I1\n." * 99,
                )
            )
        )
    return buffer.getvalue()


FAMILIES: dict[str, Callable[[random.Random], bytes]] = {
    "calls": calls,
    "nested pickles": nested_pickles,
    "memo bombs": memo_bombs,
    "archives": archives,
    "damaged": damaged,
    "damaged pickles": damaged_pickles,
    "tensors": tensors,
    "keys": keys,
    "safetensors": safetensors_lies,
    "attacks": attacks,
    "programs": programs,
    "good": good_file,
}


# --- reading ---


class Forbidden(BaseException):
    """Something happened that reading data never needs."""


def guard(folder: Path) -> list[str]:
    """Installs the audit hook and the limits in this process; returns the list that the hook adds to."""
    events: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        codec = event == "exec" and getattr(arguments[0], "co_filename", "").startswith(CODECS)
        if (event.startswith(FORBIDDEN) and not codec) or writes:
            events.append(f"{event} {str(arguments)[:100]}")

    sys.addaudithook(hook)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(folder)
    return events


def outcome_of(path: Path, events: list[str]) -> str:
    """Reads a file as the programs do."""
    from converters import convert, torch_io
    from converters.backdoorbench import read_attack
    from converters.inspection import as_text, inspect
    from jaxunlearn._check import InputError

    def expire(*_: Any) -> None:
        raise Forbidden(f"{SECONDS} seconds")

    signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    del events[:]
    results = []
    try:
        readers: list[Callable[[], Any]] = [
            lambda: convert.from_torch(torch_io.read(path).arrays),
            lambda: (
                json.dumps(description := inspect(torch_io.read(path, finite=False))) + as_text(description)
            ),
        ]
        if b"bd_test" in path.read_bytes():
            readers.append(lambda: read_attack(path))
        for read in readers:
            try:
                read()
                results.append("read")
            except InputError as error:
                results.append(
                    "refused" if str(error).isprintable() or "\n  " in str(error) else "unprintable message"
                )
    except BaseException as error:  # exactly what must not happen
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if events:
        return f"event {events[0]}"
    return next((result for result in results if result not in ("read", "refused")), results[0])


def work(folder: Path, seed: int, numbers: range, keep: Path, results: Any) -> None:
    """Writes and reads the files of some numbers; sends (number, family, outcome, seconds, peak)."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["FUZZ_CANARY"] = str(folder / "canary")
    outcome_of(warm_up(folder), [])
    events = guard(folder)
    for number in numbers:
        family, content = make(seed, number)
        path = folder / ("file.safetensors" if family == "safetensors" else "file.pth")
        path.write_bytes(content)
        results.send((number, family, None, 0.0, 0))
        since = time.process_time()
        outcome = outcome_of(path, events)
        seconds = time.process_time() - since
        if {entry.name for entry in folder.iterdir()} - {"file.pth", "file.safetensors"}:
            outcome = "a file was written"
        if outcome not in ("read", "refused"):
            shutil.copy(path, keep / f"{seed}-{number}-{path.name}")
        results.send((number, family, outcome, seconds, peak_kib()))
    results.close()


def peak_kib() -> int:
    """The largest resident memory of this process; ``ru_maxrss`` would begin with that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def warm_up(folder: Path) -> Path:
    """A good file, so that everything is imported and compiled before the guard stands."""
    path = folder / "file.pth"
    path.write_bytes(saved(attack_content(random.Random(0), good_state_dict(random.Random(0)))))  # noqa: S311
    return path


def make(seed: int, number: int) -> tuple[str, bytes]:
    """The file of a number, the same every time."""
    rng = random.Random(f"{seed}-{number}")  # noqa: S311  # repeatable is what it has to be
    torch.manual_seed(number)
    family = list(FAMILIES)[number % len(FAMILIES)]
    return family, FAMILIES[family](rng)


def campaign(files: int, seed: int, keep: Path, workers: int = 2) -> dict[str, Any]:
    """Runs all files and returns the summary."""
    keep.mkdir(parents=True, exist_ok=True)
    counts: dict[str, dict[str, int]] = {family: {} for family in FAMILIES}
    failures: list[dict[str, Any]] = []
    slowest, peak = (0.0, -1, ""), 0
    parts = [range(start, files, workers) for start in range(workers)]
    for number, family, outcome, seconds, memory in in_processes(parts, seed, keep):
        kind = outcome if outcome in ("read", "refused") else "failed"
        counts[family][kind] = counts[family].get(kind, 0) + 1
        slowest, peak = max(slowest, (seconds, number, family)), max(peak, memory)
        if kind == "failed":
            failures.append({"seed": seed, "number": number, "family": family, "outcome": outcome})
            print(f"FAILED  seed {seed} number {number} ({family}): {outcome}; kept in {keep}", flush=True)
    return {
        "files": sum(sum(entry.values()) for entry in counts.values()),
        "seed": seed,
        "outcomes": counts,
        "failures": failures,
        "slowest": {"seconds": round(slowest[0], 2), "number": slowest[1], "family": slowest[2]},
        "peak_memory_mib": round(peak / 2**10),
        "versions": {
            "python": platform.python_version(),
            **{n: metadata.version(n) for n in ("torch", "numpy", "jax")},
        },
    }


def in_processes(parts: list[range], seed: int, keep: Path) -> Iterator[tuple[int, str, str, float, int]]:
    """The results of workers as they come; a worker that dies is a failure of its file and is replaced."""
    context = multiprocessing.get_context("spawn")
    running: dict[Any, tuple[Any, Path, range]] = {}

    def start(numbers: range) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(folder, seed, numbers, keep, sender))
        process.start()
        sender.close()
        running[receiver] = (process, folder, numbers)

    for part in parts:
        start(part)
    current: dict[Any, tuple[int, str]] = {}
    while running:
        ready: list[Any] = multiprocessing.connection.wait(list(running), timeout=STUCK_SECONDS)
        for receiver in ready or list(running):
            process, folder, numbers = running[receiver]
            try:
                if not receiver.poll():
                    process.kill()  # stuck where no signal reaches it
                number, family, outcome, seconds, memory = receiver.recv()
            except EOFError:
                process.join()
                del running[receiver]
                if receiver in current:
                    number, family = current.pop(receiver)
                    for path in folder.glob("file.*"):
                        shutil.copy(path, keep / f"{seed}-{number}-{path.name}")
                    yield number, family, f"the process died ({process.exitcode})", 0.0, 0
                    start(range(number + numbers.step, numbers.stop, numbers.step))
                elif process.exitcode:
                    raise RuntimeError(f"a worker could not start ({process.exitcode})") from None
                shutil.rmtree(folder, ignore_errors=True)
                continue
            current[receiver] = (number, family)
            if outcome is not None:
                del current[receiver]
                yield number, family, outcome, seconds, memory


def main() -> int:
    """Runs the campaign and writes the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-failures")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "fuzz_checkpoints.json"
    )
    flags = parser.parse_args()
    summary = campaign(flags.files, flags.seed, flags.keep, flags.workers)
    flags.out.write_text(json.dumps(summary, indent=1) + "\n")
    for family, counts in summary["outcomes"].items():
        print(f"{family:16}" + "  ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    print(
        f"slowest {summary['slowest']}, peak {summary['peak_memory_mib']} MiB, {len(summary['failures'])} failures"
    )
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
