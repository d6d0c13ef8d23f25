import errno
import hashlib
import io
import itertools
import os
import pickle
import re
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers import full_disk, one_line
from PIL import Image

from vae_core import data, storage
from vae_core.data import DatasetMissing, cifar10, facts, files, load_dataset, permutation, permute


def encoded(image, extension="png", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, extension, **options)
    return file.getvalue()


def image(number, extension="png"):
    """A 32×32 image whose colour tells its number."""
    return encoded(Image.new("RGB", (32, 32), (number % 256, number // 256, 7)), extension)


def numbers(dataset, size=32):
    """The sorted numbers of the images in each part."""
    every = []
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.dtype == torch.uint8 and part.shape[1:] == (3, size, size)
        assert (part == part[:, :, :1, :1]).all() and (part[:, 2] == 7).all()
        every.append(sorted(int(red) + 256 * int(green) for red, green in part[:, :2, 0, 0]))
    return every


def labelled(dataset):
    """The number of each image with its class."""
    images = torch.cat([dataset.train, dataset.validation, dataset.test])
    classes = np.concatenate(dataset.labels).tolist()
    return {*zip(images[:, 0, 0, 0].tolist(), classes, strict=True)}


def sizes(dataset):
    return [len(part) for part in (dataset.train, dataset.validation, dataset.test)]


def contents(names):
    return names if isinstance(names, dict) else {n: image(i) for i, n in enumerate(names)}


def folder_of(path, names):
    """Write a folder from a dict of names to bytes, or from names of numbered images."""
    for name, content in contents(names).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def zip_of(path, names, compression=zipfile.ZIP_STORED):
    """Write a zip, as `folder_of` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents(names).items():
            archive.writestr(name, content)
    return path


def refused(kind, path, root, **options):
    """The one line with which a data set is refused."""
    with pytest.raises(kind) as error:
        load_dataset(path, root, **options)
    return one_line(error)


@pytest.fixture
def decoded(monkeypatch):
    """The list of how many images were decoded, one entry for every one."""
    calls, decode = [], files.decode
    monkeypatch.setattr(files, "decode", lambda *given: calls.append(1) or decode(*given))
    return calls


TEN = [f"{number}.png" for number in range(10)]
TWENTY = [f"{number:02d}.png" for number in range(20)]
HUNDRED = [f"{number:03d}.png" for number in range(100)]
SHARED = storage.PROJECT.parent / "shared" / "data"


@pytest.mark.parametrize("name", ["shapes", "faces"])
def test_built_in_parts_are_disjoint_draws_by_seed(name, monkeypatch, root):
    assert data.BUILT_IN[name] == (20_000, 2_000, 2_000)
    monkeypatch.setitem(data.BUILT_IN, name, (50, 20, 10))
    first, other = (load_dataset(name, root, seed=seed) for seed in (0, 1))
    every = [part for d in (first, other) for part in (d.train, d.validation, d.test)]
    assert len({bytes(image.numpy()) for part in every for image in part}) == 2 * 80
    content = b"".join(bytes(part.numpy()) for part in every[:3])
    assert first.fingerprint == hashlib.sha256(b"50,20,10" + content).hexdigest()[:16]
    assert sizes(load_dataset(name, root, limit=20)) == [20, 4, 4]
    assert sizes(load_dataset(name, root, fraction=0.3)) == [15, 20, 10]
    assert "6 train" in refused(ValueError, name, root, fraction=0.12)


@pytest.mark.parametrize(
    ("name", "options", "fingerprint"),
    [
        ("shapes", {"limit": 10}, "12f64c3e554f6d00"),
        ("faces", {"limit": 10}, "e5b4ab2c05a1f6e7"),
        ("faces", {"limit": 500, "size": 64}, "5dff7ed5eb88142c"),
        ("shapes", {"limit": 600, "seed": 3, "size": 20}, "5da25493a29198bf"),
        ("celeba-9k.zip", {}, "39fdec94e8184fdb"),
        ("cifar10-jpeg.zip", {"limit": 500, "seed": 1}, "70668af903fb39d0"),
    ],
)
def test_published_fingerprints_stay(root, name, options, fingerprint):
    path = SHARED / name if name.endswith("zip") else name
    if path != name and not path.exists():
        pytest.skip("the images of the published runs are not here")
    dataset = load_dataset(path, root, **options)
    assert dataset.fingerprint == fingerprint and dataset.size == options.get("size", 32)
    assert dataset.folder == dataset.name + (f"-{fingerprint[:8]}" if path != name else "")
    assert dataset.title == facts(path).title == data.FACTS[name.removesuffix(".zip")].title


BOTH, ALL = "train, test", "train, validation, test"


@pytest.mark.parametrize(
    ("folders", "given", "expected"),  # 100 images in each folder, and how many are in each part
    [
        (["train", "val", "test"], ALL, [100, 100, 100]),
        (["a/data/train/cat", "a/data/Valid", "a/data/TEST"], ALL, [100, 100, 100]),
        (["Training", "validation", "testing/dog/deep"], ALL, [100, 100, 100]),
        (["cat/train", "dog/val", "cat/test"], ALL, [100, 100, 100]),
        (["test/train", "test/val", "test/test"], ALL, [100, 100, 100]),
        (["train", "test"], BOTH, [95, 5, 100]),
        (["train", "val"], "train, validation", [90, 100, 10]),
        (["train"], "none", [86, 4, 10]),
        (["car", "train", "plane"], "none", [257, 13, 30]),
    ],
)
def test_given_parts_are_found_kept_and_said(tmp_path, root, folders, given, expected, capsys):
    names = [f"{folder}/{name}" for folder in folders for name in HUNDRED]
    found = numbers(load_dataset(folder_of(tmp_path / "mine", names), root))
    used = "{} train, {} validation, {} test".format(*expected)
    assert capsys.readouterr().err == f"mine: parts found: {given}; images used: {used}\n"
    assert [*map(len, found)] == expected
    assert sorted(itertools.chain(*found)) == list(range(100 * len(folders)))
    assert found[1] != list(range(5)) and found[2] != list(range(10))
    if given != "none":
        assert {n // 100 for n in found[0]} == {0} and max(found[1] + found[2]) // 100 > 0
    windows = zip_of(tmp_path / "mine.zip", [name.replace("/", "\\") for name in names])
    assert numbers(load_dataset(windows, root)) == found


def test_images_beside_the_parts_are_left_out_and_named(tmp_path, root, capsys):
    names = [f"{part}/{name}" for part in ("train", "test") for name in TEN]
    strays = [f"more/{n:02d}.png" for n in range(12)]
    path = folder_of(tmp_path / "a", [*names, *strays])
    assert sum(sizes(load_dataset(path, root))) == 20
    said = capsys.readouterr().err
    assert f"; 12 beside the parts left out: {', '.join(strays[:10])} …\n" in said
    load_dataset(path, root)
    assert capsys.readouterr().err == ""  # it was said when the cache was built


def test_parts_are_drawn_by_seed_without_replacement(tmp_path, root, decoded):
    path = zip_of(tmp_path / "a.zip", HUNDRED)
    whole, other = (numbers(load_dataset(path, root, seed=seed)) for seed in (0, 1))
    assert whole[2] != other[2] and [*map(len, whole)] == [86, 4, 10]
    decoded.clear()
    some = numbers(load_dataset(path, root, limit=10, fraction=0.5))
    assert [*map(len, some)] == [10, 2, 2] and len(decoded) == 14
    assert all(set(a) < set(b) for a, b in zip(some, whole, strict=True))
    large = load_dataset(path, root, size=48)
    assert numbers(large, 48) == whole and large.name == "a-48px"


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        ([], {}, "0 train"),
        (TEN[:9], {}, "6 train, 1 validation, 2 test"),
        (["train/a.png", *(f"test/{n}" for n in TWENTY)], {}, "0 train, 1 validation, 20 test"),
        ([*(f"train/{n}" for n in TWENTY), "test/a.png"], {}, "19 train, 1 validation, 1 test"),
        (TWENTY, {"fraction": 0.1}, "2 train"),
        (TWENTY, {"limit": 9}, "limit is 9; give a whole number of at least 10"),
    ],
)
def test_too_few_images_are_refused_before_training(tmp_path, root, names, options, expected):
    message = refused(ValueError, zip_of(tmp_path / "a.zip", names), root, **options)
    assert expected in message and "at least 10" in message
    assert sizes(load_dataset(zip_of(tmp_path / "b.zip", TEN), root)) == [7, 1, 2]


VICIOUS = ["a b", "it's", 'say "x"', "$HOME", "`id`", "a;b", "two\nlines", "花の写真", "-rf", "..z"]
VICIOUS += ["shapes", "celeba-seed1", "CIFAR10", "%s{}", "x" * 200, "…", "Ünï"]


@pytest.mark.parametrize("name", VICIOUS)
def test_any_name_works_and_becomes_a_safe_one(tmp_path, root, name, capsys):
    folder = folder_of(tmp_path / name, [f"{n}{name}.png" for n in range(10)])
    for path in (folder, zip_of(tmp_path / "zip" / f"{name}.zip", TEN)):
        capsys.readouterr()
        dataset = load_dataset(path, root, seed=np.int64(2), limit=np.int32(10), size=np.int64(32))
        assert capsys.readouterr().err.count("\n") == 1
        slug = dataset.name.removesuffix("-limit10-seed2")
        assert re.fullmatch(r"[\w.-]{1,70}", slug) and slug[0] not in ".-"
        assert slug.lower() not in ("shapes", "celeba-seed1", "cifar10")
        assert dataset.folder == f"{dataset.name}-{dataset.fingerprint[:8]}"
        assert facts(path).title == slug and facts(path).epochs == 100
        (path / f"0{name}.png" if path.is_dir() else path).write_bytes(b"")
        assert refused(ValueError, path, root).count("cannot be read") == 1


def test_names_and_facts_are_exact(tmp_path, root, monkeypatch):
    for near in ("my faces", "of celeba stars", "Shapes", "./shapes", "celeba.zip"):
        assert facts(near).fraction == 1 and facts(near).epochs == 100
    assert facts("faces").epochs == 4
    whole = np.diff([0, *data.celeba.LAST.values()]).tolist()
    assert data.parts.counts("", whole, None, facts("celeba").fraction) == [48_831, 19_867, 19_962]
    options = {"seed": 1, "limit": 10, "fraction": 0.7, "size": 16}
    dataset = load_dataset(zip_of(tmp_path / "my images (2).zip", TWENTY), root, **options)
    assert dataset.name == "my-images-2-fraction0.7-limit10-seed1-16px"
    folder_of(tmp_path / "shapes", TEN)
    monkeypatch.chdir(tmp_path / "shapes")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (".", "~/shapes", "../shapes"):
        assert load_dataset(path, root).name == "shapes-files"


@pytest.mark.parametrize("make", [folder_of, zip_of])
def test_classes_are_the_folders_of_the_images_in_their_order(tmp_path, root, make):
    names = [f"{part}/{n % 3}/{n}.png" for part in ("train", "test") for n in range(30)]
    made = make(tmp_path / "sorted.zip", names)
    for _ in range(2):  # decoded, then from the cache
        found = labelled(load_dataset(made, root, limit=20, permuted=0.5))
        assert len(found) == 25 and all(str(n % 30 % 3) == name for n, name in found)


def test_classes_of_shapes_are_their_kinds_and_those_of_faces_are_not_known(tmp_path, root):
    shapes = load_dataset("shapes", root, limit=10)
    kinds = data.synthetic.draw_factors("shapes", 10, 0)["kind"]
    assert shapes.labels[0].tolist() == [data.synthetic.KINDS[kind] for kind in kinds]
    for name in ("faces", folder_of(tmp_path / "flat", TEN)):
        with pytest.raises(ValueError, match=r"classes of .* are not known; give each a folder"):
            _ = load_dataset(name, root, limit=10 if name == "faces" else None).labels


@pytest.mark.parametrize("name", ["mnist", "", "no/such/path.zip", "a\0b", "~", None, "x" * 5000])
def test_unknown_name_lists_the_known_ones(root, name, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    message = refused(FileNotFoundError, name, root)
    assert "shapes, faces, cifar10, celeba" in message and "folder or zip" in message


@pytest.mark.parametrize(("share", "moved"), [(0, 0), (0.01, 0), (0.02, 2), (0.31, 31), (1, 100)])
def test_a_permutation_moves_what_it_should_and_is_an_order(share, moved):
    for seed in range(3):
        order = permutation(100, share, seed)
        assert int((order != torch.arange(100)).sum()) == moved
        assert order.sort().values.tolist() == [*range(100)]


def test_an_order_of_other_places_is_refused():
    for order in (torch.arange(9), torch.zeros(16, dtype=int), torch.arange(1, 17)):
        with pytest.raises(ValueError, match="none of 16 places") as error:
            permute(torch.zeros(1, 3, 4, 4), order)
        one_line(error)


def test_a_permuted_set_is_another_one_and_the_same_at_every_call(root):
    usual = load_dataset("shapes", root, limit=20)
    sets = [load_dataset("shapes", root, limit=20, permuted=share) for share in (0.5, 1.0, 1.0)]
    assert len({usual.folder, *(one.folder for one in sets)}) == 3
    assert len({usual.fingerprint, *(one.fingerprint for one in sets)}) == 3
    assert torch.equal(sets[1].train, sets[2].train) and sets[1].title != usual.title
    order = permutation(32 * 32, 1.0)
    places = sets[1].test.flatten(2)
    assert torch.equal(places, usual.test.flatten(2)[:, :, order])
    assert torch.equal(permute(sets[1].test, order.argsort()), usual.test)


def test_the_project_is_no_data_set(root, monkeypatch):
    monkeypatch.chdir(storage.PROJECT)
    for path in (".", "..", storage.PROJECT, "/"):
        assert "holds this project" in refused(ValueError, path, root)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("limit", (0, -1, 9, 25.5, "10", True, float("nan"))),
        ("fraction", (0, -0.1, 1.01, "0.3", None, float("nan"), True)),
        ("seed", (-1, 0.5, None, "0", False)),
        ("size", (7, 257, 32.0, "32", None, True)),
        ("permuted", (-0.1, 1.01, "0.3", None, float("nan"), True)),
    ],
)
def test_senseless_options(root, option, values):
    for value in values:
        assert f"{option} is {value!r}" in refused(ValueError, "shapes", root, **{option: value})


@pytest.fixture
def cached(tmp_path, root, decoded, capsys):
    """A zip, the file of its cache and its fingerprint."""
    source = zip_of(tmp_path / "a.zip", TWENTY)
    fingerprint = load_dataset(source, root).fingerprint
    assert len(decoded) == 20
    decoded.clear()
    capsys.readouterr()
    return source, next((root / "cache").glob("*.u8")), fingerprint


def test_cache_is_used_and_is_left_alone(cached, root, decoded, capsys, monkeypatch):
    source, _, fingerprint = cached
    load_dataset(source, root).train.zero_()
    dataset = load_dataset(source, root)
    assert dataset.fingerprint == fingerprint and dataset.train.any() and decoded == []
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(data, "CODE", "another")
    load_dataset(source, root)
    assert len(decoded) == 20


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: flip(content, 50_000),
        lambda content: flip(content, 4096),
        lambda content: flip(content, content.index(b"17")),
        lambda content: flip(content, content.index(b'"]') - 1),
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
        lambda content: b"[" * 100_000,
        lambda content: content.replace(b"[17, 1, 2]", b"[16, 2, 2]"),
        lambda content: content.replace(b"a-", b"b-", 1),  # another set's
        None,
    ],
)
def test_damaged_cache_is_rebuilt(cached, root, decoded, capsys, damage):
    source, path, fingerprint = cached
    before = path.read_bytes()
    path.write_bytes(damage(before)) if damage else path.unlink()
    assert not damage or path.read_bytes() != before
    for expected in (20, 0):
        assert load_dataset(source, root).fingerprint == fingerprint
        assert len(decoded) == expected and path.read_bytes() == before
        assert ("damaged" in capsys.readouterr().err) == bool(expected and damage)
        decoded.clear()


@pytest.mark.parametrize("make", [zip_of, folder_of])
def test_replaced_images_of_the_same_sizes_and_times_are_noticed(tmp_path, root, make):
    images = {f"{n}.bmp": image(n, "bmp") for n in range(10)}
    path = make(tmp_path / "a.zip", images)
    before = load_dataset(path, root).fingerprint
    times = {file: file.stat() for file in (path, *path.glob("*"))}
    make(path, images | {"0.bmp": image(99, "bmp")})
    for file, status in times.items():
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_size == status.st_size
    assert load_dataset(path, root).fingerprint != before


def test_two_at_once_build_once(tmp_path, root, decoded):
    source = zip_of(tmp_path / "a.zip", TWENTY)
    with ThreadPoolExecutor(3) as pool:
        assert len({*pool.map(lambda _: load_dataset(source, root).fingerprint, range(3))}) == 1
    assert len(decoded) == 20


def test_full_disk_leaves_nothing(tmp_path, root, monkeypatch):
    source = zip_of(tmp_path / "a.zip", TWENTY)
    (tmp_path / "file").touch()
    assert "could not be written" in refused(OSError, source, tmp_path / "file")
    threads = threading.active_count()
    with full_disk(30_000), pytest.raises(OSError, match="could not be written") as error:
        load_dataset(source, root)
    assert "(File too large" in one_line(error)
    assert threading.active_count() == threads  # though the error keeps what was going on

    # Some file systems say so no earlier.
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=full))
    assert "could not be written (No space left" in refused(OSError, source, root)
    assert {file.suffix for file in (root / "cache").iterdir()} == {".lock"}


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux lists mapped files there")
def test_a_cached_set_is_mapped_into_memory(cached, root):
    source, path, _ = cached
    assert str(path) not in Path("/proc/self/maps").read_text()
    dataset = load_dataset(source, root)
    assert str(path) in Path("/proc/self/maps").read_text() and len(dataset.train) == 17


PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>" + b" " * 90_000


class Answer(io.BytesIO):
    """What a server sends."""

    length = None


def tiny_cifar(monkeypatch, folder, answer=None):
    """Write a tiny CIFAR-10, make its MD5 sums the known ones, and let a server give `answer`."""

    def written(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    def urlopen(request, timeout):
        assert request.full_url == kind.url and timeout == 30
        if answer is None:
            raise OSError("no network")
        return answer

    folder.mkdir(parents=True)
    rows = np.repeat(np.array([[n, 0, 7] for n in range(60)], np.uint8), 1024, axis=1)
    rows[50, 40] = 99  # the red of a pixel, in line 1 and column 8
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    batches = [{"data": some, "labels": [0, 1] * 5} for some in np.split(rows, 6)]
    sums = list(map(written, names, batches))
    name, md5 = written("batches.meta", {"label_names": ["thing", "being"]})
    meta = {"filename": name, "key": "label_names", "md5": md5}
    known = {"train_list": sums[:5], "test_list": sums[5:], "meta": meta}
    kind = type("TinyCIFAR10", (cifar10.torchvision_cifar10(),), known)
    monkeypatch.setattr(cifar10, "torchvision_cifar10", lambda: kind)
    monkeypatch.setattr(cifar10, "urlopen", urlopen)
    return kind


def test_cifar10(root, monkeypatch):
    tiny_cifar(monkeypatch, root / "cifar-10-batches-py")
    dataset = load_dataset("cifar10", root)
    assert (dataset.name, dataset.folder, dataset.title) == ("cifar10", "cifar10", "CIFAR-10")
    (marked,) = (dataset.test == 99).nonzero().tolist()
    assert marked[1:] == [0, 1, 8] and dataset.test[marked[0], 0, 0, 0] == 50
    dataset.test[marked[0], 0] = 50
    train, validation, test = numbers(dataset)
    assert sorted(train + validation) == list(range(50)) and test == list(range(50, 60))
    assert labelled(dataset) == {(n, ["thing", "being"][n % 2]) for n in range(60)}
    other = load_dataset("cifar10", root, seed=1, fraction=0.2, size=64)
    assert other.name == "cifar10-fraction0.2-seed1-64px" and sizes(other) == [10, 2, 10]
    assert other.test.shape == (10, 3, 64, 64)
    for file in (root / "cifar-10-batches-py").iterdir():
        file.unlink()
    assert load_dataset("cifar10", root).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("given", ["nothing", "a page", "the archive"])
def test_cifar10_is_downloaded(tmp_path, root, monkeypatch, capsys, given):
    folder, archive = tmp_path / "cifar-10-batches-py", tmp_path / "cifar.tar.gz"
    kind = tiny_cifar(monkeypatch, folder, answer := Answer(PAGE))
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    kind.tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    place = root / kind.filename
    if given != "nothing":
        folder_of(root, {place.name: PAGE if given == "a page" else archive.read_bytes()})
    if given != "the archive":
        assert "what came is not the genuine file" in refused(DatasetMissing, "cifar10", root)
        assert place.read_bytes() == PAGE if given == "a page" else not place.exists()
        answer.__init__(archive.read_bytes())
    assert sizes(load_dataset("cifar10", root)) == [48, 2, 10]
    assert answer.closed == (given != "the archive") and capsys.readouterr().err.count("\n") == 1


def test_a_download_that_drips_is_given_up(tmp_path, root, monkeypatch):
    answer = Answer()
    answer.read1 = lambda size: time.sleep(0.02) or b"x"  # a byte at a time, without an end
    kind = tiny_cifar(monkeypatch, tmp_path / "cifar-10-batches-py", answer)
    monkeypatch.setattr(cifar10, "PATIENCE", 0.3)
    assert "given up after 0 s at 0.0 kB/s" in refused(DatasetMissing, "cifar10", root)
    assert not (root / kind.filename).exists()


class Trap(str):
    """Pickled, it creates a file where it is loaded."""

    def __reduce__(self):
        return open, (str(self), "w")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_foreign_pickles_are_not_loaded(root, tmp_path, name, monkeypatch):
    tiny_cifar(monkeypatch, root / "cifar-10-batches-py")
    folder_of(root, {f"cifar-10-batches-py/{name}": pickle.dumps(Trap(tmp_path / "sprung"))})
    message = refused(DatasetMissing, "cifar10", root)
    assert f"no genuine CIFAR-10 is in {root}, and it could not be downloaded" in message
    assert "put cifar-10-python.tar.gz or cifar-10-batches-py there" in message
    assert not (tmp_path / "sprung").exists()


FACES = [*range(1, 21), 162_770, 162_771, 170_000, 182_637, 182_638, 202_599]
FACE_NAMES = [f"{number:06d}.jpg" for number in FACES]
OFFICIAL = [list(range(21)), [21, 22, 23], [24, 25]]
# Unlike the official partition, so that a test sees which was used
LISTED = [[n for n in range(26) if max(n - 18, 0) % 3 == part] for part in range(3)]
PART = {FACE_NAMES[n]: part for part in range(3) for n in LISTED[part]}
TXT = "".join(f"{name} {part}\n" for name, part in PART.items())
CSV = "image_id,partition\n" + "".join(f"{name},{part}\r\n" for name, part in PART.items())


def celeba_in(base, layout):
    if layout == "zip":
        zip_of(base / "img_align_celeba.zip", [f"img_align_celeba/{n}" for n in FACE_NAMES])
    else:
        kaggle = "img_align_celeba" if layout == "kaggle" else ""
        folder_of(base / "img_align_celeba" / kaggle, FACE_NAMES)
        (base / "img_align_celeba.zip").write_bytes(b"half a download")  # beside the whole folder
    return base


@pytest.mark.parametrize("layout", ["folder", "zip", "kaggle"])
@pytest.mark.parametrize(("kind", "text"), [("txt", ""), ("txt", TXT), ("csv", CSV)])
def test_celeba_layouts(root, layout, kind, text, capsys):
    base = celeba_in(root / "celeba", layout)
    if text:
        assert numbers(load_dataset("celeba", root)) == OFFICIAL
        (base / f"list_eval_partition.{kind}").write_text("\ufeff" + text, "utf-8")
        capsys.readouterr()
    dataset = load_dataset("celeba", root)
    assert numbers(dataset) == (LISTED if text else OFFICIAL) and dataset.name == "celeba"
    said = "202,573 of the 202,599 images of CelebA are absent" in capsys.readouterr().err
    assert said == (not text)
    for path in (base, base / f"img_align_celeba{'.zip' * (layout == 'zip')}"):
        assert load_dataset(path, root).fingerprint == dataset.fingerprint
    assert load_dataset(path, root).title == dataset.title == "CelebA"


def test_copies_of_celeba_and_what_is_none(tmp_path, root):
    images = {f"img_align_celeba/{n}": image(i) for i, n in enumerate(FACE_NAMES)}
    path = zip_of(tmp_path / "archive.zip", images | {"list_eval_partition.csv": CSV.encode()})
    assert numbers(load_dataset(path, root)) == LISTED
    both = {"list_eval_partition.txt": TXT.encode(), "list_eval_partition.csv": b"junk"}
    assert numbers(load_dataset(zip_of(tmp_path / "both.zip", images | both), root)) == LISTED
    first = [f"img_align_celeba/{n:06d}.jpg" for n in range(1, 31)]
    assert sizes(load_dataset(zip_of(tmp_path / "celeba-9k.zip", first), root)) == [26, 1, 3]
    zip_of(root / "celeba" / "img_align_celeba.zip", first)
    assert "30 train, 0 validation, 0 test" in refused(ValueError, "celeba", root)
    mixed = zip_of(tmp_path / "a.zip", [*FACE_NAMES, "cat.jpg"])
    assert sizes(load_dataset(mixed, root)) == [24, 1, 2]
    folder_of(tmp_path / "mine" / "img_align_celeba", TEN)
    (tmp_path / "mine" / "list_eval_partition.txt").write_text(TXT)
    assert sizes(load_dataset(tmp_path / "mine" / "img_align_celeba", root)) == [7, 1, 2]


def test_missing_celeba_says_what_to_put_where(root):
    message = refused(DatasetMissing, "celeba", root)
    assert "img_align_celeba.zip and list_eval_partition.txt (" in message
    assert f"put them in {root / 'celeba'}, " in message


@pytest.mark.parametrize(
    "text", ["", "junk", TXT + "000001.jpg 3\n", TXT + "\0\xff\n", PAGE.decode()]
)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("img_align_celeba.zip", "it is not a whole zip file; copy or download it again"),
        ("list_eval_partition.txt", "not every line of ../list_eval_partition.txt is like '000001"),
    ],
)
def test_wrecked_celeba(root, name, text, reason):
    (celeba_in(root / "celeba", "zip") / name).write_text(text)
    message = refused(ValueError, "celeba", root)
    assert f"{root}/celeba/img_align_celeba.zip cannot be read: {reason}" in message
