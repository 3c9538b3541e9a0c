"""Sources of labelled images, named by a short text: ``digits``, ``folder:photos``, ``npz:clean.npz[:500]``.

Everything read here is untrusted: arrays are loaded without pickle, pictures within a size limit, and a
bad file is named in one sentence.
"""

import collections
import functools
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn._check import InputError, shown
from jaxunlearn.data.images import LabelledImages, StoredImages
from jaxunlearn.data.pictures import Header, Pictures, read_arrays

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")

_CACHED_BYTES = 2**28
_LEAST_PICTURE = 8  # bytes in a Parquet file, on average
_PREPARE = (
    "prepare it in array_record format first, and set TFDS_DATA_DIR if it does not lie in the default folder."
)


class Takes(NamedTuple):
    """What a model takes, as far as images must be made to fit it.

    Attributes:
      shape: (height, width, channels).
      classes: how many there are; None where that is not known.
      keeps: whether pictures that agree in a height and a width keep them; none do unless told.
    """

    shape: tuple[int, int, int]
    classes: int | None
    keeps: Callable[[int, int], bool] = lambda *_: False


_SPEC = re.compile(r"(?P<kind>[a-z]+)(?::(?P<where>.*?))?(?P<slice>\[(-?\d+)?:(-?\d+)?\])?", re.DOTALL)


def load(spec: str, takes: Takes | None = None) -> LabelledImages:
    """Loads the images that a text names.

    Few images become an array; many stay encoded, on disk where they are files, and are decoded where they are
    indexed.

    Args:
      spec: ``digits`` (the 1 797 handwritten digits that scikit-learn ships, 8x8x1); ``folder:DIR`` (one
        sub-folder per class; numbers are class numbers, other names count in alphabetical order, or
        ``folder:DIR,classes=FILE`` says how they count: one name a line, or JSON of names with numbers);
        ``npz:FILE`` (arrays ``x``, uint8 NHWC, and ``y``, perhaps ``poisoned``); ``parquet:FILE`` (Hugging Face's
        image layout; also a folder of shards or a pattern such as ``DIR/train-*.parquet``); ``tfds:NAME[:SPLIT]``
        (a prepared TensorFlow data set, or the folder that holds one). Each may end in a slice such as ``[:5000]``; the
        files of a folder are in a fixed mixed order, so that a slice holds all classes.
      takes: what the model takes. Pictures of folders, Parquet and TensorFlow data sets that have another size
        are resized until they just cover it and cut to their middle; grey ones become colour where the model
        sees colour. Without it pictures must agree in size.

    Raises:
      InputError: if the text or what it names cannot be used.

    Example:
      >>> load("digits[:100]").images.shape
      (100, 8, 8, 1)
    """
    match = _SPEC.fullmatch(spec)
    kind = match["kind"] if match else ""
    where = match["where"] if match else None
    if match is None or kind not in _SOURCES or (where is not None if kind == "digits" else not where):
        raise InputError(
            f"{spec!r} names no images; expected digits, folder:DIR, npz:FILE, parquet:FILE or tfds:NAME[:SPLIT], "
            "each with an optional slice such as [:5000]."
        )
    found = _SOURCES[kind](where or "", takes)
    rows = np.arange(len(found.labels))
    if match["slice"]:
        start, stop = (int(bound) if bound else None for bound in match["slice"][1:-1].split(":"))
        rows = rows[start:stop]
    if len(rows) == 0:
        raise InputError(f"{spec} holds no images; check the slice and the source.")
    labels = found.labels[rows]
    _check_range(int(labels.min()), int(labels.max()), spec)
    images: Any
    poisoned = None
    if isinstance(found, Pictures):
        images, notices = _fit(found, rows, spec, takes)
        name, notices = found.name, (*found.notices, *notices)
    else:
        name, notices = functools.partial("{} row {}".format, where or kind), ()
        if found.images.dtype == np.uint8:
            images = StoredImages(found.images.__getitem__, rows, found.images.shape[1:]).settled()
        else:
            images = found.images[rows]
        poisoned = None if found.poisoned is None else found.poisoned[rows]
    return LabelledImages(images, labels.astype(np.int32), spec, rows, name, notices, poisoned)


def _check_range(lowest: int, highest: int, where: str) -> None:
    """Refuses labels that 32 bits do not hold; whether the others are classes, only the model tells."""
    if lowest < -(2**31) or highest >= 2**31:
        raise InputError(
            f"The labels of {where} run from {lowest} to {highest}; expected class numbers from 0 to {2**31 - 1}, so "
            "number the classes 0, 1, ... instead."
        )


class _Arrays(NamedTuple):
    """Decoded images: float32 in [0, 1] or uint8."""

    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray | None = None


def _fit(pictures: Pictures, rows: np.ndarray, spec: str, takes: Takes | None) -> tuple[Any, tuple[str, ...]]:
    """The pictures at one size, and a sentence if they had others."""
    headers = pictures.headers(rows)
    sizes = {(header.height, header.width): row for row, header in zip(rows, headers, strict=True)}
    channels = max(header.channels for header in headers)
    if takes is None and len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise InputError(
            f"The pictures differ in size: {pictures.name(first)} has {_size(one)} pixels and "
            f"{pictures.name(second)} has {_size(other)}; bring them to one size, the model's if "
            "there is one."
        )
    height, width = next(iter(sizes))
    if takes is not None and (len(sizes) > 1 or not takes.keeps(height, width)):
        height, width, _ = takes.shape
    shape = (height, width, channels if takes is None else max(channels, takes.shape[2]))
    if shape[2] not in (1, 3):
        raise InputError(
            f"{spec} holds pictures of {channels} channels and the model takes {shape[2]}; give arrays (npz:FILE)."
        )
    stored = StoredImages(functools.partial(pictures.decode, shape), rows, shape)
    return stored.settled(), _resized(headers, (height, width), spec)


def _resized(headers: Sequence[Header], size: tuple[int, int], spec: str) -> tuple[str, ...]:
    """A notice if pictures have another size than the one they are brought to."""
    others = [header[:2] for header in headers if header[:2] != size]
    if not others:
        return ()
    smallest, largest = (_size(pick(others, key=np.prod)) for pick in (min, max))
    sizes = smallest if smallest == largest else f"from {smallest} to {largest}"
    return (
        f"{len(others)} of the {len(headers)} pictures of {spec} have other sizes than {_size(size)} (height x "
        f"width, {sizes}); they are resized until they cover it, and cut to their middle.",
    )


def _digits(where: str, takes: Takes | None) -> _Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _Arrays((digits.images[..., None] / 16).astype(np.float32), digits.target)


def _npz(where: str, takes: Takes | None) -> _Arrays:
    arrays = read_arrays(Path(where))
    if isinstance(arrays, np.ndarray) or not {"x", "y"} <= set(arrays):
        held = "a single array" if isinstance(arrays, np.ndarray) else _listed(arrays)
        raise InputError(f"{where} holds {held}; expected the arrays x (uint8 NHWC) and y (labels).")
    images, labels = arrays["x"], arrays["y"]
    images = images[..., None] if images.ndim == 3 else images
    whole = labels.dtype.kind in "iu"
    fits = images.ndim == 4 and 0 not in images.shape[1:] and labels.shape == images.shape[:1]
    if images.dtype != np.uint8 or not fits or not whole:
        raise InputError(
            f"{where}: x is {images.dtype} of shape {images.shape}, y is {labels.dtype} of shape {labels.shape}; "
            "expected x uint8 of shape (images, height, width, channels) and one integer in y for each image."
        )
    known = arrays.get("poisoned")
    if known is not None and (known.dtype != np.bool_ or known.shape != labels.shape):
        raise InputError(
            f"{where}: poisoned is {known.dtype} of shape {known.shape}; expected one boolean for each image, or "
            "no such array."
        )
    return _Arrays(images, labels, known)


def check_class_names(first: str, second: str) -> None:
    """Refuses two folders that number their classes differently, or may: by other names in alphabetical order.

    Args:
      first: a SPEC that was loaded.
      second: another one, whose classes should be the same.

    Raises:
      InputError: if so.
    """
    one, other = _classes_in(first), _classes_in(second)
    if one is None or other is None:
        return
    if one.in_order and other.in_order and one.numbers != other.numbers:
        raise InputError(
            f"The sub-folders of {first} ({_listed(one.numbers)}) are not those of {second} "
            f"({_listed(other.numbers)}), and names count in alphabetical order, so that classes would have different "
            "numbers; name the sub-folders 0, 1, ... or add ,classes=FILE with the name of every class, one a line, to "
            "both."
        )
    shared = sorted(one.numbers.keys() & other.numbers.keys())
    if not shared and (one.in_order or other.in_order):
        named = first if one.in_order else second
        raise InputError(
            f"The sub-folders of {first} ({_listed(one.numbers)}) and those of {second} ({_listed(other.numbers)}) "
            "have no name in common, so that nothing says which stand for the same class; name all of them 0, 1, ... "
            f"or say {named},classes=FILE with the name of every class, one a line."
        )
    for name in shared:
        if one.numbers[name] != other.numbers[name]:
            raise InputError(
                f"{name} is class {one.numbers[name]} of {first} and class {other.numbers[name]} of {second}; add the "
                "same ,classes=FILE with the name of every class, one a line, to both."
            )


def classes_of(spec: str) -> int:
    """The number of classes that a folder's sub-folders stand for, with or without pictures; 0 of another source."""
    found = _classes_in(spec)
    return 0 if found is None else max(found.numbers.values()) + 1


class _Classes(NamedTuple):
    """The classes of a folder's sub-folders.

    Attributes:
      numbers: by their names.
      in_order: whether they count in alphabetical order of these.
    """

    numbers: dict[str, int]
    in_order: bool


def _classes_in(spec: str) -> _Classes | None:
    """Those of a folder that was loaded; None of another source."""
    match = _SPEC.fullmatch(spec)
    if match is None or match["kind"] != "folder":
        return None
    folder, known = _parts_of(match["where"])
    numbers = _class_numbers(folder, _class_folders(folder), known, None)
    return _Classes(numbers, known is None and not all(name.isdecimal() for name in numbers))


def _parts_of(where: str) -> tuple[Path, dict[str, int] | None]:
    """The folder that ``DIR[,classes=FILE]`` names, and the classes that the file does."""
    place, named, mapping = where.partition(",classes=")
    if not place or not Path(place).is_dir():
        raise InputError(
            f"There is no folder {place or 'without a name'}; give a folder with one sub-folder of pictures per class."
        )
    return Path(place), _read_classes(Path(mapping)) if named else None


def _class_folders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _files_below(folder: Path) -> list[Path]:
    """The files of a folder and of those below it, without what is hidden; links to folders are not followed."""

    def unreadable(error: OSError) -> None:
        raise error

    found = []
    for base, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base) / name for name in files if not name.startswith(".")]
    return found


def _folder(where: str, takes: Takes | None) -> Pictures:
    folder, known = _parts_of(where)
    names = _class_folders(folder)
    if len(names) < 2:
        found = f"only the sub-folder {names[0]!r}" if names else "no sub-folder"
        raise InputError(
            f"{folder} holds {found}; expected one sub-folder of pictures for each of several classes."
        )
    numbers = _class_numbers(folder, names, known, takes)
    _check_range(min(numbers.values()), max(numbers.values()), where)
    entries = {name: _files_below(folder / name) for name in names}
    pictures = {
        name: [
            path
            for path in paths
            if path.suffix.lower() in PICTURE_ENDINGS and _is_file_or_leads_nowhere(path)
        ]
        for name, paths in entries.items()
    }
    files = [(path, numbers[name]) for name in names for path in pictures[name]]
    files.sort(
        key=lambda entry: hashlib.sha256(os.fsencode(entry[0].relative_to(folder).as_posix())).digest()
    )
    full = [name for name in names if pictures[name]]
    notices: tuple[str, ...] = ()
    if takes is not None and takes.classes is not None and len(full) < takes.classes:
        notices = (f"{folder} holds {len(full)} of the model's {takes.classes} classes.",)
    if len(full) < len(names):
        empty = [name for name in names if not pictures[name]]
        passed = sum(len(entries[name]) for name in empty)
        notices += (
            f"{folder} has sub-folders without any picture that is read ({_listed(empty)}); {passed} files in them "
            f"are passed over, as the names of pictures end in {', '.join(PICTURE_ENDINGS)}.",
        )
    return Pictures(
        lambda rows: [_read_bytes(files[row][0]) for row in rows],
        lambda row: str(files[row][0]),
        np.array([label for _, label in files], np.int64),
        notices,
    )


def _is_file_or_leads_nowhere(path: Path) -> bool:
    """Whether a path is a file, or a broken link: that was one, and must not be passed over in silence."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _class_numbers(
    folder: Path, names: Sequence[str], known: dict[str, int] | None, takes: Takes | None
) -> dict[str, int]:
    """The class of every sub-folder: as the mapping says, by their numbers, or in alphabetical order."""
    if known is not None:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                f"The sub-folders {_listed(unknown)} of {folder} are missing from the given classes "
                f"({_listed(known)}); add them, or move the sub-folders away."
            )
        return {name: known[name] for name in names}
    others = [name for name in names if not name.isdecimal()]
    if others and len(others) < len(names):
        raise InputError(
            f"{len(names) - len(others)} sub-folders of {folder} are named by numbers and {_listed(others)} are not; "
            f"name all of them 0, 1, ... by their classes, or say folder:{folder},classes=FILE with the name of every "
            "class, one a line."
        )
    if not others:
        numbers = {name: int(name) for name in names}
        twice = [name for name, count in collections.Counter(numbers.values()).items() if count > 1]
        if twice:
            raise InputError(f"{folder} holds several sub-folders for class {twice[0]}; keep one of them.")
        return numbers
    if takes is not None and takes.classes is not None and len(names) != takes.classes:
        raise InputError(
            f"{folder} holds {len(names)} sub-folders and the model has {takes.classes} classes, so that their names "
            f"({_listed(names)}) do not tell the numbers of the classes; name the sub-folders 0, 1, ... or "
            f"say folder:{folder},classes=FILE with the name of every class, one a line."
        )
    return {name: number for number, name in enumerate(names)}


def _read_classes(path: Path) -> dict[str, int]:
    """Class numbers by name, from lines of names or from JSON."""
    refusal = InputError(
        f"{path} does not name classes; expected one different name a line, in the order of the class numbers, or "
        'JSON such as {"cat": 0, "dog": 1} with different numbers.'
    )
    try:
        text = path.read_text("utf-8-sig")
        lines = text.strip().splitlines()
        named = json.loads(text) if text.lstrip().startswith("{") else {}
    except OSError:
        raise InputError(f"There is no file {path} of classes that can be read; check the path.") from None
    except (ValueError, RecursionError):
        raise refusal from None
    if not named:
        named = {line.strip(): number for number, line in enumerate(lines)}
        if len(named) != len(lines) or "" in named:
            raise refusal
    if (
        not named
        or not all(type(number) is int for number in named.values())
        or len(set(named.values())) != len(named)
    ):
        raise refusal
    return named


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the folder.") from None


def _parquet(where: str, takes: Takes | None) -> Pictures:
    import pyarrow as pa

    shards = [_Shard(path) for path in _shard_paths(where)]
    starts = np.cumsum([0, *(count for shard in shards for count in shard.group_sizes)])
    shard_starts = np.cumsum([0, *(sum(shard.group_sizes) for shard in shards)])
    groups = [(shard, group) for shard in shards for group in range(len(shard.group_sizes))]
    cache = _Recent(lambda group: groups[group][0].encoded(groups[group][1]))

    def read(rows: Sequence[int]) -> list[bytes]:
        found: dict[int, bytes] = {}
        members = np.searchsorted(starts, rows, side="right") - 1
        for group in np.unique(members).tolist():
            column = cache(group)
            for row in np.asarray(rows)[members == group].tolist():
                found[row] = column[row - int(starts[group])].as_py() or b""
        return [found[row] for row in rows]

    def name(row: int) -> str:
        shard = int(np.searchsorted(shard_starts, row, side="right")) - 1
        return f"{shards[shard].path} row {row - int(shard_starts[shard])}"

    try:
        labels = np.concatenate([shard.labels() for shard in shards])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where} cannot be read as Parquet ({_first_line(error)}).") from None
    others = [column for column in ("fine_label", "coarse_label") if column in shards[0].columns]
    used = shards[0].label
    notice = f"the labels of {where} are its column {used}, of {' and '.join(others)}."
    return Pictures(read, name, labels, (notice,) if used in others and len(others) > 1 else ())


def _shard_paths(where: str) -> list[Path]:
    """The files that a path, a folder or a pattern names, in the order of their names."""
    path = Path(where)
    if path.is_file():
        return [path]
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    try:
        found = sorted(entry for entry in folder.glob(pattern) if _is_file_or_leads_nowhere(entry))
    except ValueError as error:
        raise InputError(
            f"parquet:{where} is no pattern ({_first_line(error)}); give DIR/train-*.parquet."
        ) from None
    if not found:
        raise InputError(
            f"There is no file {path}; give a Parquet file in Hugging Face's image layout, a folder of them, or a "
            "pattern such as DIR/train-*.parquet."
        )
    splits = sorted({re.sub(r"[-_.]?\d.*", "", entry.stem) for entry in found})
    if path.is_dir() and len(splits) > 1:
        raise InputError(
            f"{path} holds Parquet files of {' and '.join(map(shown, splits))}; choose with a pattern such as "
            f"parquet:{path}/{splits[-1]}*.parquet."
        )
    return found


class _Shard:
    """A Parquet file of pictures with labels, read one group of rows at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as Parquet ({_first_line(error)}).") from None
        schema = self._file.schema_arrow
        self.columns = schema.names
        pictures = [
            field.name
            for field in schema
            if pa.types.is_struct(field.type) and "bytes" in [part.name for part in field.type]
        ]
        pictures = [name for name in ("image", "img") if name in pictures] or pictures
        labels = [name for name in ("label", "labels", "fine_label", "coarse_label") if name in schema.names]
        known = len(pictures) == 1 and bool(labels)
        once = known and all(schema.names.count(name) == 1 for name in (pictures[0], labels[0]))
        if not once or not pa.types.is_integer(schema.field(labels[0]).type):
            raise InputError(
                f"{path} has the columns {_listed(schema.names)}; expected one image column (a struct of bytes "
                "and path) and one integer column label."
            )
        self._picture, self.label = pictures[0], labels[0]
        # A picture that many rows point at is stored once, and stays one in memory.
        stored_once = [f"{self._picture}.bytes"]
        self._file = pq.ParquetFile(path, metadata=self._file.metadata, read_dictionary=stored_once)
        metadata, size = self._file.metadata, path.stat().st_size
        if metadata.num_rows * _LEAST_PICTURE > size:
            raise InputError(
                f"{path} claims {metadata.num_rows} pictures in {size} bytes, which cannot be; get an intact copy."
            )
        self.group_sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def labels(self) -> np.ndarray:
        column = self._file.read([self.label]).column(0)
        if column.null_count:
            raise InputError(f"{self.path} has rows without a label; remove them.")
        return column.to_numpy()

    def encoded(self, group: int) -> Any:
        """The bytes of a group's pictures, as an Arrow array."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            column = self._file.read_row_group(group, [f"{self._picture}.bytes"]).column(0).combine_chunks()
            return pc.struct_field(column, "bytes")
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path} cannot be read as Parquet ({_first_line(error)}).") from None


class _Recent:
    """Arrow arrays by number, the latest of them kept within a limit of memory."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make
        self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()

    def __call__(self, number: int) -> Any:
        value = self._kept.pop(number) if number in self._kept else self._make(number)
        self._kept[number] = value
        while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _CACHED_BYTES:
            self._kept.popitem(last=False)
        return value


def _tfds(where: str, takes: Takes | None) -> Pictures:
    place, _, split = where.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, about nothing the user can change
        import tensorflow_datasets as tfds

        encoded = {"image": tfds.decode.SkipDecoding()}
        # Its own default of the folder is fixed at import.
        home = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        folder = Path(place).expanduser().absolute() if os.sep in place else home / place
        _check_features(folder, f"tfds:{where}")
        try:
            builder = (
                tfds.builder_from_directory(folder) if os.sep in place else tfds.builder(place, data_dir=home)
            )
            features = builder.info.features
            known = features is not None and {"image", "label"} <= set(features)
            source = builder.as_data_source(split or "train", decoders=encoded if known else None)
        except Exception as error:  # it raises anything from AssertionError to its own kinds
            raise InputError(f"tfds:{where} cannot be opened ({_first_line(error)}); {_PREPARE}") from None
    if not known:
        raise InputError(f"tfds:{where} has the features {_listed(features)}; expected image and label.")
    return Pictures(
        lambda rows: [source[row]["image"] for row in rows],
        lambda row: f"tfds:{where} row {row}",
        np.array([int(source[row]["label"]) for row in range(len(source))], np.int64),
    )


def _check_features(folder: Path, spec: str) -> None:
    """Refuses a data set that was not prepared, or whose descriptions name other classes than TFDS's own.

    TFDS would import their modules.
    """
    paths = [path for depth in range(4) for path in folder.glob(f"{'*/' * depth}features.json")]
    if not paths:
        raise InputError(f"{spec} cannot be opened (there is no features.json in {folder}); {_PREPARE}")
    for path in paths:
        try:
            named = list(_classes_named(json.loads(path.read_text("utf-8"))))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{spec} cannot be opened ({path} cannot be read: {_first_line(error)}); get an intact copy."
            ) from None
        for name in named:
            module = str(name).rpartition(".")[0]
            if not module.startswith("tensorflow_datasets.core.features.") or module not in sys.modules:
                raise InputError(
                    f"{spec} cannot be opened: {path} asks for {shown(name, 60)}, which is none of the features of "
                    "TFDS, and code that a data set names is not run; give one with its features alone, such as Image "
                    "and ClassLabel."
                )


def _classes_named(tree: Any) -> Iterator[Any]:
    """The classes that TFDS would look up, under the name of today and the one before."""
    if isinstance(tree, dict):
        yield from (tree[key] for key in ("pythonClassName", "type") if key in tree)
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _classes_named(each)


def _first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], 160)


def _listed(names: Iterable[str]) -> str:
    """The first names of some, for a message."""
    names = list(names)
    return (
        ", ".join([*(shown(name, 40) for name in names[:5]), *(["..."] if len(names) > 5 else [])])
        or "nothing"
    )


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


_SOURCES: dict[str, Callable[[str, Takes | None], "_Arrays | Pictures"]] = {
    "digits": _digits,
    "folder": _folder,
    "npz": _npz,
    "parquet": _parquet,
    "tfds": _tfds,
}
