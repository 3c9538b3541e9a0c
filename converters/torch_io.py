"""Checkpoints are read as data, never run, and written back as they came. The only module that unpickles.

A checkpoint may come from an attacker. So a file is screened before it is opened, ``weights_only=True`` is
explicit and there is no other way in, torch releases with known holes in that reader are refused, and what
comes out is checked before use.
"""

import hashlib
import io
import math
import re
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

from converters import safetensors_io, screening
from converters.numpy_twins import TWINS, TwinArray, TwinDtype
from converters.torch_weights import materialise
from jaxunlearn._check import InputError

_OLDEST_TORCH = (2, 10)  # CVE-2025-32434 and CVE-2026-24747: holes in the weights-only reader before it
_CONTAINER_KEYS = ("net", "state_dict", "model_state_dict", "model", "weights", "params")
_AVERAGED = re.compile(r"(.*_)?ema(_.*)?")  # an exponential moving average of the weights: another network
_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "net.", "backbone.")
_MOST_TENSORS = 20_000
_LONGEST_KEY = 300
_DEEPEST = 64
_MOST_AXES = 8
_LARGEST_SINGLE = float(np.finfo(np.float32).max)
_SHARED_TIMES = 4  # tensors over the file's size: weights may be shared, and so be counted more than once
_SLACK_BYTES = 2**20
_DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}
_LEAVES = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, bytearray),
        *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.device, torch.dtype),
    }
)


@dataclass(frozen=True)
class Facts:
    """What a file says about its network and data; None where it says nothing (or something unusable).

    Attributes:
      model_name: of the architecture, in the words of the program that wrote the file.
      num_classes: the number of classes.
      clean_data: name of the data set.
      img_size: (height, width, channels).
    """

    model_name: str | None = None
    num_classes: int | None = None
    clean_data: str | None = None
    img_size: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file as read.

    Attributes:
      arrays: the state dict as NumPy arrays by key, without ``prefix``, in the file's order. Not to be written
        into: they share the memory of ``content``.
      container_key: under which the file's dictionary holds the state dict; None for a bare state dict.
      prefix: that every key of the file carries (``module.``), or "".
      content: what the file held, for writing back; the metadata of a safetensors file.
      kind: of container: ``zip`` (torch.save), ``legacy`` (torch.save before 1.6) or ``safetensors``.
      size: of the file, in bytes.
      globals: names that its pickles ask for.
      facts: what it says about its network and data.
      notices: what the user should know, in sentences.
    """

    arrays: dict[str, np.ndarray]
    container_key: str | None
    prefix: str
    content: Any
    kind: str
    size: int
    globals: tuple[str, ...]
    facts: Facts
    notices: tuple[str, ...]
    _hash: Future[str]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal; a thread computes it beside the reading."""
        return self._hash.result()

    @property
    def suffix(self) -> str:
        """The usual ending of such a file's name."""
        return ".safetensors" if self.kind == "safetensors" else ".pth"


class _Opened(NamedTuple):
    """A state dict as it lies in a file."""

    tensors: Mapping[str, torch.Tensor]
    container_key: str | None
    content: Any


def read(path: Path, key: str | None = None, *, finite: bool = True) -> Checkpoint:
    """Reads a checkpoint without running anything in it.

    Args:
      path: a file written by ``torch.save``, a state dict or a dictionary that holds one (also BackdoorBench's
        ``attack_result.pt`` and ``defense_result.pt``), or a safetensors file.
      key: of the dictionary's entry to take, where it holds several state dicts or an unusual one.
      finite: whether NaN, infinity and what single precision makes infinite are refused.

    Raises:
      InputError: if the file is missing, is no checkpoint, asks to run code, holds a whole module, leaves
        open which state dict is meant, or holds tensors that cannot be weights.
    """
    _check_torch()
    try:
        if not path.exists():
            raise InputError(f"There is no file {path}; give the path of a PyTorch checkpoint.")
        if not path.is_file():
            raise InputError(f"{path} is not a file; give the path of a PyTorch checkpoint.")
        screened = screening.screen(path)
        size = path.stat().st_size
        sha256 = _hash_beside(path)
        opened = (_open_safetensors if screened.kind == "safetensors" else _open_pickled)(path, key, screened)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check its name and permissions."
        ) from None
    except MemoryError:
        raise screening.refusal(path, (), "it needs more memory than there is") from None
    _check_keys(path, opened.tensors)
    _check_tensors(path, opened.tensors, size)
    plain, notices = materialise(opened.tensors)
    content = opened.content
    if notices and screened.kind != "safetensors":
        tensors = _like(opened.tensors, plain)
        content = tensors if opened.container_key is None else content | {opened.container_key: tensors}
    prefix = _common_prefix(list(plain))
    arrays = {name.removeprefix(prefix): _to_numpy(tensor) for name, tensor in plain.items()}
    if finite:
        _check_finite(path, arrays)
    return Checkpoint(
        arrays=arrays,
        container_key=opened.container_key,
        prefix=prefix,
        content=content,
        kind=screened.kind,
        size=size,
        globals=screened.globals,
        facts=_facts_in(content),
        notices=notices,
        _hash=sha256,
    )


def encode(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a checkpoint file like the one read, with other weights.

    Same container, same keys in the same order, same dtypes and extra entries. Equal weights give equal
    bytes, whatever the file will be called; but not in the container from before torch 1.6, which names tensors by
    their address in memory.
    """
    if checkpoint.kind == "safetensors":
        return encode_safetensors(checkpoint, arrays)
    content = checkpoint.content
    if checkpoint.container_key is None:
        content = _like(content, _with_keys(checkpoint, arrays))
    else:
        tensors = _like(content[checkpoint.container_key], _with_keys(checkpoint, arrays))
        content = content | {checkpoint.container_key: tensors}
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=checkpoint.kind != "legacy")
    return buffer.getvalue()


def encode_safetensors(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The weights alone, under the file's keys, in the safetensors format."""
    metadata = checkpoint.content if checkpoint.kind == "safetensors" else {"format": "pt"}
    return safetensors_io.encode(
        {f"{checkpoint.prefix}{key}": arrays[key] for key in checkpoint.arrays}, metadata
    )


def new_state_dict_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an ordinary checkpoint file, ``{"net": state_dict}``."""
    buffer = io.BytesIO()
    torch.save({"net": {key: _to_torch(array) for key, array in arrays.items()}}, buffer)
    return buffer.getvalue()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_torch() -> None:
    major, minor = (int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if (major, minor) < _OLDEST_TORCH:
        raise InputError(
            f"torch {torch.__version__} is installed, whose reader of untrusted files has known holes; install "
            f"torch {'.'.join(map(str, _OLDEST_TORCH))} or newer."
        )


def _hash_beside(path: Path) -> Future[str]:
    """The hash of a file, computed in a thread."""
    future: Future[str] = Future()

    def compute() -> None:
        try:
            future.set_result(hash_file(path))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=compute, daemon=True).start()
    return future


def _open_safetensors(path: Path, key: str | None, screened: screening.Screened) -> _Opened:
    if key is not None:
        raise InputError(f"{path} is a safetensors file, which holds one state dict; leave --key away.")
    content = bytearray(path.read_bytes())
    try:
        decoded = safetensors_io.decode(content)
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({error}); the file is damaged, get an intact copy."
        ) from None
    return _Opened({name: _to_torch(array) for name, array in decoded.arrays.items()}, None, decoded.metadata)


def _open_pickled(path: Path, key: str | None, screened: screening.Screened) -> _Opened:
    twins = TWINS if any(name.startswith("numpy.") for name in screened.globals) else ()
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(twins)):
            warnings.simplefilter("ignore")
            content = _plain(torch.load(path, map_location="cpu", weights_only=True))
    except MemoryError:
        raise
    except Exception as error:  # a hostile file can make the reader raise anything at all
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise screening.refusal(path, (*(named.groups() if named else ()), *screened.globals)) from None
    return _Opened(*_state_dict_in(content, key, path), content)


def _plain(value: Any, depth: int = 0, seen: dict[int, Any] | None = None) -> Any:
    """A copy of nested containers that holds nothing but plain data.

    A pickle can give a dictionary or a tensor attributes that hide its methods; the copies have none. Stand-ins
    become the NumPy values that they stand for.

    Raises:
      ValueError: if something is neither a container nor plain data, or containers are nested without end.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if depth > _DEEPEST:
        raise ValueError("containers nested without end")
    kind = type(value)
    copy: Any
    if kind in (dict, OrderedDict, Counter):
        copy = seen[id(value)] = kind()
        for key, entry in kind.items(value):
            copy[_plain(key, depth + 1, seen)] = _plain(entry, depth + 1, seen)
        metadata = getattr(value, "__dict__", {}).get("_metadata")
        if kind is OrderedDict and metadata is not None:  # PyTorch keeps the versions of modules here
            copy._metadata = _plain(metadata, depth + 1, seen)
        return copy
    if kind is list:
        copy = seen[id(value)] = []
        copy.extend(_plain(entry, depth + 1, seen) for entry in value)
        return copy
    if kind in (tuple, set):
        copy = kind(_plain(entry, depth + 1, seen) for entry in value)
    elif kind in (TwinArray, TwinDtype):
        copy = value.value
    elif kind in (torch.Tensor, torch.nn.Parameter):
        copy = torch.Tensor.detach(value)
    elif kind in _LEAVES or issubclass(kind, np.generic):
        copy = value
    else:
        raise ValueError(f"{kind.__name__} is no plain data")
    seen[id(value)] = copy
    return copy


def _state_dict_in(
    content: Any, key: str | None, path: Path
) -> tuple[Mapping[str, torch.Tensor], str | None]:
    """The state dict that a file is about, and its key."""
    if type(content) not in (dict, OrderedDict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a dictionary of weights; save model.state_dict()."
        )
    if _is_state_dict(content):
        if key is not None:
            raise InputError(f"{path} is a state dict itself; leave --key away.")
        return content, None
    inside = {
        name: entry for name, entry in content.items() if isinstance(name, str) and _is_state_dict(entry)
    }
    shown = ", ".join(map(_shown, inside))
    if key is not None:
        if key not in inside:
            found = f"the state dicts {shown}" if inside else "no state dict"
            raise InputError(f"{path} holds no state dict {key!r} but {found}; give one of them with --key.")
        return inside[key], key
    candidates = [name for name in inside if name in _CONTAINER_KEYS or _AVERAGED.fullmatch(name)]
    if len(candidates) == 1 and not _AVERAGED.fullmatch(candidates[0]):
        return inside[candidates[0]], candidates[0]
    if len(candidates) > 1:
        raise InputError(
            f"{path} holds several state dicts ({', '.join(map(_shown, candidates))}), which are different networks; "
            "say which one with --key NAME."
        )
    if candidates:
        averaged = _shown(candidates[0])
        raise InputError(
            f"{path} holds only averaged weights ({averaged}), which may behave unlike the network itself; "
            f"if they are meant, say so with --key {averaged}."
        )
    if inside:
        raise InputError(
            f"{path} holds state dicts under unusual names ({shown}); say which with --key NAME."
        )
    entries = ", ".join(map(_shown, list(content)[:8])) or "nothing"
    raise InputError(
        f"{path} holds no state dict: its entries are {entries}; expected tensors by name, bare or under one of "
        f"{', '.join(_CONTAINER_KEYS)}."
    )


def _is_state_dict(value: Any) -> bool:
    return (
        type(value) in (dict, OrderedDict)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(entry, torch.Tensor) for key, entry in value.items())
    )


def _shown(key: Any) -> str:
    return repr(key)[:60]


def _check_keys(path: Path, tensors: Mapping[str, Any]) -> None:
    if not tensors:
        raise InputError(f"{path} holds no tensors; give a file with the weights of a network.")
    if len(tensors) > _MOST_TENSORS:
        raise InputError(f"{path} holds {len(tensors)} tensors, more than any supported network has.")
    odd = [key for key in tensors if not key or len(key) > _LONGEST_KEY or not key.isprintable()]
    if odd:
        raise InputError(
            f"{path} names a tensor {_shown(odd[0])}, of {len(odd[0])} characters; expected names as PyTorch gives "
            f"them, printable and of at most {_LONGEST_KEY} characters."
        )


def _check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], size: int) -> None:
    """Refuses tensors that cannot be weights, before anything is computed from them."""
    total = 0
    for key, tensor in tensors.items():
        if tensor.dim() > _MOST_AXES:
            raise InputError(
                f"{path}: {key} has {tensor.dim()} axes; expected weights of at most {_MOST_AXES}."
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _DTYPES:
            raise InputError(
                f"{path}: {key} is a {tensor.layout} tensor of {tensor.dtype}; expected dense floating or integer "
                "weights."
            )
        if tensor.device.type != "cpu":
            raise InputError(f"{path}: {key} has no values (device {tensor.device}); save the real weights.")
        if tensor.is_neg():
            raise InputError(
                f"{path}: {key} is a negated view; save the weights themselves (tensor.resolve_neg())."
            )
        # A few bytes can describe a huge tensor by repeating one element.
        total += math.prod(tensor.shape) * tensor.element_size()
        if total > _SHARED_TIMES * size + _SLACK_BYTES:
            raise InputError(
                f"{path}: with {key} the tensors would take {total} bytes, far more than the {size} of the file; "
                "save the weights without repeating elements."
            )


def _common_prefix(keys: list[str]) -> str:
    """What wrappers have put in front of every key."""
    whole = ""
    while True:
        starts = (whole + prefix for prefix in _PREFIXES)
        longer = next((s for s in starts if all(key.startswith(s) and key != s for key in keys)), None)
        if longer is None:
            return whole
        whole = longer


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        if is_finite(as_single(array)):
            continue
        if not is_finite(array):
            raise InputError(
                f"{path}: {key} holds NaN or infinite values; the file is damaged, get an intact copy."
            )
        raise InputError(
            f"{path}: {key} holds values too large for single precision, in which networks are computed; "
            f"expected weights of at most {_LARGEST_SINGLE:.1e}."
        )


def as_single(array: np.ndarray) -> np.ndarray:
    """The array as networks compute with it: double precision in single, where large values become infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity.

    Example:
      >>> is_finite(np.array([1.0, np.inf]))
      False
    """
    if array.dtype.kind in "iub":
        return True
    with np.errstate(all="ignore"):
        total = array.sum(dtype=np.float64 if array.dtype == np.float64 else np.float32)
    # A sum is cheap and spoilt by any such value; it can also overflow, so that only a finite one decides.
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _facts_in(content: Any) -> Facts:
    """The entries that say something about the network, where they have the right type."""
    if not isinstance(content, dict):
        return Facts()
    found = {field.name: content.get(field.name) for field in fields(Facts)}
    sizes = found["img_size"]
    if isinstance(sizes, (list, tuple)) and len(sizes) == 3 and all(_is_count(size) for size in sizes):
        found["img_size"] = tuple(sizes)
    else:
        found["img_size"] = None
    found["num_classes"] = found["num_classes"] if _is_count(found["num_classes"]) else None
    for name in ("model_name", "clean_data"):
        text = found[name]
        if not (isinstance(text, str) and text.isprintable() and 0 < len(text) <= _LONGEST_KEY):
            found[name] = None
    return Facts(**found)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values, in its own memory where that is contiguous; read-only."""
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:  # NumPy knows it only through ml_dtypes
        array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = tensor.numpy()
    array.flags.writeable = False
    return array


def _to_torch(array: np.ndarray) -> torch.Tensor:
    """The array's values, in its own memory if that may be written into."""
    array = array if array.flags.writeable else np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _with_keys(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors under the file's keys, in the file's order, apart from the arrays' memory."""
    return {f"{checkpoint.prefix}{key}": _to_torch(np.array(arrays[key])) for key in checkpoint.arrays}


def _like(state_dict: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """A state dict of the same type and with the same metadata as another one."""
    replaced = type(state_dict)(tensors)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        replaced._metadata = metadata
    return replaced
