"""Encoded pictures: their sizes, their pixels, and bringing them to the size that a model takes."""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxunlearn._check import InputError, shown

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF", "TIFF")  # others, such as EPS, start programs
_LARGEST_PIXELS = 2**26
_CHUNK = 256
_MOST_EXPANDED = 100  # times its bytes in the archive that an array may take, where it takes much
_SLACK_BYTES = 2**26


class Header(NamedTuple):
    """What the first bytes of a picture tell."""

    height: int
    width: int
    channels: int


class Pictures(NamedTuple):
    """Encoded pictures of a source, by their number.

    Attributes:
      read: gives the bytes of some of them.
      name: of one, for messages.
      labels: the class of each.
      notices: what the user should know about them.
    """

    read: Callable[[Sequence[int]], list[bytes]]
    name: Callable[[int], str]
    labels: Int[np.ndarray, " n"]
    notices: tuple[str, ...] = ()

    def headers(self, rows: Int[np.ndarray, " n"]) -> list[Header]:
        """The sizes of some pictures, a few in memory at a time."""
        return [
            header
            for start in range(0, len(rows), _CHUNK)
            for header in self._map(_header, rows[start : start + _CHUNK].tolist())
        ]

    def decode(self, size: tuple[int, int, int], rows: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        """The pixels of some pictures at one size."""
        return np.stack(self._map(functools.partial(_decode, size=size), rows.tolist()))

    def _map(self, function: Callable[[bytes, str], Any], rows: Sequence[int]) -> list[Any]:
        """A function of bytes and name over pictures, in order; decoders leave Python to other threads."""
        with warnings.catch_warnings():  # here, because filters belong to the process and not to a thread
            warnings.simplefilter("ignore")  # Pillow's limits are wider than ours
            return list(_pool().map(function, self.read(rows), map(self.name, rows)))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


def read_image(path: Path) -> Float[np.ndarray, "h w c"]:
    """Reads one picture (or a ``.npy`` array) as float32 pixels in [0, 1], with 1 or 3 channels.

    What is added to pictures may be negative: floats of an array are taken from -1 on.

    Raises:
      InputError: if it is missing or damaged, or an array of other numbers.
    """
    if path.suffix == ".npy":
        array = read_arrays(path)
        if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
            raise InputError(f"{path} is no picture; expected an array of shape (height, width[, channels]).")
        array = array[..., None] if array.ndim == 2 else array
        if array.dtype == np.uint8:
            return array.astype(np.float32) / 255
        if array.dtype.kind != "f" or not np.all(np.abs(array) <= 1):  # NaN is no such number
            numbers = "" if array.dtype.kind != "f" else " beyond 1 or not finite"
            raise InputError(
                f"{path} holds numbers of the type {array.dtype}{numbers}; expected pixels as uint8, or as finite "
                "floats in [0, 1] (from -1 on where they are added)."
            )
        return array.astype(np.float32)
    if not path.is_file():
        raise InputError(f"There is no picture {path}; check the path.")
    encoded = path.read_bytes()
    return _decode(encoded, str(path), _header(encoded, str(path))).astype(np.float32) / 255


class Archive(Mapping[str, np.ndarray]):
    """The arrays of a ``.npz`` file by name; each is read where it is looked up, and no other.

    Looking one up raises an InputError if it is damaged, needs pickle or would expand far beyond its file.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        with _readable(self._path), np.load(self._path, allow_pickle=False) as loaded:
            members = {member.filename: member for member in loaded.zip.infolist()}
            member = members.get(f"{name}.npy") or members[name]
            if member.file_size > _MOST_EXPANDED * member.compress_size + _SLACK_BYTES:
                raise InputError(
                    f"{self._path}: its array {shown(name)} would take {member.file_size} bytes, far more than the "
                    f"{member.compress_size} that it has in the file; write it anew with numpy.savez."
                )
            array = loaded[name]
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} is no array")
            return array


def read_arrays(path: Path) -> Any:
    """The array of a ``.npy`` file, or the arrays of a ``.npz`` file by name, as an ``Archive``.

    Raises:
      InputError: if they cannot be read, or not without pickle.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is a folder; give a file, or folder:{path} for its pictures."
            if path.is_dir()
            else f"There is no file {path}; check the path."
        )
    with _readable(path):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return Archive(path, list(loaded.files))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever goes wrong with arrays becomes one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged archives raise zipfile, zlib, struct and NumPy errors alike
        reason = shown((str(error).splitlines() or [type(error).__name__])[0])
        raise InputError(f"{path} cannot be read as NumPy arrays without pickle ({reason}).") from None


def _header(encoded: bytes, name: str) -> Header:
    with _opened(encoded, name) as picture:
        return Header(picture.height, picture.width, 1 if picture.mode in ("1", "L", "LA") else 3)


def _decode(encoded: bytes, name: str, size: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a picture; palettes and transparency become plain colours."""
    height, width, channels = size
    with _opened(encoded, name) as picture:
        plain = _fitted(picture.convert("L" if channels == 1 else "RGB"), height, width, name)
        return np.asarray(plain).reshape(size)


def _fitted(picture: Any, height: int, width: int, name: str) -> Any:
    """The picture, resized until it just covers the size asked for, and the middle of that."""
    from PIL import Image

    if picture.size == (width, height):
        return picture
    if picture.width * height >= picture.height * width:
        covering = (max(width, int(height * picture.width / picture.height)), height)
    else:
        covering = (width, max(height, int(width * picture.height / picture.width)))
    if covering[0] * covering[1] > _LARGEST_PIXELS:
        raise InputError(
            f"The picture {name} of {picture.height}x{picture.width} cannot be resized to cover {height}x{width}: it "
            "would have too many pixels; leave it out, or give a smaller --size."
        )
    left, top = (
        round((covered - asked) / 2) for covered, asked in zip(covering, (width, height), strict=True)
    )
    resized = picture.resize(covering, Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))


@contextlib.contextmanager
def _opened(encoded: bytes, name: str) -> Iterator[Any]:
    """A picture within the limits; whatever goes wrong with it becomes one sentence."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as picture:
            if picture.width * picture.height > _LARGEST_PIXELS:
                raise InputError(f"The picture {name} has {picture.width}x{picture.height} pixels; too many.")
            if picture.mode.startswith(("I", "F")):
                raise InputError(
                    f"The picture {name} is of Pillow's mode {picture.mode} and 8 bits per channel are expected; "
                    "convert it."
                )
            yield picture
    except InputError:
        raise
    except Exception as error:  # decoders raise anything on damaged pictures
        unknown = f"neither {', '.join(_FORMATS[:-1])} nor {_FORMATS[-1]}"
        reason = unknown if "cannot identify" in str(error) else shown(str(error).split("\n")[0])
        raise InputError(f"The picture {name} is damaged ({reason}); repair or remove it.") from None
