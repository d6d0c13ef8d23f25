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

from vae_core import storage
from vae_core.data import (
    DatasetMissing,
    cache,
    celeba,
    cifar10,
    dataset,
    dataset_info,
    image_files,
    load_dataset,
    loading,
    permute_pixels,
    pixel_permutation,
    splits,
    synthetic,
)


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
    sorted_numbers = []
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.dtype == torch.uint8
        assert part.shape[1:] == (3, size, size)
        assert (part == part[:, :, :1, :1]).all()
        assert (part[:, 2] == 7).all()
        colours = part[:, :2, 0, 0].tolist()
        sorted_numbers.append(sorted(red + 256 * green for red, green in colours))
    return sorted_numbers


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


def refused(error_type, path, root, **options):
    """The one line with which a data set is refused."""
    with pytest.raises(error_type) as error:
        load_dataset(path, root, **options)
    return one_line(error)


@pytest.fixture
def decoded(monkeypatch):
    """The list of how many images were decoded, one entry for every one."""
    calls, decode = [], image_files.decode
    monkeypatch.setattr(image_files, "decode", lambda *args: calls.append(1) or decode(*args))
    return calls


TEN = [f"{number}.png" for number in range(10)]
TWENTY = [f"{number:02d}.png" for number in range(20)]
HUNDRED = [f"{number:03d}.png" for number in range(100)]
SHARED = storage.PROJECT.parent / "shared" / "data"


@pytest.mark.parametrize("name", ["shapes", "faces"])
def test_built_in_parts_are_disjoint_samples_by_seed(name, monkeypatch, root):
    assert dataset.BUILT_IN_SIZES[name] == (20_000, 2_000, 2_000)
    monkeypatch.setitem(dataset.BUILT_IN_SIZES, name, (50, 20, 10))
    first, other = load_dataset(name, root, seed=0), load_dataset(name, root, seed=1)
    images = torch.cat(
        [d_part for d in (first, other) for d_part in (d.train, d.validation, d.test)]
    )
    assert len({bytes(image.numpy()) for image in images}) == 2 * 80
    content = bytes(images[:80].numpy())
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
    loaded = load_dataset(path, root, **options)
    assert loaded.fingerprint == fingerprint
    assert loaded.size == options.get("size", 32)
    assert loaded.folder == loaded.name + (f"-{fingerprint[:8]}" if path != name else "")
    title = dataset.INFO[name.removesuffix(".zip")].title
    assert loaded.title == dataset_info(path).title == title


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
def test_parts_are_recognised_kept_and_reported(tmp_path, root, folders, given, expected, capsys):
    names = [f"{folder}/{name}" for folder in folders for name in HUNDRED]
    parts = numbers(load_dataset(folder_of(tmp_path / "mine", names), root))
    used = "{} train, {} validation, {} test".format(*expected)
    message = capsys.readouterr().err
    assert f"mine: parts found: {given}; images used: {used}\n" in message
    assert ("train" in message.splitlines()[0].partition("not used")[2]) == ("car" in folders)
    assert [*map(len, parts)] == expected
    assert sorted(itertools.chain(*parts)) == list(range(100 * len(folders)))
    assert parts[1] != list(range(5))
    assert parts[2] != list(range(10))
    if given != "none":
        assert {n // 100 for n in parts[0]} == {0}
        assert max(parts[1] + parts[2]) // 100 > 0
    windows = zip_of(tmp_path / "mine.zip", [name.replace("/", "\\") for name in names])
    assert numbers(load_dataset(windows, root)) == parts


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("training_set", "train"),
        ("train_images", "train"),
        ("01-Train", "train"),
        ("trainset", "train"),
        ("test_set.2", "test"),
        ("test-images", "test"),
        ("eval", "test"),
        ("evaluation data", "test"),
        ("dev", "validation"),
        ("VAL", "validation"),
        ("trains", None),
        ("train cars", None),
        ("my test", None),
        ("latest", None),
        ("12", None),
    ],
)
def test_folder_names_that_mean_a_part(folder, part):
    assert splits.part_of_folder(folder) == part


def test_images_outside_the_parts_are_left_out_and_named(tmp_path, root, capsys):
    names = [f"{part}/{name}" for part in ("train", "test") for name in TEN]
    strays = [f"more/{n:02d}.png" for n in range(12)]
    path = folder_of(tmp_path / "a", [*names, *strays])
    assert sum(sizes(load_dataset(path, root))) == 20
    assert f"12 outside the parts left out: {', '.join(strays[:10])} …" in capsys.readouterr().err
    load_dataset(path, root)
    assert capsys.readouterr().err == ""  # it is reported when the cache is built


def test_parts_are_sampled_by_seed_without_replacement(tmp_path, root, decoded):
    path = zip_of(tmp_path / "a.zip", HUNDRED)
    whole, other = (numbers(load_dataset(path, root, seed=seed)) for seed in (0, 1))
    assert whole[2] != other[2] and [*map(len, whole)] == [86, 4, 10]
    decoded.clear()
    fewer = numbers(load_dataset(path, root, limit=10, fraction=0.5))
    assert [*map(len, fewer)] == [10, 2, 2]
    assert len(decoded) == 14
    assert all(set(a) < set(b) for a, b in zip(fewer, whole, strict=True))
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


VICIOUS = ["two\nlines; `id`", "花の写真", "..z", "shapes", "CIFAR10", "x" * 200]


@pytest.mark.parametrize("name", VICIOUS)
def test_any_name_works_and_becomes_a_safe_one(tmp_path, root, name, capsys):
    folder = folder_of(tmp_path / name, [f"{n}{name}.png" for n in range(10)])
    for path in (folder, zip_of(tmp_path / "zip" / f"{name}.zip", TEN)):
        capsys.readouterr()
        loaded = load_dataset(path, root, seed=np.int64(2), limit=np.int32(10), size=np.int64(32))
        assert capsys.readouterr().err.count("\n") == 1
        slug = loaded.name.removesuffix("-limit10-seed2")
        assert re.fullmatch(r"[\w.-]{1,70}", slug) and slug[0] not in ".-"
        assert slug.lower() not in ("shapes", "cifar10")
        assert loaded.folder == f"{loaded.name}-{loaded.fingerprint[:8]}"
        assert dataset_info(path).title == slug and dataset_info(path).epochs == 100
        (path / f"0{name}.png" if path.is_dir() else path).write_bytes(b"")
        assert refused(ValueError, path, root).count("cannot be read") == 1


def test_names_and_facts_are_exact(tmp_path, root, monkeypatch):
    for near in ("my faces", "of celeba stars", "Shapes", "./shapes", "celeba.zip"):
        assert dataset_info(near).fraction == 1 and dataset_info(near).epochs == 100
    assert dataset_info("faces").epochs == 4
    whole = np.diff([0, *celeba.LAST_NUMBER.values()]).tolist()
    fraction = dataset_info("celeba").fraction
    assert splits.split_sizes("", whole, limit=None, fraction=fraction) == [48_831, 19_867, 19_962]
    options = {"seed": 1, "limit": 10, "fraction": 0.7, "size": 16}
    loaded = load_dataset(zip_of(tmp_path / "my images (2).zip", TWENTY), root, **options)
    assert loaded.name == "my-images-2-fraction0.7-limit10-seed1-16px"
    folder_of(tmp_path / "shapes", TEN)
    monkeypatch.chdir(tmp_path / "shapes")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (".", "~/shapes", "../shapes"):
        assert load_dataset(path, root).name == "shapes-files"


@pytest.mark.parametrize("make", [folder_of, zip_of])
def test_labels_are_the_folders_of_the_images_in_their_order(tmp_path, root, make):
    names = [f"{part}/{n % 3}/{n}.png" for part in ("train", "test") for n in range(30)]
    made = make(tmp_path / "sorted.zip", names)
    for _ in range(2):  # decoded, then from the cache
        labels = labelled(load_dataset(made, root, limit=20, permuted=0.5))
        assert len(labels) == 25
        assert all(str(n % 30 % 3) == name for n, name in labels)


def test_labels_are_those_of_the_images_that_were_loaded(tmp_path, root, capsys):
    path = folder_of(
        tmp_path / "a", [f"{'cat' if n % 2 else 'dog'}/{n:02d}.png" for n in range(20)]
    )
    loaded = load_dataset(path, root)
    expected = labelled(loaded)
    capsys.readouterr()
    folder_of(path, {"ant/0.png": image(77)})  # a file that is added afterwards
    assert labelled(loaded) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "names",
    [
        TEN,  # no folders
        [f"cat/{name}" for name in TEN],  # one class
        [*(f"train/{animal}/{name}" for animal in ("cat", "dog") for name in TEN), "test/a.png"],
        [*(f"train/{name}" for name in TEN), *(f"test/{name}" for name in TEN)],
    ],
)
def test_labels_are_none_where_a_class_is_unknown_or_the_only_one(tmp_path, root, names):
    names = [*names, *(f"{name.rpartition('/')[0]}/more.png".lstrip("/") for name in names[-1:])]
    assert load_dataset(folder_of(tmp_path / "a", names), root).labels is None


def test_labels_of_shapes_are_their_kinds_and_those_of_faces_are_unknown(root):
    loaded = load_dataset("shapes", root, limit=10)
    kinds = synthetic.draw_factors("shapes", 10, 0)["kind"]
    assert loaded.labels[0].tolist() == [synthetic.KINDS[number] for number in kinds]
    assert load_dataset("faces", root, limit=10).labels is None


@pytest.mark.parametrize("name", ["mnist", "", "no/such/path.zip", "a\0b", "~", None, "x" * 5000])
def test_unknown_name_lists_the_known_ones(root, name, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    message = refused(FileNotFoundError, name, root)
    assert "shapes, faces, cifar10, celeba" in message and "folder or zip" in message


@pytest.mark.parametrize(("share", "moved"), [(0, 0), (0.01, 0), (0.02, 2), (0.31, 31), (1, 100)])
def test_a_permutation_moves_the_share_that_it_should(share, moved):
    for seed in range(3):
        order = pixel_permutation(100, share, seed)
        assert int((order != torch.arange(100)).sum()) == moved
        assert order.sort().values.tolist() == [*range(100)]


def test_an_order_of_other_pixels_is_refused():
    for order in (torch.arange(9), torch.zeros(16, dtype=int), torch.arange(1, 17)):
        with pytest.raises(ValueError, match="16 pixels") as error:
            permute_pixels(torch.zeros(1, 3, 4, 4), order)
        one_line(error)


def test_a_permuted_set_is_another_one_and_the_same_at_every_call(root):
    usual = load_dataset("shapes", root, limit=20)
    sets = [load_dataset("shapes", root, limit=20, permuted=share) for share in (0.5, 1.0, 1.0)]
    assert len({usual.folder, *(permuted.folder for permuted in sets)}) == 3
    assert len({usual.fingerprint, *(permuted.fingerprint for permuted in sets)}) == 3
    assert torch.equal(sets[1].train, sets[2].train) and sets[1].title != usual.title
    order = pixel_permutation(32 * 32, 1.0)
    places = sets[1].test.flatten(2)
    assert torch.equal(places, usual.test.flatten(2)[:, :, order])
    assert torch.equal(permute_pixels(sets[1].test, order.argsort()), usual.test)


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
def test_an_invalid_option_is_named(root, option, values):
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
    loaded = load_dataset(source, root)
    assert loaded.fingerprint == fingerprint
    assert loaded.train.any()
    assert decoded == []
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(loading, "CODE", "another")
    load_dataset(source, root)
    assert len(decoded) == 20


def test_a_changed_data_set_has_one_cache(tmp_path, root, capsys, monkeypatch):
    monkeypatch.setattr(cache, "LARGE_GIGABYTES", 1e-6)
    path, other = folder_of(tmp_path / "a", TEN), folder_of(tmp_path / "b" / "a", TWENTY)
    load_dataset(other, root)
    for n in range(3):
        folder_of(path, {f"more{n}.png": image(n)})
        assert "GB" in (load_dataset(path, root) and capsys.readouterr().err)
        load_dataset(path, root, size=16)
    assert len(list((root / "cache").glob("*.u8"))) == 3  # two sizes of one, and the other


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: flip(content, 50_000),
        lambda content: flip(content, 4096),
        lambda content: flip(content, content.index(b"17")),
        lambda content: flip(content, content.index(b'", "labels"') - 1),
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
    loaded = load_dataset(source, root)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert len(loaded.train) == 17


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
        assert request.full_url == genuine.url and timeout == 30
        if answer is None:
            raise OSError("no network")
        return answer

    folder.mkdir(parents=True)
    rows = np.repeat(np.array([[n, 0, 7] for n in range(60)], np.uint8), 1024, axis=1)
    rows[50, 40] = 99  # the red of a pixel, in line 1 and column 8
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    batches = [{"data": batch, "labels": [0, 1] * 5} for batch in np.split(rows, 6)]
    sums = list(map(written, names, batches))
    name, md5 = written("batches.meta", {"label_names": ["thing", "being"]})
    meta = {"filename": name, "key": "label_names", "md5": md5}
    known = {"train_list": sums[:5], "test_list": sums[5:], "meta": meta}
    genuine = type("TinyCIFAR10", (cifar10.import_torchvision_cifar10(),), known)
    monkeypatch.setattr(cifar10, "import_torchvision_cifar10", lambda: genuine)
    monkeypatch.setattr(cifar10, "urlopen", urlopen)
    return genuine


def test_cifar10(root, monkeypatch):
    tiny_cifar(monkeypatch, root / "cifar-10-batches-py")
    loaded = load_dataset("cifar10", root)
    assert (loaded.name, loaded.folder, loaded.title) == ("cifar10", "cifar10", "CIFAR-10")
    (marked,) = (loaded.test == 99).nonzero().tolist()
    assert marked[1:] == [0, 1, 8] and loaded.test[marked[0], 0, 0, 0] == 50
    loaded.test[marked[0], 0] = 50
    train, validation, test = numbers(loaded)
    assert sorted(train + validation) == list(range(50)) and test == list(range(50, 60))
    assert labelled(loaded) == {(n, ["thing", "being"][n % 2]) for n in range(60)}
    other = load_dataset("cifar10", root, seed=1, fraction=0.2, size=64)
    assert other.name == "cifar10-fraction0.2-seed1-64px" and sizes(other) == [10, 2, 10]
    assert other.test.shape == (10, 3, 64, 64)
    for file in (root / "cifar-10-batches-py").iterdir():
        file.unlink()
    assert load_dataset("cifar10", root).fingerprint == loaded.fingerprint


@pytest.mark.parametrize("given", ["nothing", "a page", "the archive"])
def test_cifar10_is_downloaded(tmp_path, root, monkeypatch, capsys, given):
    folder, archive = tmp_path / "cifar-10-batches-py", tmp_path / "cifar.tar.gz"
    genuine = tiny_cifar(monkeypatch, folder, answer := Answer(PAGE))
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    genuine.tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    place = root / genuine.filename
    if given != "nothing":
        folder_of(root, {place.name: PAGE if given == "a page" else archive.read_bytes()})
    if given != "the archive":
        assert "it is a web page" in refused(DatasetMissing, "cifar10", root)
        assert place.read_bytes() == PAGE if given == "a page" else not place.exists()
        answer.__init__(archive.read_bytes())
    assert sizes(load_dataset("cifar10", root)) == [48, 2, 10]
    assert answer.closed == (given != "the archive") and capsys.readouterr().err.count("\n") == 1


def test_a_download_that_stalls_is_given_up(tmp_path, root, monkeypatch):
    answer = Answer()
    answer.read1 = lambda size: time.sleep(0.02) or b"x"  # a byte at a time, without an end
    genuine = tiny_cifar(monkeypatch, tmp_path / "cifar-10-batches-py", answer)
    monkeypatch.setattr(cifar10, "PATIENCE", 0.3)
    assert "given up" in refused(DatasetMissing, "cifar10", root)
    assert not (root / genuine.filename).exists()


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
@pytest.mark.parametrize(("extension", "text"), [("txt", ""), ("txt", TXT), ("csv", CSV)])
def test_celeba_layouts(root, layout, extension, text, capsys):
    base = celeba_in(root / "celeba", layout)
    if text:
        assert numbers(load_dataset("celeba", root)) == OFFICIAL
        (base / f"list_eval_partition.{extension}").write_text("\ufeff" + text, "utf-8")
        capsys.readouterr()
    loaded = load_dataset("celeba", root)
    assert numbers(loaded) == (LISTED if text else OFFICIAL) and loaded.name == "celeba"
    reported = "202,573 of the 202,599 images of CelebA are absent" in capsys.readouterr().err
    assert reported == (not text)
    for path in (base, base / f"img_align_celeba{'.zip' * (layout == 'zip')}"):
        assert load_dataset(path, root).fingerprint == loaded.fingerprint
    assert load_dataset(path, root).title == loaded.title == "CelebA"


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
    ("name", "text", "reason"),
    [
        ("img_align_celeba.zip", "", "not a whole zip"),
        ("img_align_celeba.zip", "junk", "not a whole zip"),
        ("img_align_celeba.zip", PAGE.decode(), "it is a web page"),
        ("list_eval_partition.txt", "", "not every line"),
        ("list_eval_partition.txt", "junk", "not every line"),
        ("list_eval_partition.txt", TXT + "000001.jpg 3\n", "not every line"),
        ("list_eval_partition.txt", TXT + "\0\xff\n", "not every line"),
        ("list_eval_partition.txt", PAGE.decode(), "it is a web page"),
    ],
)
def test_a_damaged_celeba_is_named_with_the_reason(root, name, text, reason):
    (celeba_in(root / "celeba", "zip") / name).write_text(text)
    message = refused(ValueError, "celeba", root)
    assert f"{root}/celeba/img_align_celeba.zip cannot be read" in message
    assert reason in message
