"""Image files of a folder or zip: found without being decoded, and decoded to RGB squares."""

import hashlib
import io
import os
import posixpath
import re
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vae_core.storage import in_one_line, say

BLOCK = 512  # images that are decoded at a time
MAX_PIXELS, MAX_BYTES = 64_000_000, 256 << 20
ALONE = ThreadPoolExecutor(1)  # for images of more than a quarter of that, and their memory
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
IMAGES = re.compile(r".*\.(jpe?g|jpe|jfif|png|bmp|gif|webp|tiff?|p[pg]m|avif|jp2)", re.I | re.S)
PARTITION = re.compile(r"(.*/)?list_eval_partition\.(txt|csv)", re.S)  # CelebA's
HIDDEN, TEXTS = r"(.*/)?(\.|__MACOSX).*", r".*\.(txt|[ct]sv|json|xml|ya?ml|md|db|ini)"
OTHERS = re.compile(rf"{HIDDEN}|(?!{PARTITION.pattern}$){TEXTS}", re.I | re.S)  # left out silently


class DatasetMissing(FileNotFoundError):
    """A known data set is not on this machine; the message says what to put where."""


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Make one line that names `path` of whatever a damaged file raises in the libraries."""
    try:
        yield
    except Exception as error:
        reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(in_one_line(f"{path} cannot be read: {reason}")) from error


def identity(path: Path) -> str:
    """Return what changes with the content of a folder or zip, which is not searched for it."""
    with reading(path):
        if not path.is_file():
            found = [(name, facts) for name, (facts, _) in _walk(path, set())]
            return hashlib.sha256(repr(found).encode()).hexdigest()
        with path.open("rb") as file:  # whose directory, at the end, has checksums
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (32 << 20)))  # enough for those of 350,000 images
            return hashlib.sha256(b"%d " % size + file.read()).hexdigest()


def listing(path: Path) -> dict[str, tuple]:
    """List the files of a folder or zip that may be images, by names with forward slashes.

    Each has `(facts, open)`: its size, in a folder also the times of its change, and what opens it.
    """
    with reading(path):
        if not path.is_file():
            return dict(_walk(path, set()))
        if not zipfile.is_zipfile(path):
            whole = path.suffix.lower() == ".zip"
            advice = "copy or download it again" if whole else "unpack it first, or give a folder"
            raise ValueError(f"it is not a whole zip file; {advice}")
        archive, files = zipfile.ZipFile(path), {}
        for info in archive.infolist():
            name = posixpath.normpath(info.filename.replace("\\", "/")).lstrip("/")
            if not info.is_dir() and not OTHERS.fullmatch(name):
                files[name] = (info.file_size,), partial(archive.open, info)
            # Of the other methods, a few bytes could unpack to more than the memory.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is neither stored nor deflated; pack it again")
        return files


def _walk(folder, seen, above=""):
    """List a folder and those in it, through links, each folder once."""
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    for file in sorted(os.scandir(folder), key=lambda file: file.name):
        name = above + file.name
        if OTHERS.fullmatch(name + "/" * file.is_dir()):
            continue
        if file.is_dir():
            yield from _walk(file.path, seen, name + "/")
        elif file.is_file():
            yield name, entry(file.path)
        else:  # opening a pipe would wait for ever
            raise ValueError(f"{name} is not a regular file; remove it")


def entry(path: str | Path) -> tuple:
    """Return `(facts, open)` of a file, see `listing`."""
    stat = os.stat(path)  # st_mtime can be set back; st_ctime says so
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns), partial(open, path, "rb")


def image_names(path: Path, files: dict) -> list[str]:
    """Return the sorted names of the images, known by extension or content; name the others."""
    names = sorted(name for name in files if not PARTITION.fullmatch(name))
    others = [name for name in names if not IMAGES.fullmatch(name) and not _is_image(*files[name])]
    if others:
        count = f"{len(others):,} of {len(files):,} files are no images that can be read here"
        text = f"{path.name}: {count}: {listed(others)}; convert them to JPEG or PNG"
        say(text)
    return sorted(set(names).difference(others))


def _is_image(_, opened):
    with suppress(Exception), opened() as file, Image.open(file, formats=FORMATS):
        return True
    return False


def listed(names: list[str]) -> str:
    """Up to ten names."""
    return ", ".join(names[:10]) + " …" * (len(names) > 10)


def decode_all(path: Path, files: dict, names: list[str], size: int) -> Iterator[np.ndarray]:
    """Yield images as uint8 blocks [n, 3, size, size]; raise ValueError at the end for bad ones."""
    bad, deep = [], []

    def decoded(name):
        (length, *_), opened = files[name]
        # Damaged bytes make Pillow and zipfile raise errors of every kind.
        try:
            if length > MAX_BYTES:
                raise ValueError(f"{length:,} bytes; at most {MAX_BYTES:,} are read")
            with opened() as file:
                return decode(file.read(length), size, deep)
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)
            bad.append(f"{name} ({'not an image' if unknown else in_one_line(error)})")
            return np.zeros((3, size, size), np.uint8)

    # Threads serve all cores, because Pillow decodes and resizes without Python's lock.
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of sizes that are checked and of odd metadata
        for start in range(0, len(names), BLOCK):
            yield np.stack([*pool.map(decoded, names[start : start + BLOCK])])
    text = ""
    if bad:
        text = f"{len(bad):,} of {len(names):,} images cannot be read: {listed(sorted(bad))}"
    elif 0 < max(deep, default=0) < 64:
        text = f"{len(deep):,} images of 16 bits use 14 or less and are almost black; scale them"
    if text:
        raise ValueError(in_one_line(f"{path}: {text}; repair or remove them"))


def decode(content: bytes, size: int, deep: list[int]) -> np.ndarray:
    """Return the upright centre square of an image, uint8 [3, size, size] in RGB.

    The brightest value of one with 16 bits goes to `deep`.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if (pixels := image.width * image.height) > MAX_PIXELS:
            raise ValueError(f"{pixels:,} pixels; at most {MAX_PIXELS:,} are read")
        if pixels > MAX_PIXELS // 4:
            return ALONE.submit(_square, image, content, size, deep).result()
        return _square(image, content, size, deep)


def _square(image, content, size, deep):
    if image.format == "PNG":  # whose checksums Pillow does not compare while it decodes
        with Image.open(io.BytesIO(content), formats=["PNG"]) as unread:
            unread.verify()
    sixteen = image.mode[0] in "IF" or ";16" in str(image.tile)
    image.load()
    with suppress(Exception):  # of damaged metadata
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
            raise ValueError("values beyond 16 bits; save it with 8 or 16 bits a channel")
        values = (values.astype(np.uint32) * 255 + 32_767) // 65_535
        image = Image.fromarray(values.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if sixteen:
        deep.append(max(high for _, high in image.getextrema()))
    return np.asarray(ImageOps.fit(image, (size, size))).transpose(2, 0, 1)
