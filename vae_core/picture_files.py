"""Picture files of a folder or zip: found without reading them, and decoded to 32×32 RGB."""

import hashlib
import io
import json
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
    """The files of a folder or zip (or of the img_align_celeba.zip in a folder without pictures).

    Raises ValueError, one line that names `path`, where it cannot be read.
    """
    with reading(path):
        if path.is_file():
            return _Zip(path)
        folder, archive = _Folder(path), path / "img_align_celeba.zip"
        return folder if folder.pictures or not archive.is_file() else _Zip(archive)


class _Files:
    """The picture and partition files of a folder or zip, by names with forward slashes.

    `identity` tells cheaply whether the content is still the same; `names` and `read(name)` are
    the content. A partition file may also lie beside what is called img_align_celeba.
    """

    def __init__(self, path):
        self.path, self.beside = path, None
        identity = self.identify()
        for file in (path.absolute().with_name(name) for name in PARTITIONS):
            if path.stem == "img_align_celeba" and file.is_file():
                self.beside = file, file.read_bytes()
                identity.update(self.beside[1])
        self.identity = identity.hexdigest()

    @cached_property
    def pictures(self):
        return [name for name in self.names if posixpath.basename(name) not in PARTITIONS]

    def partition(self):
        inside = [name for name in self.names if posixpath.basename(name) in PARTITIONS]
        return (self.path / inside[0], self.read(inside[0])) if inside else self.beside


class _Folder(_Files):
    def identify(self):
        self.stats, seen = {}, set()
        for folder, folders, files in os.walk(self.path, onerror=_raise, followlinks=True):
            folders.sort()
            real = os.path.realpath(folder)
            if real in seen:  # by a link, which may lead above itself
                folders.clear()
                continue
            seen.add(real)
            below = Path(folder).relative_to(self.path).as_posix()
            for file in files:
                name = file if below == "." else f"{below}/{file}"
                if _wanted(name):
                    self.stats[name] = stats = os.stat(os.path.join(folder, file))
                    if not stat.S_ISREG(stats.st_mode):  # opening a pipe would wait for ever
                        raise ValueError(f"{name} is not a regular file; remove it")
        self.names = sorted(self.stats)
        facts = [(n, self.stats[n].st_size, self.stats[n].st_mtime_ns) for n in self.names]
        return hashlib.sha256(json.dumps(facts).encode())

    def read(self, name):
        _refuse_size(self.stats[name].st_size)
        return (self.path / name).read_bytes()


class _Zip(_Files):
    def identify(self):
        with self.path.open("rb") as file:
            refuse_web_page(file.read(512))
            # The directory at the end holds names, sizes and checksums. It begins where the last
            # record says; the whole file serves where that is not to be found.
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_557))
            _, record, last = file.read().rpartition(b"PK\5\6")
            start = int.from_bytes(last[12:16], "little") if record else 0
            file.seek(start if start < size else 0)
            identity = hashlib.sha256(str(size).encode())
            for block in iter(partial(file.read, 1 << 20), b""):
                identity.update(block)
        return identity

    @cached_property
    def members(self):
        try:
            self.archive = zipfile.ZipFile(self.path)
        except Exception as error:
            message = f"it is not a whole zip file ({reason(error)}); copy or download it again"
            raise ValueError(message) from error
        members = {}
        for info in self.archive.infolist():
            name = posixpath.normpath(info.filename.replace("\\", "/"))
            if info.is_dir() or not _wanted(name):
                continue
            if info.flag_bits & 1:
                raise ValueError(f"{name} is encrypted; pack it without a password")
            # Of the other methods, a few bytes could unpack to more than the memory.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is neither stored nor deflated; pack it again")
            members[name] = info
        return members

    @cached_property
    def names(self):
        return sorted(self.members)

    def read(self, name):
        info = self.members[name]
        _refuse_size(info.file_size)
        with self.archive.open(info) as member:
            return member.read(info.file_size)


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


def _raise(error):
    raise error


def _wanted(name):
    parts = name.split("/")
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return False
    return parts[-1] in PARTITIONS or posixpath.splitext(name)[1].lower() in EXTENSIONS


def refuse_web_page(content):
    """Raise ValueError where `content` begins like a page saved under a data file's name."""
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError("it is a saved web page; delete it and download the file again")


def _refuse_size(size):
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes; at most {MAX_BYTES:,} are read")


def decode_all(source, names):
    """Decode pictures on all cores; yield uint8 blocks [n, 3, 32, 32] in the order of `names`.

    Threads serve, because Pillow decodes and resizes without Python's lock.
    """
    bad = []
    with (
        progress(total=len(names), desc=f"decoding {source.path.name}", unit=" pictures") as bar,
        ThreadPoolExecutor(_cores()) as pool,
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


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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
