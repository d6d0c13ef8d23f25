"""Image files of a folder or zip: found without being decoded, and decoded to RGB squares."""

import hashlib
import io
import os
import posixpath
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vae_core.storage import print_error, single_line

BLOCK = 512  # images that are decoded at a time
MAX_PIXELS, MAX_BYTES = 64_000_000, 256 << 20  # of an image file
# Images of more than a quarter of that are decoded one at a time, since each takes much memory.
LARGE_IMAGES = ThreadPoolExecutor(1)
MAX_ZIP_DIRECTORY = 32 << 20  # bytes at the end of a zip: enough for 350,000 images
DARK = 64  # a 16-bit image whose values, as 8 bits, are all below this uses 14 bits or less

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
IMAGE = re.compile(r".*\.(jpe?g|jpe|jfif|png|bmp|gif|webp|tiff?|p[pg]m|avif|jp2)", re.I | re.S)
ARCHIVE = re.compile(r".*\.(zip|tar|t?gz|7z|rar)", re.I | re.S)
PARTITION = re.compile(r"(.*/)?list_eval_partition\.(txt|csv)", re.S)  # CelebA's
# Left out without a message: hidden files, the thumbnails and waste bins of systems and servers,
# and texts.
HIDDEN = r"(.*/)?(\.|__MACOSX|@eaDir|#recycle|#snapshot|\$RECYCLE\.BIN|lost\+found|Thumbs\.db).*"
TEXT = r".*\.(txt|[ct]sv|json|xml|ya?ml|md|db|ini)"
IGNORED = re.compile(rf"{HIDDEN}|(?!{PARTITION.pattern}$){TEXT}", re.I | re.S)


class DatasetMissing(FileNotFoundError):
    """A known data set is not on this machine; the message says what to put where."""


class ListedFile(NamedTuple):
    """A file of a folder or zip, not yet opened."""

    facts: tuple[int, ...]  # its size; in a folder also the times of its last changes
    open: Callable[[], BinaryIO]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.facts[0]


class DecodedImage(NamedTuple):
    """A decoded image, uint8 [3, size, size], and the brightest value of one with 16 bits."""

    pixels: np.ndarray
    brightest_of_16_bits: int | None = None


@contextmanager
def readable_errors(name: object) -> Iterator[None]:
    """Turn whatever a damaged file raises in the libraries into one line that names it."""
    try:
        yield
    except Exception as error:
        reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(single_line(f"{name} cannot be read: {reason}")) from error


def identity(path: Path) -> str:
    """Return what changes with the content of a folder or zip, without decoding anything."""
    with readable_errors(path):
        if path.is_file():
            return zip_identity(path)
        facts = [(name, file.facts) for name, file in walk(path, set())]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def zip_identity(path: Path) -> str:
    """Return a hash of a zip's size and of its directory, at its end, which has checksums."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_ZIP_DIRECTORY))
        return hashlib.sha256(b"%d " % size + file.read()).hexdigest()


def list_files(path: Path) -> dict[str, ListedFile]:
    """Return the files of a folder or zip that may be images, by names with forward slashes."""
    with readable_errors(path):
        if path.is_file():
            return list_zip(path)
        return dict(walk(path, set()))


def list_zip(path: Path) -> dict[str, ListedFile]:
    """Return the files of a zip; raise ValueError where they cannot be read safely."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            check_no_web_page(file.read(1024))
        if path.suffix.lower() == ".zip":
            raise ValueError("it is not a whole zip file; copy or download it again")
        raise ValueError("it is not a whole zip file; unpack it first, or give a folder")
    archive, files = zipfile.ZipFile(path), {}
    for info in archive.infolist():
        is_folder = info.filename.endswith(("/", "\\"))
        name = zip_entry_name(info.filename)
        # With other methods, a few bytes could unpack to more than the memory.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{name} is neither stored nor deflated; unpack the zip and give the folder"
            )
        if is_folder or IGNORED.fullmatch(name):
            continue
        if name in files:
            raise ValueError(f"it has two files named {name}; unpack it and give the folder")
        files[name] = ListedFile((info.file_size,), partial(archive.open, info))
    return files


def zip_entry_name(name: str) -> str:
    """Return the name of a zip's entry with forward slashes, without leading / or ../ ."""
    parts = posixpath.normpath(name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".."))


def check_no_web_page(content: bytes) -> None:
    """Raise ValueError where the beginning of a file is that of a web page.

    Download services answer with one, of a quota or a question, which is saved under the name of
    the file.
    """
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError(
            "it is a web page; open the address in a browser, see what it says, and download the "
            "file itself"
        )


def walk(folder: str | Path, seen: set[str], prefix: str = "") -> Iterator[tuple[str, ListedFile]]:
    """Yield the files of a folder and of those in it, through links, each folder once."""
    real_path = os.path.realpath(folder)
    if real_path in seen:
        return
    seen.add(real_path)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = prefix + entry.name
        if entry.is_dir():
            if not IGNORED.fullmatch(name + "/"):
                yield from walk(entry.path, seen, name + "/")
        elif IGNORED.fullmatch(name):
            continue
        elif entry.is_file():
            yield name, describe_file(entry.path)
        else:  # opening a pipe would wait for ever
            raise ValueError(f"{name} is not a regular file; remove it")


def describe_file(path: str | Path) -> ListedFile:
    """Return a file of a folder as it is listed."""
    stat = os.stat(path)
    # A program may set st_mtime back; st_ctime changes all the same.
    facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return ListedFile(facts, partial(open, path, "rb"))


def image_names(path: Path, files: dict[str, ListedFile]) -> list[str]:
    """Return the sorted names of the images, known by extension or content.

    A line on the error stream names the other files. Raises ValueError where there are only
    archives.
    """
    names = sorted(name for name in files if not PARTITION.fullmatch(name))
    images = [name for name in names if IMAGE.fullmatch(name) or is_image(files[name])]
    others = sorted(set(names) - set(images))
    archives = [name for name in others if ARCHIVE.fullmatch(name)]
    if archives and not images:
        raise ValueError(
            single_line(f"{path} has no images, but archives: unpack {first_names(archives)}")
        )
    if others:
        print_error(
            f"{path.name}: {len(others):,} of {len(files):,} files are no images that can be read "
            f"here: {first_names(others)}; convert them to JPEG or PNG"
        )
    return images


def is_image(file: ListedFile) -> bool:
    """Return whether the content of a file is that of an image."""
    with suppress(Exception), file.open() as opened, Image.open(opened, formats=FORMATS):
        return True
    return False


def first_names(names: list[str]) -> str:
    """Return up to ten names as text."""
    text = ", ".join(names[:10])
    return f"{text} …" if len(names) > 10 else text


def decode_all(
    path: Path, files: dict[str, ListedFile], names: list[str], size: int
) -> Iterator[np.ndarray]:
    """Yield images as uint8 blocks [n, 3, size, size].

    Raises ValueError at the end, which names the images that cannot be read, or says that images
    of 16 bits are almost black.
    """
    bad: list[str] = []
    brightest: list[int] = []

    def decode_file(name: str) -> np.ndarray:
        # Damaged bytes make Pillow and zipfile raise errors of every kind.
        try:
            decoded = read_image(files[name], size)
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)
            bad.append(f"{name} ({'not an image' if unknown else single_line(error)})")
            return np.zeros((3, size, size), np.uint8)
        if decoded.brightest_of_16_bits is not None:
            brightest.append(decoded.brightest_of_16_bits)
        return decoded.pixels

    # Threads use all cores, because Pillow decodes and resizes without Python's lock.
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about sizes, which are checked, and metadata
        for start in range(0, len(names), BLOCK):
            yield np.stack([*pool.map(decode_file, names[start : start + BLOCK])])
    if bad:
        message = (
            f"{len(bad):,} of {len(names):,} images cannot be read: {first_names(sorted(bad))}"
        )
    elif brightest and 0 < max(brightest) < DARK:
        message = f"{len(brightest):,} images of 16 bits use 14 or less and are almost black"
        message += "; scale them"
    else:
        return
    raise ValueError(single_line(f"{path}: {message}; repair or remove them"))


def read_image(file: ListedFile, size: int) -> DecodedImage:
    """Read and decode a listed file; raise any error where it cannot be."""
    if file.size > MAX_BYTES:
        raise ValueError(f"{file.size:,} bytes; at most {MAX_BYTES:,} are read")
    with file.open() as opened:
        return decode(opened.read(file.size), size)


def decode_image(content: bytes, size: int) -> np.ndarray:
    """Return the upright centre square of an image, uint8 [3, size, size] in RGB."""
    return decode(content, size).pixels


def decode(content: bytes, size: int) -> DecodedImage:
    """Decode the bytes of an image file to a square."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        pixels = image.width * image.height
        if pixels > MAX_PIXELS and image.format == "JPEG":
            # JPEG can be decoded at an eighth of its size. Smaller images are not, so that their
            # pixels stay those of the published runs.
            image.draft("RGB", (max(size, image.width // 8), max(size, image.height // 8)))
            pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(f"{pixels:,} pixels; at most {MAX_PIXELS:,} are read")
        if pixels > MAX_PIXELS // 4:
            return LARGE_IMAGES.submit(decode_opened, image, content, size).result()
        return decode_opened(image, content, size)


def decode_opened(image: Image.Image, content: bytes, size: int) -> DecodedImage:
    """Decode an opened image: turned upright, in RGB on white, cut to its centre square."""
    if image.format == "PNG":  # whose checksums Pillow does not compare while it decodes
        with Image.open(io.BytesIO(content), formats=["PNG"]) as unread:
            unread.verify()
    has_16_bits = image.mode[0] in "IF" or ";16" in str(image.tile)
    image.load()
    with suppress(Exception):  # of damaged metadata
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        image = to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    brightest = None
    if has_16_bits:
        brightest = max(high for _, high in image.getextrema())
    square = np.asarray(ImageOps.fit(image, (size, size))).transpose(2, 0, 1)
    return DecodedImage(square, brightest)


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 bits with 8 bits; raise ValueError for values beyond 16 bits."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        raise ValueError("values beyond 16 bits; save it with 8 or 16 bits a channel")
    values = (values.astype(np.uint32) * 255 + 32_767) // 65_535
    return Image.fromarray(values.astype(np.uint8))
