"""Image files of a folder or zip: found without being decoded, and decoded to RGB squares."""

import hashlib
import io
import os
import posixpath
import re
import stat
import sys
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vae_core.storage import in_one_line

TASK, CHUNK = 32, 4096 * 32 * 32  # images for a thread at a time; decoded pixels in memory
MAX_PIXELS, MAX_BYTES = 64_000_000, 256 << 20
ALONE = ThreadPoolExecutor(1)  # for images of more than a quarter of that, and their memory
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
IMAGES = re.compile(r".*\.(jpe?g|jpe|jfif|png|bmp|gif|webp|tiff?|p[pg]m|avif|jp2)", re.I | re.S)
OTHERS = re.compile(r"(.*/)?(\.|__MACOSX).*|.*\.(txt|[ct]sv|json|xml|ya?ml|md|db|ini)", re.I | re.S)
PARTITION = re.compile(r"(.*/)?list_eval_partition\.(txt|csv)", re.S)  # CelebA's


class DatasetMissing(FileNotFoundError):
    """A known data set is not on this machine; the message says what to put where."""


def listing(path: Path) -> dict[str, tuple]:
    """Give the size of each file of a folder or zip that may be an image, and what opens it.

    Names have forward slashes. Raises ValueError, one line that names `path`, where unreadable.
    """
    with reading(path):
        if not path.is_file():
            found = _walk(path, set())
            return {name: (e.stat().st_size, partial(open, e.path, "rb")) for name, e in found}
        if not zipfile.is_zipfile(path):
            whole = path.suffix.lower() == ".zip"
            advice = "copy or download it again" if whole else "unpack it first, or give a folder"
            raise ValueError(f"it is not a whole zip file; {advice}")
        archive, files = zipfile.ZipFile(path), {}
        for info in archive.infolist():
            name = posixpath.normpath(info.filename.replace("\\", "/"))
            if _wanted(name) and not info.is_dir():
                files[name] = info.file_size, partial(archive.open, info)
            # Of the other methods, a few bytes could unpack to more than the memory.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is neither stored nor deflated; pack it again")
        return files


def identity(path: Path) -> str:
    """Return what changes with the content of a folder or zip, which is not searched for it."""
    with reading(path):
        if path.is_file():  # its directory, at the end, has the checksums: of 350,000 in 32 MiB
            with path.open("rb") as file:
                refuse_web_page(file.read(512))
            return _end(path, 32 << 20)
        # Times can be set back, and not every file system keeps the time of that (ctime).
        found = ((name, entry.path, entry.stat()) for name, entry in _walk(path, set()))
        facts = [(n, s.st_mtime_ns, s.st_ctime_ns, _end(place, 2048)) for n, place, s in found]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def _end(path, length):
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - length))
        digest = hashlib.sha256(str(size).encode())
        while block := file.read(1 << 18):
            digest.update(block)
        return digest.hexdigest()


def _wanted(name):
    return PARTITION.fullmatch(name) or not OTHERS.fullmatch(name)


def _walk(folder, seen, above=""):
    """The names and entries of the files that may be images, through links, each folder once."""
    if (real := os.path.realpath(folder)) not in seen:
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = above + entry.name
            if entry.is_dir():
                yield from _walk(entry.path, seen, name + "/") if _wanted(name + "/") else ()
            elif _wanted(name):
                if not stat.S_ISREG(entry.stat().st_mode):  # opening a pipe would wait for ever
                    raise ValueError(f"{name} is not a regular file; remove it")
                yield name, entry


def image_names(path: Path, files: dict) -> list[str]:
    """Return the sorted names of the images, known by extension or content; name the others."""
    names, others = [], []
    for name in sorted(name for name in files if not PARTITION.fullmatch(name)):
        known = IMAGES.fullmatch(name)
        with suppress(Exception):
            if not known:
                with files[name][1]() as file, Image.open(file, formats=FORMATS) as known:
                    pass
        (names if known else others).append(name)
    if others:
        count = f"{len(others):,} of {len(files):,} files are no images that can be read here"
        text = f"{path.name}: {count}: {listed(others)}; convert them to JPEG or PNG"
        print(in_one_line(text), file=sys.stderr)
    return names


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make one line that names `path` of whatever a damaged file raises in the libraries."""
    try:
        yield
    except Exception as error:
        raise ValueError(in_one_line(f"{path} cannot be read: {error}")) from error


def listed(names: list[str]) -> str:
    """Up to ten names."""
    return ", ".join(names[:10]) + " …" * (len(names) > 10)


def refuse_web_page(content: bytes) -> None:
    """Raise ValueError where `content` begins like a page saved under a data file's name."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError("it is a saved web page; delete it and download the file again")


def decode_all(path: Path, files: dict, names: list[str], size: int) -> Iterator[np.ndarray]:
    """Decode images on all cores; yield uint8 blocks [n, 3, size, size] in the order of `names`.

    Threads serve, because Pillow decodes and resizes without Python's lock. Raises ValueError
    after the last block where images could not be read.
    """
    bad, deep, step = [], [], max(TASK, CHUNK // size**2)
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of sizes that are checked and of odd metadata
        for start in range(0, len(names), step):
            tasks = [names[i : i + TASK] for i in range(start, min(start + step, len(names)), TASK)]
            try:
                yield from pool.map(partial(_decode_some, files, size, bad, deep), tasks)
            finally:  # or whoever interrupts waits for the images that threads have before them
                [task.clear() for task in tasks]
    if bad:
        text = f"{len(bad):,} of {len(names):,} images cannot be read: {listed(sorted(bad))}"
        raise ValueError(in_one_line(f"{path}: {text}; repair or remove them"))
    if 0 < max(deep, default=0) < 1 << 14:
        text = f"{len(deep):,} images have 16 bits, but no value above {max(deep):,}, almost black"
        raise ValueError(in_one_line(f"{path}: {text}; scale them to 16 bits, or to 8"))


def _decode_some(files, size, bad, deep, names):
    block = np.zeros((len(names), 3, size, size), np.uint8)
    for row, name in enumerate(names):
        length, opened = files[name]
        # Damaged bytes make Pillow and zipfile raise errors of every kind.
        try:
            if length > MAX_BYTES:
                raise ValueError(f"{length:,} bytes; at most {MAX_BYTES:,} are read")
            with opened() as file:
                block[row] = decode(file.read(length), size, deep)
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)
            bad.append(f"{name} ({'not an image' if unknown else in_one_line(error)})")
    return block


def decode(content: bytes, size: int, deep: list[int]) -> np.ndarray:
    """Return the upright centre square of an image, uint8 [3, size, size] in RGB.

    The brightest value of one with 16 bits goes to `deep`.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"{image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are read"
            )
        if pixels > MAX_PIXELS // 4:
            return ALONE.submit(_square, image, content, size, deep).result()
        return _square(image, content, size, deep)


def _square(image, content, size, deep):
    if image.format == "PNG":  # whose checksums Pillow does not compare while it decodes
        with Image.open(io.BytesIO(content), formats=["PNG"]) as unread:
            unread.verify()
    upper = image.mode == "RGB" and ";16" in str(image.tile)  # of 16 bits, 8 are read
    image.load()
    with suppress(Exception):  # of damaged metadata
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
            raise ValueError("values beyond 16 bits; save it with 8 or 16 bits a channel")
        deep.append(int(values.max()))
        values = (values.astype(np.uint32) * 255 + 32_767) // 65_535
        image = Image.fromarray(values.astype(np.uint8))
    elif upper:
        deep.append(257 * max(high for _, high in image.getextrema()))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(ImageOps.fit(image, (size, size))).transpose(2, 0, 1)
