import errno
import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vae_core import data, picture_files
from vae_core.data import DatasetMissing, load_dataset
from vae_core.vision import CIFAR10


def encoded(image, extension="png", **options):
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, extension, **options)
    return file.getvalue()


def picture(number):
    """A 32×32 PNG whose colour tells its number."""
    return encoded(Image.new("RGB", (32, 32), (number % 256, number // 256, 7)))


def numbers(part):
    """The numbers of the pictures in one part."""
    assert part.dtype == torch.uint8 and part.shape[1:] == (3, 32, 32)
    assert (part == part[:, :, :1, :1]).all() and (part[:, 2] == 7).all()
    return [int(red) + 256 * int(green) for red, green in part[:, :2, 0, 0]]


def folder_of(path, names, first=0):
    """Write numbered pictures to `path`, in the order of `names`."""
    for number, name in enumerate(names, first):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return path


def zip_of(path, files, compression=zipfile.ZIP_DEFLATED):
    """Write a zip from a dict of names to bytes, or from names of numbered pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(files, dict):
        files = {name: picture(number) for number, name in enumerate(files)}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def decoded(monkeypatch):
    """The list of how many pictures were decoded, one entry for every one."""
    calls = []
    decode = picture_files._decode
    monkeypatch.setattr(
        picture_files, "_decode", lambda content: calls.append(1) or decode(content)
    )
    return calls


TEN = [f"{number}.png" for number in range(10)]
TWENTY = [f"{number:02d}.png" for number in range(20)]


@pytest.mark.parametrize("name", ["shapes", "faces"])
def test_built_in_parts_are_disjoint_draws(name, monkeypatch, root):
    monkeypatch.setitem(data.BUILT_IN, name, (40, 20, 20))
    dataset = load_dataset(name, root)
    parts = [dataset.train, dataset.validation, dataset.test]
    assert [part.shape for part in parts] == [(n, 3, 32, 32) for n in (40, 20, 20)]
    assert len({bytes(picture.numpy()) for part in parts for picture in part}) == 80
    assert dataset.title == f"built-in {name}" and dataset.name == name


def test_built_in_draws_follow_the_seed(monkeypatch, root):
    monkeypatch.setitem(data.BUILT_IN, "shapes", (6, 5, 5))
    first, again, other = (load_dataset("shapes", root, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train, again.train) and first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    parts = [part for d in (first, other) for part in (d.train, d.validation, d.test)]
    assert len({bytes(picture.numpy()) for part in parts for picture in part}) == 2 * 16


def test_built_in_sizes_limit_and_fraction(monkeypatch, root):
    assert data.BUILT_IN["shapes"] == data.BUILT_IN["faces"] == (20_000, 2_000, 2_000)
    sizes = {
        (100, 1.0): (50, 10, 10),
        (20, 1.0): (20, 4, 4),
        (3, 1.0): (3, 1, 1),
        (None, 0.3): (15, 10, 10),
        (10, 0.1): (5, 2, 2),
    }
    monkeypatch.setitem(data.BUILT_IN, "shapes", (50, 10, 10))
    for (limit, fraction), expected in sizes.items():
        dataset = load_dataset("shapes", root, limit=limit, fraction=fraction)
        parts = (dataset.train, dataset.validation, dataset.test)
        assert tuple(map(len, parts)) == expected, (limit, fraction)


def test_fingerprint_is_the_stated_hash(monkeypatch, root):
    monkeypatch.setitem(data.BUILT_IN, "shapes", (3, 2, 1))
    dataset = load_dataset("shapes", root)
    content = b"".join(bytes(p.numpy()) for p in (dataset.train, dataset.validation, dataset.test))
    assert dataset.fingerprint == hashlib.sha256(b"3,2,1" + content).hexdigest()[:16]


@pytest.mark.parametrize("top", ["", "pictures/"])
@pytest.mark.parametrize("validation", ["validation", "val", "Valid"])
def test_given_parts_are_kept(tmp_path, root, top, validation):
    files = [f"{top}train/cat/{n}.png" for n in range(7)]
    files += [f"{top}{validation}/{n}.png" for n in range(3)]
    files += [f"{top}test/dog/deep/{n}.PNG" for n in range(4)]
    for source in (folder_of(tmp_path / "mine", files), zip_of(tmp_path / "mine.zip", files)):
        dataset = load_dataset(source, root)
        assert sorted(numbers(dataset.train)) == list(range(7))
        assert sorted(numbers(dataset.validation)) == list(range(7, 10))
        assert sorted(numbers(dataset.test)) == list(range(10, 14))
        assert dataset.name == dataset.title == "mine"


def test_validation_is_drawn_from_training(tmp_path, root):
    files = [f"train/{n:02d}.png" for n in range(40)] + [f"test/{n}.png" for n in range(5)]
    dataset = load_dataset(zip_of(tmp_path / "a.zip", files), root)
    assert len(dataset.train) == 38 and len(dataset.validation) == 2
    drawn = numbers(dataset.validation)
    assert sorted(numbers(dataset.train) + drawn) == list(range(40))
    assert sorted(numbers(dataset.test)) == list(range(40, 45))
    assert drawn not in ([0, 1], [38, 39])


def test_parts_are_drawn_where_none_are_given(tmp_path, root):
    names = [f"train/{n:03d}.png" for n in range(100)]
    dataset = load_dataset(folder_of(tmp_path / "a", names), root)
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [86, 4, 10]
    everything = [*dataset.train, *dataset.validation, *dataset.test]
    assert sorted(numbers(torch.stack(everything))) == list(range(100))
    other = load_dataset(tmp_path / "a", root, seed=1)
    assert sorted(numbers(other.test)) != sorted(numbers(dataset.test))
    assert torch.equal(load_dataset(tmp_path / "a", tmp_path / "b").train, dataset.train)


@given(n=st.integers(10, 300), seed=st.integers(0, 2**40), given=st.booleans())
@settings(deadline=None, max_examples=60)
def test_drawn_parts_are_disjoint_and_cover_everything(n, seed, given):
    groups = {"train": list(range(n))} | ({"test": list(range(n, n + 3))} if given else {})
    parts = data._draw("x", seed, None, 1.0, groups)
    assert sorted([*parts[0], *parts[1], *parts[2]]) == list(range(n + 3 * given))
    assert all(parts)
    assert len(parts[1]) == max(1, (n if given else n - len(parts[2])) // 20)
    assert len(parts[2]) == (3 if given else n // 10)


@given(
    n=st.integers(10, 200),
    seed=st.integers(0, 99),
    limit=st.none() | st.integers(1, 250),
    fraction=st.floats(0.001, 1),
)
@settings(deadline=None, max_examples=60)
def test_limit_and_fraction_draw_without_replacement(n, seed, limit, fraction):
    whole = data._draw("x", seed, None, 1.0, {"train": list(range(n))})
    parts = data._draw("x", seed, limit, fraction, {"train": list(range(n))})
    train = max(1, round(len(whole[0]) * fraction))
    assert len(parts[0]) == min(train, limit or train)
    for part, all_of_it in zip(parts[1:], whole[1:], strict=True):
        assert len(part) == min(len(all_of_it), max(1, limit // 5) if limit else n)
    for part, all_of_it in zip(parts, whole, strict=True):
        assert set(part) <= set(all_of_it) and len(set(part)) == len(part)


def test_only_chosen_pictures_are_decoded(tmp_path, root, decoded):
    source = zip_of(tmp_path / "a.zip", [f"{n:03d}.png" for n in range(100)])
    load_dataset(source, root, limit=10)
    assert len(decoded) == 10 + 2 + 2


def test_hidden_and_foreign_files_are_skipped(tmp_path, root):
    names = [*TEN, ".hidden.png", "__MACOSX/a.png", ".git/b.png", "notes.txt", "x.npy"]
    for source in (folder_of(tmp_path / "a", names), zip_of(tmp_path / "a.zip", names)):
        dataset = load_dataset(source, root)
        found = numbers(torch.cat([dataset.train, dataset.validation, dataset.test]))
        assert sorted(found) == list(range(10))


def test_windows_zip_has_its_parts(tmp_path, root):
    names = [f"a\\train\\{n}.png" for n in range(8)] + [f".\\a\\test\\{n}.png" for n in range(3)]
    path = zip_of(tmp_path / "a.zip", names)
    assert sorted(numbers(load_dataset(path, root).test)) == [8, 9, 10]


def test_links_are_followed_and_a_circle_ends(tmp_path, root):
    elsewhere = folder_of(tmp_path / "elsewhere", TEN)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(tmp_path / "a")
    dataset = load_dataset(tmp_path / "a", root)
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [8, 1, 1]


def test_zip_and_folder_agree(tmp_path, root):
    folder = load_dataset(folder_of(tmp_path / "a", TWENTY), root, seed=3)
    assert load_dataset(zip_of(tmp_path / "b.zip", TWENTY), root, seed=3).fingerprint == (
        folder.fingerprint
    )


def decode(image, extension="png", **options):
    return picture_files._decode(encoded(image, extension, **options)).transpose(1, 2, 0)


def test_32x32_passes_unchanged():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for extension in ("png", "bmp", "tiff"):
        assert (decode(Image.fromarray(noise), extension) == noise).all()


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_crop_is_the_centre(size):
    image = Image.new("RGB", size, "black")
    left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
    ImageDraw.Draw(image).rectangle((left, top, left + 31, top + 31), "lime")
    assert (decode(image) == (0, 255, 0)).all()


def test_resizing_is_antialiased():
    checks = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    result = decode(Image.fromarray(checks))
    assert abs(result.astype(int) - 127).max() <= 3


def test_small_pictures_are_enlarged():
    assert (decode(Image.new("RGB", (5, 9), (1, 2, 3))) == (1, 2, 3)).all()


GREY16 = Image.fromarray(np.full((40, 40), 0x8080, np.uint16))
HALF_RED = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
CLEAR = Image.new("P", (40, 40), 0)
CLEAR.putpalette([10, 20, 30, 200, 100, 50])
OPAQUE = CLEAR.copy()
OPAQUE.paste(1, (0, 0, 40, 40))
FRAMES = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]


@pytest.mark.parametrize(
    ("image", "extension", "options", "expected"),
    [
        (Image.new("L", (40, 40), 77), "png", {}, (77, 77, 77)),
        (Image.new("1", (40, 40), 1), "png", {}, (255, 255, 255)),
        (GREY16, "png", {}, (128, 128, 128)),
        (GREY16, "tiff", {}, (128, 128, 128)),
        (Image.new("I", (40, 40), 65_535), "tiff", {}, (255, 255, 255)),
        (OPAQUE, "png", {}, (200, 100, 50)),
        (CLEAR, "png", {"transparency": 0}, (255, 255, 255)),
        (HALF_RED, "png", {}, (255, 127, 127)),
        (Image.new("LA", (40, 40), (0, 0)), "png", {}, (255, 255, 255)),
        (Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "jpeg", {"quality": 100}, (254, 0, 0)),
        (Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "tiff", {}, (255, 0, 0)),
        (FRAMES[0], "gif", {"save_all": True, "append_images": FRAMES[1:]}, (255, 0, 0)),
        (FRAMES[0], "tiff", {"save_all": True, "append_images": FRAMES[1:]}, (255, 0, 0)),
        (FRAMES[1], "webp", {"lossless": True}, (0, 0, 255)),
        (Image.new("RGB", (40, 40), (9, 8, 7)), "ppm", {}, (9, 8, 7)),
    ],
)
def test_modes_and_formats(image, extension, options, expected):
    assert abs(decode(image, extension, **options).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("image", [Image.new("F", (40, 40), 0.5), Image.new("I", (40, 40), 70_000)])
def test_values_without_a_known_white_are_refused(image):
    with pytest.raises(ValueError, match="16 bits"):
        decode(image, "tiff")


def bomb_png(width, height):
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
WRECKS = {
    "empty": b"",
    "text": b"this is no picture",
    "truncated": encoded(Image.fromarray(NOISE))[:3000],
    "truncated-jpeg": encoded(Image.fromarray(NOISE), "jpeg")[:1500],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "format-nobody-asked-for": encoded(Image.fromarray(NOISE), "pcx"),
    "warned-bomb": bomb_png(10_000, 9_500),
    "bomb": bomb_png(8_001, 8_000),
    "huge-bomb": bomb_png(2**30, 2**30),
}


@pytest.mark.parametrize("kind", WRECKS)
@pytest.mark.parametrize("pack", ["folder", "zip"])
def test_bad_picture_is_named(tmp_path, root, kind, pack, recwarn):
    files = {f"{n}.png": picture(n) for n in range(12)} | {f"{kind}.jpg": WRECKS[kind]}
    if pack == "zip":
        path = zip_of(tmp_path / "a.zip", files)
    else:
        path = tmp_path / "a"
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
    with pytest.raises(ValueError, match="1 of 13 pictures cannot be read") as error:
        load_dataset(path, root)
    message = one_line(error)
    assert str(path) in message and f"{kind}.jpg (" in message
    assert ("at most 64,000,000" in message) == (kind in ("bomb", "warned-bomb"))
    assert {file.suffix for file in (root / "cache").iterdir()} == {".lock"}
    assert not list(recwarn)


def test_many_bad_pictures_are_counted(tmp_path, root):
    files = {f"{n}.png": picture(n) if n < 9 else b"" for n in range(20)}
    with pytest.raises(ValueError, match="11 of 20 pictures") as error:
        load_dataset(zip_of(tmp_path / "a.zip", files), root)
    assert one_line(error).count("not a picture") == 3


def broken(path, change):
    content = bytearray(zip_of(path, TEN).read_bytes())
    path.write_bytes(change(content) or content)
    return path


def encrypt(content):
    content[content.index(b"PK\1\2") + 8] |= 1


def wrong_checksum(content):
    content[content.index(b"PK\1\2") + 16] ^= 1


def unknown_method(content):
    content[content.index(b"PK\1\2") + 10] = 97


def declare_a_gigabyte(content):
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = (1 << 30).to_bytes(4, "little")


PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>" + b" " * 90_000


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content[:-300], "not a whole zip"),
        (lambda content: content[:400], "not a whole zip"),
        (lambda content: content[:-3], "not a whole zip"),
        (lambda content: b"\0" * 500, "not a whole zip"),
        (lambda content: b"\0", "not a whole zip"),
        (lambda content: PAGE, "saved web page"),
        (encrypt, "is encrypted"),
        (wrong_checksum, "1 of 10 pictures cannot be read: 0.png"),
        (unknown_method, "0.png (neither stored nor deflated"),
        (declare_a_gigabyte, "1,073,741,824 bytes; at most 268,435,456"),
    ],
)
def test_bad_zip_is_one_line(tmp_path, root, change, expected):
    path = broken(tmp_path / "a.zip", change)
    with pytest.raises(ValueError) as error:
        load_dataset(path, root)
    assert expected in one_line(error) and str(path) in one_line(error)


def test_empty_zip_file_has_no_pictures(tmp_path, root):
    (tmp_path / "a.zip").touch()
    with pytest.raises(ValueError, match=r"a\.zip cannot be read"):
        load_dataset(tmp_path / "a.zip", root)


def test_lzma_zip_is_refused(tmp_path, root):
    path = zip_of(tmp_path / "a.zip", TEN, zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        load_dataset(path, root)


@given(changes=st.dictionaries(st.integers(0, 10**6), st.integers(0, 255), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_no_other_error_escapes_from_a_changed_zip(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("fuzz")

    def change(content):
        for at, value in changes.items():
            content[at % len(content)] = value

    path = broken(folder / "a.zip", change)
    try:
        dataset = load_dataset(path, folder)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert len(dataset.train) >= 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    name=st.sampled_from(sorted(WRECKS)),
    extension=st.sampled_from(["png", "jpeg", "gif", "tiff", "bmp", "webp"]),
    changes=st.dictionaries(st.integers(0, 10**5), st.integers(0, 255), max_size=6),
)
@settings(deadline=None, max_examples=100)
def test_a_changed_picture_is_a_picture_or_a_failure(name, extension, changes):
    content = bytearray(encoded(Image.fromarray(NOISE[:20, :30]), extension) + WRECKS[name])
    for at, value in changes.items():
        content[at % len(content)] = value
    block, failures = picture_files._decode_some(lambda _: bytes(content), ["x"])
    assert block.shape == (1, 3, 32, 32) and len(failures) <= 1


@pytest.mark.parametrize("files", [[], TEN[:9], ["a.txt"] * 1])
def test_too_few_pictures(tmp_path, root, files):
    with pytest.raises(ValueError, match="at least 10") as error:
        load_dataset(zip_of(tmp_path / "a.zip", files), root)
    assert "a.zip" in one_line(error)


def test_a_part_may_not_become_empty(tmp_path, root):
    files = ["train/a.png"] + [f"test/{n}.png" for n in range(15)]
    with pytest.raises(ValueError, match="0 train, 1 validation, 15 test"):
        load_dataset(zip_of(tmp_path / "a.zip", files), root)


def test_a_pipe_does_not_hang(tmp_path, root):
    os.mkfifo(folder_of(tmp_path / "a", TEN) / "pipe.png")
    os.mkfifo(tmp_path / "b.zip")
    for path in ("a", "b.zip"):
        with pytest.raises(ValueError, match="cannot be read") as error:
            load_dataset(tmp_path / path, root)
        assert one_line(error)


def test_dangling_link_is_named(tmp_path, root):
    (folder_of(tmp_path / "a", TEN) / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"gone\.png"):
        load_dataset(tmp_path / "a", root)


@pytest.mark.parametrize("name", ["mnist", "", "no/such/path.zip", "a\0b", "~", None, "x" * 5000])
def test_unknown_name_lists_the_known_ones(root, name, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(FileNotFoundError, match="shapes, faces, cifar10, celeba") as error:
        load_dataset(name, root)
    assert "folder or zip" in one_line(error)
    assert not isinstance(error.value, DatasetMissing)


@pytest.mark.parametrize(
    "option",
    [
        *({"limit": value} for value in (0, -1, 2.5, "10", True, float("nan"))),
        *({"fraction": value} for value in (0, -0.1, 1.01, "0.3", None, float("nan"), True)),
        *({"seed": value} for value in (-1, 0.5, None, "0", False)),
    ],
)
def test_senseless_options(root, option):
    with pytest.raises(ValueError, match=next(iter(option))) as error:
        load_dataset("shapes", root, **option)
    assert one_line(error)


def test_names_tell_data_sets_apart(tmp_path, root):
    source = zip_of(tmp_path / "my pictures (2).zip", TWENTY)
    options = [{}, {"seed": 1}, {"limit": 5}, {"fraction": 0.3}, {"fraction": 0.30000001}]
    options += [{"seed": 1, "limit": 5, "fraction": 0.3}]
    names = [load_dataset(source, root, **option).name for option in options]
    assert names[:4] == [
        "my-pictures-2",
        "my-pictures-2-seed1",
        "my-pictures-2-limit5",
        "my-pictures-2-fraction0.3",
    ]
    assert names[5] == "my-pictures-2-fraction0.3-limit5-seed1"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("path", "name", "title"),
    [
        ("cifar10-jpeg.zip", "cifar10-jpeg", "CIFAR-10 (JPEG)"),
        ("shapes.zip", "shapes-files", "shapes-files"),
        ("photos.v2", "photos.v2", "photos.v2"),
        ("...zip", "pictures", "pictures"),
        ("Пес.zip", "Пес", "Пес"),
    ],
)
def test_names_and_titles_of_paths(tmp_path, root, path, name, title):
    make = zip_of if path.endswith(".zip") else folder_of
    dataset = load_dataset(make(tmp_path / path, TEN), root, seed=2)
    assert (dataset.name, dataset.title) == (f"{name}-seed2", title)


def test_a_path_is_relative_to_where_it_is_given(tmp_path, root, monkeypatch):
    folder_of(tmp_path / "shapes", TEN)
    monkeypatch.chdir(tmp_path / "shapes")
    assert load_dataset(".", root).name == "shapes-files"
    monkeypatch.chdir(tmp_path)
    assert load_dataset("./shapes", root).name == "shapes-files"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_dataset("~/shapes", root).name == "shapes-files"


def cache_of(root):
    (pictures,) = (root / "cache").glob("*.u8")
    return pictures, pictures.with_suffix(".json")


@pytest.fixture
def cached(tmp_path, root, decoded, capsys):
    source = zip_of(tmp_path / "a.zip", TWENTY)
    first = load_dataset(source, root)
    assert len(decoded) == 20
    decoded.clear()
    assert capsys.readouterr().err == ""
    return source, first.fingerprint


def test_cache_is_used(cached, root, decoded, capsys):
    source, fingerprint = cached
    dataset = load_dataset(source, root)
    assert dataset.fingerprint == fingerprint and decoded == []
    assert capsys.readouterr().err == ""
    pictures, about = cache_of(root)
    parts = [dataset.train, dataset.validation, dataset.test]
    assert pictures.read_bytes() == b"".join(part.numpy().tobytes() for part in parts)
    content = json.loads(about.read_text())
    assert content["sizes"] == [len(part) for part in parts] == [17, 1, 2]
    assert content["source"] == str(source)


def test_cache_outlives_a_renamed_zip(cached, root, decoded, tmp_path):
    source, fingerprint = cached
    renamed = load_dataset(source.rename(tmp_path / "b.zip"), root)
    assert (renamed.name, renamed.fingerprint, decoded) == ("b", fingerprint, [])


def flip(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        (0, flip),
        (0, lambda content: content[:-1]),
        (0, lambda content: content + b"\0"),
        (0, lambda content: b""),
        (0, None),
        (1, lambda content: b""),
        (1, lambda content: content[:-1]),
        (1, lambda content: b"[" * 100_000),
        (1, lambda content: b"[]"),
        (1, lambda content: b"\xff"),
        (1, lambda content: b"{}"),
        (1, lambda content: content.replace(b"[17, 1, 2]", b"[16, 2, 2]")),
        (1, lambda content: content.replace(b"[17, 1, 2]", b"3")),
        (1, lambda content: content.replace(b'"sha256": "', b'"sha256": "0')),
    ],
)
def test_damaged_cache_is_rebuilt(cached, root, decoded, capsys, which, damage):
    source, fingerprint = cached
    file = cache_of(root)[which]
    if damage:
        before = file.read_bytes()
        file.write_bytes(damage(before))
        assert file.read_bytes() != before
    else:
        file.unlink()
    assert load_dataset(source, root).fingerprint == fingerprint
    assert len(decoded) == 20
    assert capsys.readouterr().err.count("\n") == 1
    decoded.clear()
    assert load_dataset(source, root).fingerprint == fingerprint and decoded == []
    assert capsys.readouterr().err == ""


def test_cache_without_its_json_is_rebuilt(cached, root, decoded):
    source, fingerprint = cached
    cache_of(root)[1].unlink()
    assert load_dataset(source, root).fingerprint == fingerprint and len(decoded) == 20


def test_changed_zip_is_read_again(tmp_path, root):
    before = load_dataset(zip_of(tmp_path / "a.zip", TEN), root)
    times = os.stat(tmp_path / "a.zip")
    files = {name: picture(number or 255) for number, name in enumerate(TEN)}
    os.utime(zip_of(tmp_path / "a.zip", files), ns=(times.st_atime_ns, times.st_mtime_ns))
    after = load_dataset(tmp_path / "a.zip", root)
    assert after.fingerprint != before.fingerprint
    assert 255 in numbers(torch.cat([after.train, after.validation, after.test]))


@pytest.mark.parametrize("changed", ["size", "time", "name"])
def test_changed_folder_is_read_again(tmp_path, root, changed, decoded):
    folder = folder_of(tmp_path / "a", TEN)
    load_dataset(folder, root)
    file = folder / "0.png"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    if changed == "name":
        file.rename(folder / "00.png")
    elif changed == "size":
        file.write_bytes(file.read_bytes() + b"after the end of the picture")
        os.utime(file, ns=times)
    else:
        os.utime(file, ns=(times[0], times[1] + 1))
    decoded.clear()
    load_dataset(folder, root)
    assert len(decoded) == 10


def test_a_new_decoder_does_not_use_old_caches(cached, root, decoded, monkeypatch):
    monkeypatch.setattr(data, "code_hash", lambda *modules: "another")
    load_dataset(cached[0], root)
    assert len(decoded) == 20


def test_writing_to_the_tensors_leaves_the_cache_alone(cached, root, decoded):
    source, fingerprint = cached
    load_dataset(source, root).train.zero_()
    dataset = load_dataset(source, root)
    assert dataset.fingerprint == fingerprint and dataset.train.any() and decoded == []


def test_two_at_once_build_once(tmp_path, root, decoded):
    source = zip_of(tmp_path / "a.zip", TWENTY)
    threads = [threading.Thread(target=load_dataset, args=(source, root)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 20


def test_full_disk_leaves_nothing(tmp_path, root, monkeypatch):
    source = zip_of(tmp_path / "a.zip", TWENTY)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        load_dataset(source, root)
    assert error.value.errno == errno.ENOSPC and "could not be written" in one_line(error)
    assert {file.suffix for file in (root / "cache").iterdir()} == {".lock"}


def test_cache_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not be written") as error:
        load_dataset(zip_of(tmp_path / "a.zip", TEN), tmp_path / "file")
    assert one_line(error)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux counts memory there")
def test_a_cached_set_takes_no_memory_of_its_own(tmp_path, root):
    count = 8_000
    bmp = encoded(Image.new("RGB", (32, 32), "red"), "bmp")
    source = zip_of(tmp_path / "a.zip", {f"{n}.bmp": bmp for n in range(count)}, zipfile.ZIP_STORED)
    load_dataset(source, root)
    program = """if True:
        import pathlib, re, sys
        from vae_core.data import load_dataset
        def anonymous():
            status = pathlib.Path("/proc/self/status").read_text()
            return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) << 10
        before = anonymous()
        dataset = load_dataset(*sys.argv[1:])
        assert dataset.train.numpy().max() == dataset.test.numpy().max() == 255
        print(anonymous() - before)
    """
    arguments = [sys.executable, "-W", "error", "-c", program, str(source), str(root)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    assert int(ran.stdout) < count * 3072 / 2


def cifar_class(folder, url="http://127.0.0.1:9/none"):
    """Write a tiny CIFAR-10 in the genuine layout; give a class that knows its MD5 sums."""
    folder.mkdir(parents=True)
    sums = {}
    for batch in range(6):
        solid = [[n % 256, n // 256, 7] for n in range(10 * batch, 10 * batch + 10)]
        rows = np.repeat(np.array(solid, np.uint8), 1024, axis=1)
        name = f"data_batch_{batch + 1}" if batch < 5 else "test_batch"
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [0] * 10}))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    meta = folder / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": ["thing"]}))

    md5 = hashlib.md5(meta.read_bytes()).hexdigest()
    known = {
        "url": url,
        "train_list": list(sums.items())[:5],
        "test_list": list(sums.items())[5:],
        "meta": {"filename": meta.name, "key": "label_names", "md5": md5},
    }
    return type("TinyCIFAR10", (CIFAR10,), known)


@pytest.fixture
def cifar(root, monkeypatch):
    kind = cifar_class(root / "cifar-10-batches-py")
    monkeypatch.setattr(data, "CIFAR10", kind)
    return kind


def test_cifar10(cifar, root, capsys):
    dataset = load_dataset("cifar10", root)
    assert (dataset.name, dataset.title) == ("cifar10", "CIFAR-10")
    assert len(dataset.validation) == 2
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == list(range(50))
    assert sorted(numbers(dataset.test)) == list(range(50, 60))
    other = load_dataset("cifar10", root, seed=1, fraction=0.2)
    assert other.name == "cifar10-fraction0.2-seed1" and len(other.train) == 10
    assert sorted(numbers(other.validation)) != sorted(numbers(dataset.validation))
    assert capsys.readouterr() == ("", "")


def test_cifar10_pixels_are_channels_first(cifar, root):
    name, _ = cifar.test_list[0]
    file = root / cifar.base_folder / name
    rows = np.random.default_rng(0).integers(0, 256, (10, 3072), np.uint8)
    file.write_bytes(pickle.dumps({"data": rows, "labels": [0] * 10}))
    cifar.test_list = [[name, hashlib.md5(file.read_bytes()).hexdigest()]]
    test = load_dataset("cifar10", root).test
    assert {bytes(row) for row in rows} == {bytes(picture.numpy()) for picture in test}


def test_cifar10_is_unpickled_once(cifar, root, monkeypatch):
    first = load_dataset("cifar10", root)
    for file in (root / cifar.base_folder).iterdir():
        file.unlink()
    assert load_dataset("cifar10", root).fingerprint == first.fingerprint


@pytest.fixture
def server(tmp_path):
    """The address of a server for the files in `tmp_path`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_cifar10_is_downloaded_in_silence(tmp_path, root, monkeypatch, capsys, server):
    folder = tmp_path / "cifar-10-batches-py"
    archive = tmp_path / "cifar.tar.gz"
    kind = cifar_class(folder, f"{server}/{archive.name}")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    kind.tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(data, "CIFAR10", kind)
    root.mkdir()
    (root / kind.filename).write_bytes(PAGE)
    assert len(load_dataset("cifar10", root).train) == 48
    assert capsys.readouterr() == ("", "")


def test_cifar10_without_a_network(tmp_path, root, monkeypatch):
    monkeypatch.setattr(data, "CIFAR10", cifar_class(tmp_path / "cifar-10-batches-py"))
    with pytest.raises(DatasetMissing, match=r"put cifar-10-python\.tar\.gz or cifar-10") as error:
        load_dataset("cifar10", root)
    assert str(root) in one_line(error)


def test_cifar10_archive_that_is_a_web_page(tmp_path, root, monkeypatch):
    kind = cifar_class(tmp_path / "cifar-10-batches-py")
    monkeypatch.setattr(data, "CIFAR10", kind)
    root.mkdir()
    (root / kind.filename).write_bytes(PAGE)
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is not the genuine") as error:
        load_dataset("cifar10", root)
    assert "delete it" in one_line(error)


def test_cifar10_download_does_not_wait_for_ever(cifar, root, monkeypatch):
    seen = []
    monkeypatch.setattr(cifar, "download", lambda self: seen.append(socket.getdefaulttimeout()))
    load_dataset("cifar10", root)
    assert seen == [30] and socket.getdefaulttimeout() is None


class Trap:
    """Pickled, it creates a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_cifar10_foreign_pickles_are_not_loaded(cifar, root, tmp_path, name):
    trap = tmp_path / "sprung"
    (root / cifar.base_folder / name).write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(ValueError, match="cifar-10-batches-py is not the genuine") as error:
        load_dataset("cifar10", root)
    assert one_line(error) and not trap.exists()


# Numbers of pictures by official part, with the first and the last of each
FACES = {
    "train": (1, 2, 3, 4, 5, 6, 162_770),
    "validation": (162_771, 170_000, 182_637),
    "test": (182_638, 202_599),
}
FACE_NAMES = [f"{number:06d}.jpg" for part in FACES.values() for number in part]
# Unlike the official partition, so that a test sees which was used
OTHER_PARTITION = {name: index % 3 for index, name in enumerate(FACE_NAMES)}
TXT = "".join(f"{name} {part}\n" for name, part in OTHER_PARTITION.items())
CSV = "image_id,partition\n" + "".join(f"{n},{part}\r\n" for n, part in OTHER_PARTITION.items())


def part_numbers(dataset):
    return [sorted(numbers(p)) for p in (dataset.train, dataset.validation, dataset.test)]


OFFICIAL = [list(range(7)), [7, 8, 9], [10, 11]]
LISTED = [[n for n in range(12) if n % 3 == part] for part in range(3)]


def celeba(base, layout):
    if layout == "zip":
        zip_of(base / "img_align_celeba.zip", [f"img_align_celeba/{n}" for n in FACE_NAMES])
    elif layout == "kaggle":
        folder_of(base / "img_align_celeba" / "img_align_celeba", FACE_NAMES)
    else:
        folder_of(base / "img_align_celeba", FACE_NAMES)
    return base


@pytest.mark.parametrize("layout", ["folder", "zip", "kaggle"])
@pytest.mark.parametrize("place", ["", "celeba"])
@pytest.mark.parametrize("partition", [None, "txt", "csv"])
def test_celeba_layouts(root, layout, place, partition, capsys):
    base = celeba(root / place, layout)
    if partition:
        text = TXT if partition == "txt" else CSV
        (base / f"list_eval_partition.{partition}").write_text(text)
    dataset = load_dataset("celeba", root)
    assert part_numbers(dataset) == (LISTED if partition else OFFICIAL)
    assert (dataset.name, dataset.title) == ("celeba", "CelebA")
    assert ("absent" in capsys.readouterr().err) == (partition is None)
    if place:
        assert load_dataset(base, root).fingerprint == dataset.fingerprint
    inner = base / f"img_align_celeba{'.zip' * (layout == 'zip')}"
    inner = load_dataset(inner, root)
    assert inner.fingerprint == dataset.fingerprint and inner.title == "CelebA"


def test_celeba_partition_inside_a_zip(tmp_path, root):
    files = {f"img_align_celeba/{n}": picture(i) for i, n in enumerate(FACE_NAMES)}
    path = zip_of(tmp_path / "archive.zip", files | {"list_eval_partition.csv": CSV})
    assert part_numbers(load_dataset(path, root)) == LISTED


def test_celeba_partition_file_is_part_of_the_key(root):
    base = celeba(root / "celeba", "zip")
    assert part_numbers(load_dataset("celeba", root)) == OFFICIAL
    (base / "list_eval_partition.txt").write_text(TXT)
    assert part_numbers(load_dataset("celeba", root)) == LISTED


def test_celeba_partition_may_begin_with_a_byte_order_mark(root):
    (celeba(root, "zip") / "list_eval_partition.txt").write_bytes(b"\xef\xbb\xbf" + TXT.encode())
    assert part_numbers(load_dataset("celeba", root)) == LISTED


def test_celeba_says_how_many_are_absent(root, capsys):
    base = celeba(root / "celeba", "folder")
    (base / "list_eval_partition.txt").write_text(TXT + "000099.jpg 0\n")
    load_dataset("celeba", root)
    assert "1 of the 13 pictures of CelebA are absent" in capsys.readouterr().err


def test_first_celeba_pictures_alone_are_drawn_by_seed(tmp_path, root):
    names = [f"img_align_celeba/{n:06d}.jpg" for n in range(1, 31)]
    path = zip_of(tmp_path / "celeba-9k.zip", names)
    dataset = load_dataset(path, root)
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [26, 1, 3]
    path.rename(root / "img_align_celeba.zip")
    with pytest.raises(ValueError, match="30 train, 0 validation, 0 test"):
        load_dataset("celeba", root)


def test_numbers_among_other_names_are_drawn_by_seed(tmp_path, root):
    path = zip_of(tmp_path / "a.zip", [*FACE_NAMES, "cat.jpg"])
    assert sum(map(len, part_numbers(load_dataset(path, root)))) == 13


def test_a_partition_of_other_names_leaves_a_path_plain(tmp_path, root):
    folder_of(tmp_path / "mine" / "img_align_celeba", TEN)
    (tmp_path / "mine" / "list_eval_partition.txt").write_text(TXT)
    dataset = load_dataset(tmp_path / "mine", root)
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [8, 1, 1]


def test_celeba_fraction_is_the_studys(tmp_path):
    counts = data._counts((162_770, 19_867, 19_962), None, 0.3)
    assert counts == [48_831, 19_867, 19_962]
    celeba(tmp_path / "celeba", "zip")
    dataset = load_dataset("celeba", tmp_path, fraction=0.3)
    assert dataset.name == "celeba-fraction0.3" and len(dataset.train) == 2


def test_missing_celeba_says_what_to_put_where(root):
    with pytest.raises(DatasetMissing) as error:
        load_dataset("celeba", root)
    message = one_line(error)
    for part in ("img_align_celeba.zip", "list_eval_partition.txt", str(root / "celeba")):
        assert part in message
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["img_align_celeba.zip", "list_eval_partition.txt"])
def test_celeba_quota_page(root, name):
    base = celeba(root / "celeba", "zip")
    (base / name).write_bytes(PAGE)
    with pytest.raises(ValueError, match="saved web page") as error:
        load_dataset("celeba", root)
    assert name in one_line(error) and "download" in one_line(error)


@pytest.mark.parametrize("text", ["", "junk", TXT + "000001.jpg 3\n", TXT + "\0\xff\n"])
def test_celeba_unreadable_partition(root, text):
    (celeba(root / "celeba", "zip") / "list_eval_partition.txt").write_text(text)
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt cannot be read") as error:
        load_dataset("celeba", root)
    assert one_line(error)
