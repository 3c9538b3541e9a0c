"""The only importer of torch: checkpoints are read as data, never run, and written back as they came.

A checkpoint may come from an attacker. So ``weights_only=True`` is explicit and there is no other way
in, torch releases with known holes in that reader are refused, and what comes out is checked before use.
"""

import hashlib
import io
import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

from jaxunlearn._check import InputError

_OLDEST_TORCH = (2, 10)  # CVE-2025-32434 and CVE-2026-24747: holes in the weights-only reader before it
_CONTAINER_KEYS = ("net", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_LARGEST_TENSOR_BYTES = 8 * 2**30
_LARGEST_PICKLE_BYTES = 64 * 2**20
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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file as read.

    Attributes:
      arrays: the state dict as NumPy arrays by key, without ``prefix``, in the file's order.
      container_key: under which the file's dictionary holds the state dict; None for a bare state dict.
      prefix: that every key of the file carries (``module.``), or "".
      sha256: of the file, in hexadecimal.
      content: what the file held, for writing back.
    """

    arrays: dict[str, np.ndarray]
    container_key: str | None
    prefix: str
    sha256: str
    content: dict[str, Any]


def read(path: Path) -> Checkpoint:
    """Reads a PyTorch checkpoint without running anything in it.

    Args:
      path: a file written by ``torch.save``: a state dict, or a dictionary that holds one under ``net``,
        ``state_dict``, ``model_state_dict`` or ``model``.

    Raises:
      InputError: if the file is missing, is no checkpoint, asks to run code, holds a whole module, or
        holds tensors that cannot be weights (odd types, huge, NaN or infinite).
    """
    _check_torch()
    if not path.exists():
        raise InputError(f"There is no file {path}; give the path of a PyTorch checkpoint.")
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a PyTorch checkpoint.")
    content = _load(path)
    state_dict, container_key = _state_dict_in(content, path)
    prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state_dict)), "")
    arrays = {key.removeprefix(prefix): _to_numpy(key, tensor, path) for key, tensor in state_dict.items()}
    return Checkpoint(arrays, container_key, prefix, hash_file(path), content)


def encode(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a checkpoint file like the one read, with other weights.

    Same container, same keys in the same order, same dtypes and extra entries. Equal weights give equal
    bytes, whatever the file will be called.
    """
    tensors = _with_tensors(checkpoint, arrays)
    if checkpoint.container_key is None:
        content: Any = tensors
    else:
        content = type(checkpoint.content)(checkpoint.content)
        content[checkpoint.container_key] = tensors
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def encode_safetensors(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The weights alone, under the checkpoint's keys, in the safetensors format."""
    from safetensors.torch import save

    return save(dict(_with_tensors(checkpoint, arrays)), metadata={"format": "pt"})


def new_state_dict_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an ordinary checkpoint file, ``{"net": state_dict}``."""
    buffer = io.BytesIO()
    torch.save({"net": {key: _to_torch(array) for key, array in arrays.items()}}, buffer)
    return buffer.getvalue()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version() -> str:
    """The version of torch."""
    return str(torch.__version__)


def _check_torch() -> None:
    major, minor = (int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if (major, minor) < _OLDEST_TORCH:
        raise InputError(
            f"torch {torch.__version__} is installed, whose reader of untrusted files has known holes; install "
            f"torch {'.'.join(map(str, _OLDEST_TORCH))} or newer."
        )


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can make the reader raise anything at all
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> InputError:
    """Why torch refused the file, for the person who has it."""
    if "TorchScript" in str(error):
        return InputError(
            f"{path} is a TorchScript program, not weights; save the state_dict of the original module instead."
        )
    named = re.search(r"GLOBAL (\S+)", str(error))
    asked = [named.group(1)] if named else []
    asked += [name for name in dict.fromkeys(_globals(path)) if name not in asked and not _harmless(name)]
    if any(name.startswith("torch.nn.modules.") for name in asked):
        return InputError(
            f"{path} holds a whole pickled module ({asked[0]}), which cannot be read without running code; in "
            "the program that wrote it, save model.state_dict() instead."
        )
    if asked:
        return InputError(
            f"{path} asks to run {asked[0]} when it is opened, so it was refused and nothing was run; do not open "
            "it with other tools, and get a file that holds only weights."
        )
    return InputError(
        f"{path} cannot be read as a PyTorch checkpoint (damaged, or another kind of file); give a file that "
        "torch.save wrote from a state_dict."
    )


def _harmless(name: str) -> bool:
    return name.startswith(("torch._utils._rebuild", "collections.OrderedDict")) or bool(
        re.fullmatch(r"torch\.(\w*Storage|\w*Tensor|Size|device|\w*\d+)", name)
    )


def _globals(path: Path) -> Iterator[str]:
    """Names that the pickles in a file ask for, found by reading the opcodes, not by running them."""
    try:
        for stream in _pickles(path):
            strings: list[str] = []
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # damaged pickles end the list; it only serves the message
        return


def _pickles(path: Path) -> Iterator[io.BytesIO]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl") and entry.file_size <= _LARGEST_PICKLE_BYTES:
                    yield io.BytesIO(archive.read(entry))
    else:
        with path.open("rb") as file:
            stream = io.BytesIO(file.read(_LARGEST_PICKLE_BYTES))
        while stream.tell() < stream.getbuffer().nbytes:  # a legacy file is several pickles in a row
            yield stream


def _state_dict_in(content: Any, path: Path) -> tuple[Mapping[str, Any], str | None]:
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a dictionary of weights; save model.state_dict()."
        )
    if _is_state_dict(content):
        return content, None
    found = [key for key in _CONTAINER_KEYS if _is_state_dict(content.get(key))]
    if len(found) == 1:
        return content[found[0]], found[0]
    if found:
        raise InputError(
            f"{path} holds several state dicts ({', '.join(found)}); save the one to clean alone."
        )
    keys = ", ".join(repr(key) for key in list(content)[:8]) or "nothing"
    raise InputError(
        f"{path} holds no state dict: its entries are {keys}; expected tensors by name, bare or under one of "
        f"{', '.join(_CONTAINER_KEYS)}."
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(entry, torch.Tensor) for key, entry in value.items())
    )


def _to_numpy(key: str, tensor: torch.Tensor, path: Path) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _DTYPES:
        raise InputError(
            f"{path}: {key} is a {tensor.layout} tensor of {tensor.dtype}; expected dense floating or integer "
            "weights."
        )
    if tensor.device.type != "cpu":
        raise InputError(f"{path}: {key} has no values (device {tensor.device}); save the real weights.")
    # A few bytes can describe a huge tensor by repeating one element, so the size is checked before copying.
    size = math.prod(tensor.shape) * tensor.element_size()
    if size > _LARGEST_TENSOR_BYTES:
        raise InputError(f"{path}: {key} would take {size} bytes, which no supported network needs.")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InputError(
            f"{path}: {key} holds NaN or infinite values; the file is damaged, get an intact copy."
        )
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # NumPy knows it only through ml_dtypes
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy().copy()


def _to_torch(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _with_tensors(checkpoint: Checkpoint, arrays: Mapping[str, np.ndarray]) -> Any:
    """The checkpoint's own state dict (its type, order and metadata) with other values."""
    state_dict = checkpoint.content
    if checkpoint.container_key is not None:
        state_dict = state_dict[checkpoint.container_key]
    replaced = type(state_dict)(
        (key, _to_torch(arrays[key.removeprefix(checkpoint.prefix)])) for key in state_dict
    )
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        replaced._metadata = metadata  # type: ignore[attr-defined]  # PyTorch keeps module versions here
    return replaced
