"""Picture files of a folder or zip: found without reading them, and decoded to 32×32 RGB."""

import hashlib
import io
import os
import posixpath
import stat
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vae_core.progress import progress

SIZE = 32
CHUNK = 4096  # pictures given to the decoding threads at once
TASK = 32  # pictures that one thread decodes at a time
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 << 20
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")


def open_files(path):
    """Open a folder or zip, or the img_align_celeba.zip in a folder without pictures."""
    files, archive = PictureFiles(path), path / "img_align_celeba.zip"
    return PictureFiles(archive) if archive.is_file() and not files.names else files


class PictureFiles:
    """The picture files of a folder or zip, and CelebA's partition file inside or beside it.

    `identity` tells cheaply whether everything is as it was: by the bytes of a zip, by the names,
    sizes and times of a folder's files. A zip is not searched for it. `names` are the pictures',
    sorted, with forward slashes; `partition` is the path and the content of the partition file,
    or None. Raises ValueError, one line that names the path, where it cannot be read.
    """

    def __init__(self, path):
        self.path = path
        beside = [path.absolute().with_name(name) for name in PARTITIONS]
        with reading(path):
            found = [(file, file.read_bytes()) for file in beside if file.is_file()]
            self.beside = found[0] if found and path.stem == "img_align_celeba" else None
            content = _hash_of(path) if path.is_file() else sorted(self.inside[0].items())
        everything = content, self.beside and self.beside[1]
        self.identity = hashlib.sha256(repr(everything).encode()).hexdigest()

    @cached_property
    def inside(self):
        """The size of each file with what changes with its content, and how to open it."""
        with reading(self.path):
            return _in_zip(self.path) if self.path.is_file() else _in_folder(self.path)

    @cached_property
    def names(self):
        """The names of the pictures."""
        return sorted(name for name in self.inside[0] if not _is_partition(name))

    @cached_property
    def partition(self):
        """The path and the content of the partition file, or None."""
        with reading(self.path):
            inside = sorted(filter(_is_partition, self.inside[0]))
            return (self.path / inside[0], self.read(inside[0])) if inside else self.beside

    def read(self, name):
        """Return the content of a file; raise ValueError where it is too large for a picture."""
        facts, opened = self.inside
        size = facts[name][0]
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes; at most {MAX_BYTES:,} are read")
        with opened(name) as file:
            return file.read(size)


def _in_folder(path):
    def fail(error):
        raise error

    facts, seen = {}, set()
    for folder, folders, files in os.walk(path, onerror=fail, followlinks=True):
        folders.sort()
        real = os.path.realpath(folder)
        if real in seen:  # by a link, which may lead above itself
            folders.clear()
            continue
        seen.add(real)
        below = Path(folder).relative_to(path).as_posix()
        for file in files:
            name = posixpath.normpath(f"{below}/{file}")
            if _wanted(name):
                status = os.stat(os.path.join(folder, file))
                if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                    raise ValueError(f"{name} is not a regular file; remove it")
                facts[name] = status.st_size, status.st_mtime_ns
    return facts, lambda name: open(path / name, "rb")


def _hash_of(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _in_zip(path):
    with path.open("rb") as file:
        refuse_web_page(file.read(512))
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        message = f"it is not a whole zip file ({reason(error)}); copy or download it again"
        raise ValueError(message) from error
    members = {}
    for info in archive.infolist():
        name = posixpath.normpath(info.filename.replace("\\", "/"))
        if _wanted(name) and not info.is_dir():
            members[name] = info

    def opened(name):
        # Of the other methods, a few bytes could unpack to more than the memory.
        if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("neither stored nor deflated; pack it again")
        return archive.open(members[name])

    return {name: (info.file_size, info.CRC) for name, info in members.items()}, opened


@contextmanager
def reading(path):
    """Make one line that names `path` of whatever a damaged file raises in the libraries."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}") from error


def reason(error):
    """What an error says, in one line."""
    text = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
    return " ".join(text.split()) or type(error).__name__


def _wanted(name):
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    extension = posixpath.splitext(name)[1].lower()
    return not hidden and (_is_partition(name) or extension in EXTENSIONS)


def _is_partition(name):
    return posixpath.basename(name) in PARTITIONS


def refuse_web_page(content):
    """Raise ValueError where `content` begins like a page saved under a data file's name."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError("it is a saved web page; delete it and download the file again")


def decode_all(source, names):
    """Decode pictures on all cores; yield uint8 blocks [n, 3, 32, 32] in the order of `names`.

    Threads serve, because Pillow decodes and resizes without Python's lock.
    """
    bad = []
    with (
        progress(total=len(names), desc=f"decoding {source.path.name}", unit=" pictures") as bar,
        ThreadPoolExecutor() as pool,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Pillow's, of sizes that are checked and of odd metadata
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            tasks = [chunk[i : i + TASK] for i in range(0, len(chunk), TASK)]
            for block, failures in pool.map(partial(_decode_some, source.read), tasks):
                bad += failures
                bar.update(len(block))
                yield block
    if bad:
        raise ValueError(
            f"{source.path}: {len(bad):,} of {len(names):,} pictures cannot be read: "
            f"{', '.join(bad[:3])}{' …' * (len(bad) > 3)}; repair or remove them"
        )


def _decode_some(read, names):
    block, failures = np.zeros((len(names), 3, SIZE, SIZE), np.uint8), []
    for row, name in enumerate(names):
        # Damaged bytes make Pillow and zipfile raise errors of every kind.
        try:
            block[row] = _decode(read(name))
        except Exception as error:
            failures.append(f"{name} ({reason(error)})")
    return block, failures


def _decode(content):
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels; at most {MAX_PIXELS:,} are read")
        if image.format == "PNG":  # whose checksums Pillow does not compare while it decodes
            with Image.open(io.BytesIO(content), formats=["PNG"]) as unread:
                unread.verify()
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = (left, top, left + side, top + side)
        picture = _to_rgb(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=square)
    return np.asarray(picture).transpose(2, 0, 1)


def _to_rgb(image):
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
            raise ValueError("values beyond 16 bits; save it with 8 or 16 bits a channel")
        eight_bits = (values.astype(np.uint32) * 255 + 32_767) // 65_535
        image = Image.fromarray(eight_bits.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
