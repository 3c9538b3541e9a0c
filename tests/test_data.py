"""Sources of images: the same images by every road."""

import dataclasses
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxunlearn import evaluate, ibau, trainer
from jaxunlearn._check import InputError
from jaxunlearn._files import write_whole
from jaxunlearn.data import (
    StoredImages,
    Takes,
    check_class_names,
    classes_of,
    hold_out,
    images,
    keep_apart,
    load,
    read_arrays,
    read_image,
    sources,
)
from tests import toys


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8), np.arange(12) % 3


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, pictures: Any) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    images, labels = pictures
    np.savez(folder / "a.npz", x=images, y=labels)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "tree" / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / "tree" / str(label) / f"{number}.png").write_bytes(encoded(image))
    rows = [
        {"bytes": encoded(image, kind), "path": None}
        for image, kind in zip(images, ["PNG", "WEBP", "BMP"] * 4, strict=True)
    ]
    pq.write_table(pa.table({"image": rows, "label": labels}), folder / "a.parquet")
    return {
        "npz": f"npz:{folder}/a.npz",
        "folder": f"folder:{folder}/tree",
        "parquet": f"parquet:{folder}/a.parquet",
    }


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_every_road_gives_the_same_images(kind: str, places: dict[str, str], pictures: Any) -> None:
    loaded = load(places[kind])
    assert (loaded.images.dtype, loaded.labels.dtype) == (np.float32, np.int32)
    expected = {image.tobytes(): label for image, label in zip(*pictures, strict=True)}
    found = {
        np.round(image * 255).astype(np.uint8).tobytes(): label
        for image, label in zip(loaded.images, loaded.labels, strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_slices_take_the_same_rows_as_python(kind: str, places: dict[str, str]) -> None:
    whole = load(places[kind])
    for text, rows in (("[:5]", slice(5)), ("[5:]", slice(5, None)), ("[2:-3]", slice(2, -3))):
        part = load(places[kind] + text)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.labels, whole.labels[rows])


@pytest.mark.parametrize("text", ["digits[-:5]", "digits[:-]", "digits[5]", "digits[1:2:3]"])
def test_texts_that_name_no_slice(text: str) -> None:
    with pytest.raises(InputError, match="names no images; expected digits"):
        load(text)


def test_a_slice_of_a_folder_mixes_the_classes(places: dict[str, str]) -> None:
    assert len(set(load(places["folder"] + "[:6]").labels.tolist())) == 3


def test_named_classes_count_alphabetically(tmp_path: Path) -> None:
    for name, value in (("zebra", 9), ("ant", 3)):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), value).save(tmp_path / name / "a.png")
    loaded = load(f"folder:{tmp_path}")
    assert {
        int(label): round(float(image.max()) * 255)
        for image, label in zip(loaded.images, loaded.labels, strict=True)
    } == {0: 3, 1: 9}
    assert loaded.images.shape == (2, 4, 4, 1)


def test_prepared_tfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Any) -> None:
    import tensorflow_datasets as tfds

    class ToySet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, (image, label) in enumerate(zip(*pictures, strict=True)):
                yield number, {"image": io.BytesIO(encoded(image)), "label": int(label)}

    ToySet(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    loaded = load("tfds:toy_set:train")
    assert loaded.images.shape == (12, 8, 8, 3)
    assert sorted(loaded.labels.tolist()) == sorted(pictures[1].tolist())
    assert len(load("tfds:toy_set[:4]").labels) == 4
    by_folder = load(f"tfds:{tmp_path}/toy_set/1.0.0:train")
    np.testing.assert_array_equal(by_folder.images, loaded.images)
    np.testing.assert_array_equal(by_folder.labels, loaded.labels)
    with pytest.raises(InputError, match="cannot be opened"):
        load(f"tfds:{tmp_path}/toy_set/1.0.1:train")
    described = tmp_path / "toy_set/1.0.0/features.json"
    intact = described.read_text()
    (tmp_path / "hostile.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = "tensorflow_datasets.core.features.image_feature.Image"
    for other in ("hostile.X", "unittest.__main__.X", "tensorflow_datasets.core.features.nothing.X", 5):
        for key in ("pythonClassName", "type"):
            described.write_text(
                intact.replace(f'"pythonClassName": "{named}"', f'"{key}": {json.dumps(other)}')
            )
            for spec in ("tfds:toy_set:train", f"tfds:{tmp_path}/toy_set/1.0.0:train"):
                with pytest.raises(InputError, match="is none of the features of TFDS"):
                    load(spec)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spec in ("tfds:~/toy_set/1.0.0", f"tfds:file://{tmp_path}/toy_set/1.0.0"):
        with pytest.raises(
            InputError, match=r"is none of the features of TFDS|there is no features\.json in"
        ):
            load(spec)
    described.write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        load("tfds:toy_set:train")


def test_single_pictures(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "float.npy", pixels / np.float32(255))
    for name in ("a.png", "a.npy", "float.npy"):
        np.testing.assert_allclose(read_image(tmp_path / name) * 255, pixels, atol=1e-4)
    np.save(tmp_path / "flat.npy", np.zeros(5))
    with pytest.raises(InputError, match="is no picture"):
        read_image(tmp_path / "flat.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4), np.nan, np.float32), "of the type float32 beyond 1 or not finite"),
        (np.full((4, 4, 1), 255.0), "of the type float64 beyond 1 or not finite"),
        (np.full((4, 4), -1.5), "of the type float64 beyond 1 or not finite"),
        (np.full((4, 4), 300, np.uint16), "of the type uint16; expected pixels as uint8"),
        (np.ones((4, 4), np.int64), "of the type int64;"),
        (np.ones((4, 4), complex), "of the type complex128;"),
        (np.ones((4, 4), "datetime64[s]"), r"of the type datetime64\[s\];"),
        (np.full((4, 4), "red"), "of the type <U3;"),
    ],
)
def test_arrays_that_hold_no_pixels(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.npy")


def test_arrays_to_be_added_may_be_negative(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.linspace(-1, 1, 16).reshape(4, 4).astype(np.float16))
    assert (read_image(tmp_path / "a.npy").min(), read_image(tmp_path / "a.npy").dtype) == (-1, np.float32)


def test_pictures_of_other_formats_start_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS, whatever its name, to Ghostscript."""
    started: list[Any] = []
    monkeypatch.setattr("subprocess.Popen", lambda *given, **_: started.append(given))
    folder = coloured_folder(tmp_path, ("0", "1"))
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "1" / "a.png").write_text(eps)
    message = r"1/a\.png is damaged \(neither PNG, .* nor TIFF\)"
    with pytest.raises(InputError, match=message):
        read_image(folder / "1" / "a.png")
    with pytest.raises(InputError, match=message):
        load(f"folder:{folder}").fingerprints  # noqa: B018  # reads every picture
    assert started == []


@pytest.mark.parametrize("ending", sources.PICTURE_ENDINGS)
def test_pictures_of_every_ending_are_read(tmp_path: Path, ending: str) -> None:
    Image.new("L", (8, 8), 200).save(tmp_path / f"a{ending}")
    assert abs(read_image(tmp_path / f"a{ending}").mean() * 255 - 200) < 2


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    folder = coloured_folder(tmp_path, ("0", "1"))
    Image.new(mode, (8, 8), 300).save(folder / "1" / "deep.tif")
    message = rf"deep\.tif is of Pillow's mode {mode} and 8 bits per channel are expected; convert it"
    with pytest.raises(InputError, match=message):
        load(f"folder:{folder}")
    with pytest.raises(InputError, match=message):
        read_image(folder / "1" / "deep.tif")


def test_huge_pictures_are_refused(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (2**16).to_bytes(4, "big") * 2
    chunk = header + b"\x08\x02\x00\x00\x00" + b"\x00" * 4
    (tmp_path / "bomb.png").write_bytes(chunk)
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


def test_held_out_images_are_disjoint_and_complete() -> None:
    digits = load("digits[:100]")
    clean, test = hold_out(digits, share=0.2, most=15, seed=3)
    assert (len(clean.labels), len(test.labels)) == (85, 15)
    both = np.concatenate([clean.images, test.images]).reshape(100, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.images.reshape(100, -1)))


def test_identical_images_are_held_out_together() -> None:
    digits = load("digits[:100]")
    doubled = digits.take(np.tile(np.arange(50), 2))
    clean, test = hold_out(doubled, share=0.3, most=100, seed=0)
    assert len(clean.labels) + len(test.labels) == 100
    assert 20 < len(test.labels) <= 30
    assert not set(clean.fingerprints) & set(test.fingerprints)


def test_shared_images_are_refused_or_left_out() -> None:
    clean, test = load("digits[:300]"), load("digits[290:590]")
    with pytest.raises(
        InputError, match=r"10 of the 300 images .*\(digits row 290 is digits row 290\); give oth"
    ):
        keep_apart(clean, test, leave_out=False)
    left = keep_apart(load("digits[:293]"), test, leave_out=True)
    np.testing.assert_array_equal(left.images, load("digits[:290]").images)
    assert "3 of the 293 images" in left.notices[0]
    apart = load("digits[:290]")
    assert keep_apart(apart, test, leave_out=False) is apart


def test_the_same_pixels_are_shared_by_any_road(places: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"12 of the 12 images .*a\.npz row \d+ is .*tree/./\d+\.png"):
        keep_apart(load(places["npz"]), load(places["folder"]), leave_out=False)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collection is small."""
    monkeypatch.setattr(images, "_SMALL_BYTES", 0)


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_stored_images_index_like_arrays(kind: str, places: dict[str, str], request: Any) -> None:
    array = load(places[kind]).images
    request.getfixturevalue("stored")
    lazy = load(places[kind]).images
    assert isinstance(array, np.ndarray)
    assert isinstance(lazy, StoredImages)
    assert (lazy.shape, lazy.dtype, len(lazy)) == (array.shape, array.dtype, len(array))
    picks: tuple[Any, ...] = (
        slice(2, 7),
        slice(None),
        slice(5, 5),
        np.array([3, 3, 0]),
        np.arange(12) > 6,
        4,
    )
    for rows in picks:
        np.testing.assert_array_equal(lazy[rows], array[rows])
    np.testing.assert_array_equal(np.asarray(lazy.take(np.array([5, 1, 2])).take(slice(1, 3))), array[[1, 2]])


@pytest.mark.parametrize("loop", ["host", "scan"])
def test_stored_images_give_the_same_bits(tmp_path: Path, loop: str, stored: None) -> None:
    pixels, labels = toys.images_and_labels(30)
    np.savez(tmp_path / "a.npz", x=np.rint(pixels * 255 / pixels.max()).astype(np.uint8), y=labels)
    data = load(f"npz:{tmp_path}/a.npz")
    assert isinstance(data.images, StoredImages)
    config, execution = ibau.Config(rounds=1, batch_size=8), ibau.Execution(loop=loop)

    def results(images: Any) -> Any:
        key = jax.random.key(0)
        cleaned, _ = ibau.unlearn(
            toys.apply_fn, toys.variables(), images, data.labels, config, key, execution=execution
        )
        return cleaned["params"], evaluate(toys.apply_fn, cleaned, images, data.labels)

    jax.tree.map(np.testing.assert_array_equal, results(data.images), results(np.asarray(data.images)))


def test_a_folder_larger_than_memory(tmp_path: Path) -> None:
    size, count = 1600, 40
    for number in range(count):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        Image.new("RGB", (size, size), (number, 0, 0)).save(tmp_path / str(number % 2) / f"{number}.png")
    tracemalloc.start()
    data = load(f"folder:{tmp_path}")
    reds = [float(data.images[row][0, 0, 0]) for row in range(count)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(round(red * 255) for red in reds) == list(range(count))
    assert peak < 0.2 * 4 * np.prod(data.images.shape)


def coloured_folder(folder: Path, names: tuple[str, ...], size: tuple[int, int] = (8, 8)) -> Path:
    for value, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", size, (value, 0, 0)).save(folder / name / "a.png")
    return folder


def test_folders_whose_names_do_not_tell_the_same_numbers_are_refused(tmp_path: Path) -> None:
    pets, some = (
        f"folder:{coloured_folder(tmp_path / name, names)}"
        for name, names in (("pets", ("cat", "cow", "dog")), ("some", ("cat", "dog")))
    )
    check_class_names(pets, f"{pets}[1:]")
    check_class_names(pets, "digits")
    (tmp_path / "classes").write_text("cat\ncow\ndog\n")
    (tmp_path / "others").write_text("dog\ncat\n")
    check_class_names(pets, f"{some},classes={tmp_path}/classes")
    with pytest.raises(InputError, match=r"cat is class 0 of .*pets and class 1 of .*some,classes="):
        check_class_names(pets, f"{some},classes={tmp_path}/others[:1]")
    assert [classes_of(one) for one in (pets, f"{some},classes={tmp_path}/classes", "digits")] == [3, 3, 0]
    numbers = f"folder:{coloured_folder(tmp_path / 'numbers', ('0', '2'))}"
    check_class_names(numbers, f"{pets},classes={tmp_path}/classes")
    for pair in ((numbers, pets), (pets, numbers)):
        with pytest.raises(InputError, match=r"no name in common.* or say folder:[^ ]*pets,classes=FILE"):
            check_class_names(*pair)
    with pytest.raises(InputError, match=r"\(cat, cow, dog\) are not those of .*some\[:1\] \(cat, dog\)"):
        check_class_names(pets, f"{some}[:1]")


def classes_by_name(spec: str, takes: Takes | None = None) -> dict[int, int]:
    """The class that was read for each folder, by the number in its pictures' red."""
    data = load(spec, takes)
    reds = np.rint(np.asarray(data.images)[:, 0, 0, 0] * 255).astype(int)
    return dict(sorted(zip(reds.tolist(), data.labels.tolist(), strict=True)))


@pytest.mark.parametrize(
    "content", ["ship\ncat\ncar\ndog\n", '{"dog": 3, "cat": 1, "ship": 0, "car": 2, "cow": 9}']
)
def test_a_file_tells_the_classes_of_a_folder(tmp_path: Path, content: str) -> None:
    folder = coloured_folder(tmp_path / "tree", ("cat", "dog", "ship"))
    (tmp_path / "classes").write_text(content)
    spec, takes = f"folder:{folder},classes={tmp_path}/classes", Takes((8, 8, 3), 10)
    assert classes_by_name(spec, takes) == {0: 1, 1: 3, 2: 0}
    assert load(spec + "[:2]", takes).notices == (f"{folder} holds 3 of the model's 10 classes.",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\ndog\n", "The sub-folders ship of .* are missing from the given classes"),
        ("cat\ndog\nship\ncat\n", "does not name classes"),
        ("", "does not name classes"),
        ('{"cat": 0, "dog": 0, "ship": 1}', "does not name classes"),
        ('{"cat": "0"}', "does not name classes"),
        ('{"cat": 0', "does not name classes"),
        ('{"a":' * 100_000, "does not name classes"),
        (None, "There is no file"),
    ],
)
def test_files_that_tell_no_classes(tmp_path: Path, content: str | None, message: str) -> None:
    folder = coloured_folder(tmp_path / "tree", ("cat", "dog", "ship"))
    if content is not None:
        (tmp_path / "classes").write_text(content)
    with pytest.raises(InputError, match=message):
        load(f"folder:{folder},classes={tmp_path}/classes")


def test_a_mark_of_byte_order_is_no_part_of_a_name(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "tree", ("cat", "dog"))
    for content in ("dog\ncat\n", '{"dog": 0, "cat": 1}'):
        (tmp_path / "classes").write_text(content, "utf-8-sig")
        assert classes_by_name(f"folder:{folder},classes={tmp_path}/classes") == {0: 1, 1: 0}


def test_numbers_beside_names_are_refused(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, (*map(str, range(11)), "zz"))
    with pytest.raises(
        InputError, match=r"11 sub-folders of .* named by numbers and zz are not; .*,classes=FILE"
    ):
        load(f"folder:{folder}", Takes((8, 8, 3), 12))


def test_pictures_may_lie_deeper_in_the_folder_of_their_class(tmp_path: Path) -> None:
    """But not in hidden ones, nor behind a link, which might lead anywhere."""
    folder = coloured_folder(tmp_path, ("0", "1"))
    usual = load(f"folder:{folder}").images
    deeper = folder / "1" / "of" / "monday"
    deeper.mkdir(parents=True)
    (folder / "1" / "a.png").rename(deeper / "a.png")
    (folder / "0" / ".thumbnails").mkdir()
    shutil.copy(deeper / "a.png", folder / "0" / ".thumbnails")
    (folder / "0" / "link").symlink_to(deeper)
    found = load(f"folder:{folder}")
    assert sorted(found.labels.tolist()) == [0, 1]
    assert np.sort(np.asarray(found.images), axis=0).tolist() == np.sort(np.asarray(usual), axis=0).tolist()


def test_folders_without_pictures_are_named(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("0", "1", "2"))
    (folder / "2" / "a.png").rename(folder / "2" / "a.jfif")
    (folder / "2" / "notes.txt").write_text("none")
    (folder / "3").mkdir()
    found = load(f"folder:{folder}", Takes((8, 8, 3), 4))
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.notices[0] == f"{folder} holds 2 of the model's 4 classes."
    assert "without any picture that is read (2, 3); 2 files in them are passed over" in found.notices[1]
    assert ".png, .jpg, .jpeg" in found.notices[1]


@pytest.mark.parametrize("leads_to", ["nowhere.png", "1/linked.png"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, leads_to: str) -> None:
    coloured_folder(tmp_path, ("0", "1"))
    (tmp_path / "1" / "linked.png").symlink_to(tmp_path / leads_to)
    with pytest.raises(InputError, match=r"1/linked\.png cannot be read .*; check the folder"):
        load(f"folder:{tmp_path}")
    (tmp_path / "1" / "linked.png").unlink()
    (tmp_path / "1" / "folder.png").mkdir()  # no picture, whatever it is called
    assert len(load(f"folder:{tmp_path}").labels) == 2


def test_a_shard_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").symlink_to(tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match=r"train-0\.parquet cannot be read as Parquet"):
        load(f"parquet:{tmp_path}")


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("0", "1"))
    (folder / "1" / "._a.png").write_bytes(b"of macOS")
    assert len(load(f"folder:{folder}").labels) == 2


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("0", "1"))
    (folder / "1" / "a.png").rename(folder / "1" / os.fsdecode(b"\xff.png"))
    assert sorted(load(f"folder:{folder}").labels.tolist()) == [0, 1]


@pytest.mark.parametrize("spec", ["folder:", "folder:[:5]", "npz:", "parquet:", "tfds:"])
def test_an_empty_path_is_not_the_current_folder(spec: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(coloured_folder(tmp_path, ("0", "1")))
    with pytest.raises(InputError, match="names no images"):
        load(spec)
    with pytest.raises(InputError, match="There is no folder without a name"):
        load("folder:,classes=names.txt")


def test_names_count_only_if_there_is_one_for_every_class(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("ant", "bee", "cow"))
    assert classes_by_name(f"folder:{folder}", Takes((8, 8, 3), 3)) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(InputError, match=r"3 sub-folders and the model has 4 classes.*,classes=FILE"):
        load(f"folder:{folder}", Takes((8, 8, 3), 4))


def test_numbers_are_class_numbers(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("00000", "00012", "3"))
    takes = Takes((8, 8, 3), 43)
    assert classes_by_name(f"folder:{folder}", takes) == {0: 0, 1: 12, 2: 3}
    assert "3 of the model's 43 classes" in load(f"folder:{folder}", takes).notices[0]
    (tmp_path / "03").mkdir()
    with pytest.raises(InputError, match="several sub-folders for class 3"):
        load(f"folder:{folder}", takes)


@pytest.mark.parametrize("number", [2**31, 20240101120000, 10**25])
def test_numbers_too_large_for_classes_are_refused(tmp_path: Path, number: int) -> None:
    folder = coloured_folder(tmp_path / "numbers", ("7", str(number)))
    with pytest.raises(
        InputError, match=f"numbers run from 7 to {number}; expected class numbers from 0 to 21"
    ):
        load(f"folder:{folder}")
    (tmp_path / "classes").write_text(f'{{"cat": 0, "dog": {number}}}')
    named = coloured_folder(tmp_path / "names", ("cat", "dog"))
    with pytest.raises(InputError, match=f"run from 0 to {number}; expected class numbers"):
        load(f"folder:{named},classes={tmp_path}/classes")


@pytest.mark.parametrize("label", [2**32 + 3, -(2**32) + 3, 2**31])
def test_labels_too_large_for_classes_are_refused(tmp_path: Path, pictures: Any, label: int) -> None:
    labels = np.where(np.arange(12) == 5, label, 1)
    np.savez(tmp_path / "a.npz", x=pictures[0], y=labels)
    write_shard(tmp_path / "a.parquet", pictures, slice(None), label=labels)
    for spec in (f"npz:{tmp_path}/a.npz", f"parquet:{tmp_path}/a.parquet"):
        with pytest.raises(
            InputError, match=f"labels of {spec} run from .*{label}.*; expected class numbers"
        ):
            load(spec)
        assert load(f"{spec}[:5]").labels.tolist() == [1] * 5


@pytest.mark.parametrize("size", [(20, 50), (50, 20), (33, 32)])
def test_pictures_are_resized_to_cover_and_cut_to_their_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    for name in "01":
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    (tmp_path / "0" / "a.png").write_bytes(encoded(pixels))
    (tmp_path / "1" / "b.png").write_bytes(encoded(pixels[:16, :16]))
    data = load(f"folder:{tmp_path}", Takes((16, 16, 3), 2))
    height, width = (16 * side // min(size) for side in size)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (round((side - 16) / 2) for side in (height, width))
    both = dict(zip(data.labels.tolist(), np.rint(np.asarray(data.images) * 255), strict=True))
    np.testing.assert_array_equal(both[0], whole[top : top + 16, left : left + 16])
    np.testing.assert_array_equal(both[1], pixels[:16, :16])
    assert f"1 of the 2 pictures of folder:{tmp_path} have other sizes than 16x16" in data.notices[0]


def test_pictures_keep_a_size_that_they_agree_in_where_the_model_takes_any(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "same", ("0", "1"), (12, 10))
    takes = Takes((16, 16, 3), 2, keeps=lambda *_: True)
    assert (load(f"folder:{folder}", takes).images.shape, load(f"folder:{folder}", takes).notices) == (
        (2, 10, 12, 3),
        (),
    )
    Image.new("RGB", (9, 9), (7, 7, 7)).save(folder / "0" / "other.png")
    assert load(f"folder:{folder}", takes).images.shape == (3, 16, 16, 3)


def test_grey_pictures_become_colour_for_a_model_of_colours(tmp_path: Path) -> None:
    for name, mode, white in (("0", "L", 255), ("1", "1", 255), ("2", "LA", (255, 100))):
        (tmp_path / name).mkdir()
        Image.new(mode, (8, 8), white).save(tmp_path / name / "a.png")
    assert load(f"folder:{tmp_path}").images.shape == (3, 8, 8, 1)
    colour = load(f"folder:{tmp_path}", Takes((8, 8, 3), 3))
    np.testing.assert_array_equal(colour.images, np.ones((3, 8, 8, 3)))


def test_pictures_too_narrow_to_resize_are_refused(tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path, ("0", "1"), (60_000, 1))
    with pytest.raises(InputError, match="cannot be resized to cover 64x64: it would have too many pixels"):
        load(f"folder:{folder}", Takes((64, 64, 3), 2))


def write_shard(path: Path, pictures: Any, rows: slice, image: str = "image", **labels: Any) -> None:
    table = {image: [{"bytes": encoded(pixels), "path": None} for pixels in pictures[0][rows]]}
    pq.write_table(
        pa.table({**table, **{name: some[rows] for name, some in labels.items()}}), path, row_group_size=3
    )


def test_shards_are_read_in_order(tmp_path: Path, pictures: Any) -> None:
    images, labels = pictures
    write_shard(tmp_path / "train-00000-of-00002.parquet", pictures, slice(5), label=labels)
    write_shard(tmp_path / "train-00001-of-00002.parquet", pictures, slice(5, 12), label=labels)
    for place in (tmp_path, tmp_path / "train-*.parquet"):
        data = load(f"parquet:{place}")
        np.testing.assert_array_equal(np.rint(np.asarray(data.images) * 255), images)
        np.testing.assert_array_equal(data.labels, labels)
        assert data.name_of(6) == f"{tmp_path}/train-00001-of-00002.parquet row 1"
    write_shard(tmp_path / "test-00000-of-00001.parquet", pictures, slice(5), label=labels)
    with pytest.raises(InputError, match=r"holds Parquet files of test and train.*pattern"):
        load(f"parquet:{tmp_path}")
    with pytest.raises(InputError, match="There is no file"):
        load(f"parquet:{tmp_path}/valid-*.parquet")


def test_columns_of_other_names(tmp_path: Path, pictures: Any) -> None:
    fine, coarse = pictures[1], pictures[1] // 2
    write_shard(
        tmp_path / "a.parquet", pictures, slice(None), image="img", coarse_label=coarse, fine_label=fine
    )
    data = load(f"parquet:{tmp_path}/a.parquet")
    np.testing.assert_array_equal(data.labels, fine)
    assert "column fine_label, of fine_label and coarse_label" in data.notices[0]
    write_shard(tmp_path / "b.parquet", pictures, slice(None), label=[None, *fine[1:].tolist()])
    with pytest.raises(InputError, match="rows without a label"):
        load(f"parquet:{tmp_path}/b.parquet")
    write_shard(tmp_path / "c.parquet", pictures, slice(None), category=fine)
    with pytest.raises(InputError, match="has the columns image, category"):
        load(f"parquet:{tmp_path}/c.parquet")


def test_tables_with_odd_columns(tmp_path: Path, pictures: Any) -> None:
    row = [{"bytes": encoded(pictures[0][0]), "path": None}]
    image, label = pa.array(row), pa.array([1])
    for columns in ([image, label, label], [image, image, label]):
        names = ["image", *(["label"] * 2 if columns[1] is label else ["image", "label"])]
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=f"has the columns {', '.join(names)}; expected one"):
            load(f"parquet:{tmp_path}/a.parquet")
    pq.write_table(pa.Table.from_arrays([image], ["\x1b[2Jimage"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"has the columns \\x1b\[2Jimage;"):
        load(f"parquet:{tmp_path}/a.parquet")


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\*\*foo is no pattern|There is no file"):
        load(f"parquet:{tmp_path}/**foo")


def test_times_are_no_labels(tmp_path: Path, pictures: Any) -> None:
    np.savez(tmp_path / "a.npz", x=pictures[0], y=pictures[1].astype("timedelta64[s]"))
    with pytest.raises(InputError, match=r"y is timedelta64\[s\].*one integer in y"):
        load(f"npz:{tmp_path}/a.npz")


def test_arrays_that_are_not_needed_are_not_read(tmp_path: Path, pictures: Any) -> None:
    junk = np.zeros(2**27, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=pictures[0], y=pictures[1], junk=junk)
    tracemalloc.start()
    loaded = load(f"npz:{tmp_path}/a.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(loaded.labels, pictures[1])
    assert peak < junk.nbytes / 8
    with pytest.raises(
        InputError, match=r"its array junk would take 134217\d+ bytes, far more than the 13\d+ that"
    ):
        read_arrays(tmp_path / "a.npz")["junk"]


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("y.npy", "text")
    with pytest.raises(InputError, match=r"cannot be read as NumPy arrays without pickle \(x is no array\)"):
        load(f"npz:{tmp_path}/a.npz")


def test_only_some_groups_of_rows_stay_in_memory(
    tmp_path: Path, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "a.parquet", pictures, slice(None), label=pictures[1])
    expected = load(f"parquet:{tmp_path}/a.parquet")
    monkeypatch.setattr("jaxunlearn.data.sources._CACHED_BYTES", 1)
    found = load(f"parquet:{tmp_path}/a.parquet")
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.fingerprints == expected.fingerprints


def test_a_picture_cut_off_is_named(tmp_path: Path, pictures: Any, stored: None) -> None:
    folder = coloured_folder(tmp_path, ("0", "1"))
    whole = encoded(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    (folder / "1" / "half.png").write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"1/half\.png is damaged"):
        load(f"folder:{folder}").fingerprints  # noqa: B018  # reads every picture


def test_fingerprints_are_those_of_the_pixels_however_they_lie(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
    for name, array in (("c", x), ("f", np.asfortranarray(x))):
        np.savez(tmp_path / f"{name}.npz", x=array, y=np.arange(5))
    found, expected = (load(f"npz:{tmp_path / name}.npz").fingerprints for name in "fc")
    assert found == expected


@pytest.mark.parametrize("shape", [(6, 8, 8, 0), (6, 0, 8, 3), (6, 8, 0)])
def test_images_without_pixels_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=np.arange(6))
    with pytest.raises(InputError, match="expected x uint8 of shape"):
        load(f"npz:{tmp_path}/a.npz")


def test_pictures_have_not_four_channels(tmp_path: Path) -> None:
    for name in "01":
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4, 4), np.uint8), "RGBA").save(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=r"pictures of 3 channels and the model takes 4; give arrays"):
        load(f"folder:{tmp_path}", Takes((4, 4, 4), 2))


def test_a_shard_of_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    rows = 100_000
    pictures = pa.array(
        [{"bytes": b"", "path": None}] * rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"image": pictures, "label": np.zeros(rows, np.int64)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="claims 100000 pictures in"):
        load(f"parquet:{tmp_path}/a.parquet")


def test_a_picture_that_many_rows_share_is_read_once(tmp_path: Path) -> None:
    large = np.random.default_rng(0).bytes(100_000)
    pictures = pa.array([{"bytes": large}] * 500, pa.struct([("bytes", pa.binary())]))
    pq.write_table(pa.table({"image": pictures, "label": np.zeros(500, np.int64)}), tmp_path / "a.parquet")
    read = sources._Shard(tmp_path / "a.parquet").encoded(0)
    assert read[499].as_py() == large
    assert read.nbytes < 10 * len(large)


def test_what_is_known_of_the_poison_goes_with_the_images(tmp_path: Path) -> None:
    rng, poisoned = np.random.default_rng(0), np.arange(12) % 3 == 0
    pixels = rng.integers(0, 256, (12, 4, 4, 1)).astype(np.uint8)
    np.savez(tmp_path / "some.npz", x=pixels, y=np.arange(12), poisoned=poisoned)
    part = load(f"npz:{tmp_path}/some.npz[4:]")
    assert part.poisoned is not None
    np.testing.assert_array_equal(part.poisoned, poisoned[4:])
    taken = part.take(np.array([2, 5]))
    assert taken.poisoned is not None
    np.testing.assert_array_equal(taken.poisoned, poisoned[[6, 9]])
    np.savez(tmp_path / "rows.npz", x=pixels, y=np.arange(12), poisoned=np.arange(3))
    with pytest.raises(InputError, match=r"poisoned is int64 of shape \(3,\); expected one boolean"):
        load(f"npz:{tmp_path}/rows.npz")


def test_grey_arrays_need_no_axis_of_channels(tmp_path: Path) -> None:
    pixels = np.arange(12 * 4 * 5, dtype=np.uint8).reshape(12, 4, 5)
    np.savez(tmp_path / "grey.npz", x=pixels, y=np.arange(12))
    found = np.asarray(load(f"npz:{tmp_path}/grey.npz").images)
    np.testing.assert_allclose(found, pixels[..., None] / 255, atol=1e-6)


def test_labels_are_part_of_what_a_collection_is_known_by() -> None:
    digits = load("digits[:30]")
    assert digits.sha256 == load("digits[:30]").sha256
    assert digits.sha256 != dataclasses.replace(digits, labels=digits.labels[::-1].copy()).sha256


def test_the_seed_chooses_what_is_held_back_and_one_image_always_is() -> None:
    digits = load("digits[:60]")
    first, again, second = (hold_out(digits, share=0.3, most=100, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.rows, again.rows)
    assert set(first.rows) != set(second.rows)
    assert len(hold_out(load("digits[:3]"), share=0.01, most=100, seed=0)[1].labels) == 1


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    write_whole(path, b"old")

    def failing(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["model.pth"]


def test_names_of_folders_do_not_make_networks_that_take_all_memory(tmp_path: Path) -> None:
    for name in ("0", "1", "90000000"):
        (tmp_path / name).mkdir()
    for name in ("0", "1"):
        Image.new("L", (32, 32), 9).save(tmp_path / name / "one.png")
    data = load(f"folder:{tmp_path}")
    with pytest.raises(InputError, match="has the class 90000000, and so many classes would take all memory"):
        trainer.network("small_vgg", data, data, classes=classes_of(f"folder:{tmp_path}"))
