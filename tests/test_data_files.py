import io
import itertools
import os
import re
import struct
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from test_data import PAGE, TEN, encoded, folder_of, image, numbers, refused, sizes, zip_of

from vae_core.data import image_files, load_dataset


def decode(image, extension="png", size=32, **options):
    content = encoded(image, extension, **options)
    return image_files.decode_image(content, size).transpose(1, 2, 0)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_the_centre_is_cropped_and_resized_with_antialiasing():
    small = Image.fromarray(NOISE[:32, :32])
    assert (decode(small) == NOISE[:32, :32]).all()
    for size in ((96, 32), (32, 96)):
        wide = Image.new("RGB", size, "black")
        left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
        ImageDraw.Draw(wide).rectangle((left, top, left + 31, top + 31), "lime")
        assert (decode(wide) == (0, 255, 0)).all()
    checks = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    for size in (32, 48):
        assert abs(decode(Image.fromarray(checks), size=size).astype(int) - 127).max() <= 5
    assert (decode(Image.new("RGB", (5, 9), (1, 2, 3)), size=64) == (1, 2, 3)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_photographs_are_turned_upright(orientation, extension):
    sideways, exif = Image.fromarray(NOISE[:40, :64]), Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(encoded(sideways, extension, exif=exif))) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert (decode(sideways, extension, exif=exif) == decode(upright)).all()
    assert (orientation == 1) == (decode(upright) == decode(sideways)).all()


def solid(mode, colour):
    return Image.new(mode, (40, 40), colour)


INDEXED, RED, BLUE = solid("P", 1), solid("RGB", "red"), solid("RGB", "blue")
INDEXED.putpalette([10, 20, 30, 200, 100, 50])
FRAMES = {"save_all": True, "append_images": [BLUE]}


@pytest.mark.parametrize(
    ("image", "extension", "options", "expected"),
    [
        (solid("L", 77), "png", {}, (77, 77, 77)),
        (solid("1", 1), "png", {}, (255, 255, 255)),
        (solid("I;16", 0x8080), "png", {}, (128, 128, 128)),
        (solid("I;16", 0x8080), "tiff", {}, (128, 128, 128)),
        (solid("I", 65_535), "tiff", {}, (255, 255, 255)),
        (INDEXED, "png", {}, (200, 100, 50)),
        (INDEXED, "png", {"transparency": 1}, (255, 255, 255)),
        (solid("RGBA", (255, 0, 0, 128)), "png", {}, (255, 127, 127)),
        (solid("LA", (0, 0)), "png", {}, (255, 255, 255)),
        (solid("CMYK", (0, 255, 255, 0)), "jpeg", {"quality": 100}, (254, 0, 0)),
        (RED, "gif", FRAMES, (255, 0, 0)),
        (RED, "tiff", FRAMES, (255, 0, 0)),
        (BLUE, "webp", {"lossless": True}, (0, 0, 255)),
        (BLUE, "avif", {"quality": 100}, (0, 0, 255)),
        (BLUE, "jpeg2000", {}, (0, 0, 255)),
        (RED, "ppm", {}, (255, 0, 0)),
        (RED, "bmp", {}, (255, 0, 0)),
    ],
)
def test_modes_and_formats(image, extension, options, expected):
    assert abs(decode(image, extension, **options).astype(int) - expected).max() <= 2


def png(width, height, bits, colours, rows, change=0):
    """A PNG; `change` spoils the checksum of its values."""

    def chunk(name, content, change=0):
        crc = zlib.crc32(name + content) ^ change
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    values = chunk(b"IDAT", zlib.compress(rows), change)
    return b"\x89PNG\r\n\x1a\n" + header + values + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("brightest", [65_535, 4095])
def test_sixteen_bits_of_which_few_are_used_are_refused(tmp_path, root, channels, brightest):
    def deep(value):
        row = b"\0" + struct.pack(">H", value) * (40 * channels)
        return png(40, 40, 16, channels & 2, row * 40)

    images = {f"{n}.png": deep(brightest * (n + 1) // 12) for n in range(12)}
    path = folder_of(tmp_path / "a", images)
    if brightest == 65_535:
        assert load_dataset(path, root).train.max() > 200
    else:
        expected = "a: 12 images of 16 bits use 14 or less and are almost black; scale"
        assert expected in refused(ValueError, path, root)


@pytest.mark.parametrize("make", [zip_of, folder_of])
def test_other_files_are_named_or_known_to_be_no_images(tmp_path, root, make, capsys):
    formats = {"a.jfif": "png", "b": "webp", "c.x": "gif", "d.PNG": "png", "x.md/e.Jpe": "bmp"}
    names = {name: image(n, extension) for n, (name, extension) in enumerate(formats.items())}
    names |= {f"{n}.png": image(n) for n in range(5, 10)} | {"z.npy": b"P", "README": b"P5 is"}
    silent = ["notes.txt", "labels.csv", "x.json", "README.md", "Thumbs.db", "desktop.ini"]
    silent += [".hidden.png", "__MACOSX/a.png", ".git/b.png", "deep/.DS_Store"]
    silent += ["@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/a.png", "$RECYCLE.BIN/b.png"]
    names |= dict.fromkeys(silent, b"") | {f"{n:02d}.heic": b"\0\0\0\x18ftyp" for n in range(11)}
    parts = numbers(load_dataset(make(tmp_path / "mine.zip", names), root))
    assert sorted(itertools.chain(*parts)) == list(range(10))
    message = capsys.readouterr().err.splitlines()[0]
    assert "mine.zip: 13 of 23 files" in message
    assert message.count("heic") == 10
    assert "JPEG or PNG" in message


@pytest.mark.parametrize("make", [zip_of, folder_of])
def test_archives_alone_are_to_be_unpacked(tmp_path, root, make):
    path = make(tmp_path / "a.zip", {"train.zip": b"PK", "test.zip": b"PK"})
    assert "unpack test.zip, train.zip" in refused(ValueError, path, root)


def test_two_entries_of_one_name_are_refused(tmp_path, root):
    path = zip_of(tmp_path / "a.zip", TEN)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("0.png", image(50))
    assert "two files named 0.png" in refused(ValueError, path, root)


def test_links_are_followed_and_a_circle_ends(tmp_path, root):
    elsewhere = folder_of(tmp_path / "elsewhere", TEN)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(tmp_path / "a")
    assert sizes(load_dataset(tmp_path / "a", root)) == [7, 1, 2]


WRECKS = {
    "empty": b"",
    "text": b"this is no image",
    "truncated": encoded(Image.fromarray(NOISE))[:3000],
    "truncated-jpeg": encoded(Image.fromarray(NOISE), "jpeg")[:1500],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "format-nobody-asked-for": encoded(Image.fromarray(NOISE), "pcx"),
    "no-known-white": encoded(solid("F", 0.5), "tiff"),
    "beyond-16-bits": encoded(solid("I", 70_000), "tiff"),
    "wrong-checksum": png(32, 32, 8, 2, bytes(range(97)) * 32, change=1),
    "bomb": png(8_001, 8_000, 8, 2, b""),
    "warned-bomb": png(10_000, 9_500, 8, 2, b""),
    "huge-bomb": png(2**30, 2**30, 8, 2, b""),
}


@pytest.mark.parametrize("make", [zip_of, folder_of])
def test_bad_images_are_counted_and_ten_are_named(tmp_path, root, make, recwarn):
    for name, content in WRECKS.items():
        images = {f"{n}.png": image(n) for n in range(12)} | {f"{name}.jpg": content}
        message = refused(ValueError, make(tmp_path / f"{name}.zip", images), root)
        assert f"{name}.zip: 1 of 13 images cannot be read: {name}.jpg (" in message
        assert (" pixels; at most 64,000,000" in message) == (name in ("bomb", "warned-bomb"))
    names = {f"{n:02d}.png": image(n) if n < 9 else b"" for n in range(20)}
    message = refused(ValueError, make(tmp_path / "a.zip", names), root)
    assert "11 of 20 images" in message and message.count("not an image") == 10
    assert "18.png (not an image) …" in message
    assert {file.suffix for file in (root / "cache").iterdir()} == {".lock"}
    assert not list(recwarn)


def changed(at, value):
    """Change an entry of the zip's directory."""
    entry = re.compile(b"(PK\1\2.{%d}).{%d}" % (at - 4, len(value)), re.S)
    return lambda content: entry.sub(b"\\1" + value, content, count=1)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("a.zip", lambda content: content[:-300], "not a whole zip file; copy or download it"),
        ("a.zip", lambda content: content[300:], "0.png"),
        ("a.zip", lambda content: b"", "not a whole zip"),
        ("a.zip", lambda content: PAGE, "it is a web page"),
        ("a.tar.gz", lambda content: b"\x1f\x8b" * 99, "not a whole zip file; unpack it first"),
        ("a.zip", changed(8, b"\1"), "is encrypted"),
        ("a.zip", changed(16, b"\0"), "1 of 10 images cannot be read: 0.png"),
        ("a.zip", changed(24, b"\0\0\0\x40"), "1,073,741,824 bytes; at most 268,435,456"),
        ("a.zip", changed(10, b"\x0e"), "0.png is neither stored nor deflated; unpack"),
    ],
)
def test_bad_zip_is_one_line(tmp_path, root, name, change, expected):
    path = zip_of(tmp_path / name, TEN, zipfile.ZIP_DEFLATED)
    path.write_bytes(change(path.read_bytes()))
    message = refused(ValueError, path, root)
    assert expected in message and str(path) in message and message.count("cannot be read") == 1


def test_a_huge_photograph_is_decoded_at_a_smaller_scale(monkeypatch):
    photograph = Image.new("RGB", (400, 300), (200, 100, 50))
    content = encoded(photograph, "jpeg", quality=95)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
    pixels = image_files.decode_image(content, 32)
    assert abs(pixels.astype(int).transpose(1, 2, 0) - (200, 100, 50)).max() <= 3
    with pytest.raises(ValueError, match="at most 10,000"):
        image_files.decode_image(encoded(photograph), 32)  # a PNG has no smaller scale


def test_zips_of_other_systems_and_with_odd_paths_are_read(tmp_path, root):
    names = {f"set\\cat\\{n}.png": image(n) for n in range(6)}
    names |= {f"../../dog/{n}.png": image(n) for n in range(6, 12)}
    path = zip_of(tmp_path / "a.zip", {"set\\": b"", "set\\cat\\": b"", **names})
    loaded = load_dataset(path, root)
    assert sum(sizes(loaded)) == 12
    assert set(np.concatenate(loaded.labels)) == {"cat", "dog"}


def test_pipes_and_dangling_links_are_named(tmp_path, root):
    os.mkfifo(folder_of(tmp_path / "a", TEN) / "pipe.png")
    (folder_of(tmp_path / "b", TEN) / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "c.zip")
    for path, expected in {"a": "pipe.png is not a regular", "b": "gone.png", "c.zip": ""}.items():
        message = refused(ValueError, tmp_path / path, root)
        assert f"{path} cannot be read" in message and expected in message


def test_large_images_are_decoded_one_at_a_time(tmp_path, root, monkeypatch):
    running, most, decode = [], [], image_files.decode_opened

    def counted(*given):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        return decode(*given) if running.pop() else None

    monkeypatch.setattr(image_files, "decode_opened", counted)
    path = folder_of(tmp_path / "a", TEN)
    load_dataset(path, root)
    assert max(most) > 1
    most.clear()
    monkeypatch.setattr(image_files, "MAX_PIXELS", 32 * 32)
    load_dataset(path, root, size=16)
    assert most == [1] * 10
