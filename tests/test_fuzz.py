"""Bytes and values of every kind give what they should, or one clear error.

`FUZZ_CASES` is the number of cases over all kinds together.
"""

import collections
import dataclasses
import io
import json
import os
import shutil
import signal
import struct
import time
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, contents, damaged, same_run, tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vae_core import data
from vae_core.checkpoints import (
    HISTORY,
    HISTORY_COLUMNS,
    RUN,
    STATE,
    WEIGHTS,
    CheckpointError,
    State,
    load_run,
    read_state,
    write_state,
)
from vae_core.data import load_dataset
from vae_core.execute import notebook_parameters, parse_parameters
from vae_core.experiment import run_name
from vae_core.files import PROJECT
from vae_core.parameter_sets import ParameterSet
from vae_core.synthetic import shapes
from vae_core.training import Config

KINDS = 15
CASES = -(-int(os.environ.get("FUZZ_CASES", "2000")) // KINDS)
LONGEST = 20  # seconds that one case may take

properties = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Do not wait for the disk, for nobody pulls the plug, nor for the hash of unchanged code."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(data, "code_hash", lambda *modules: "c0de")


@pytest.fixture
def tally(record_property, request):
    """Count the outcomes of a test's cases, and report them with the time."""
    counts = collections.Counter()
    began = time.perf_counter()
    yield counts
    line = f"{sum(counts.values())} cases in {time.perf_counter() - began:.1f} s: {dict(counts)}"
    record_property("cases", line)
    print(f"{request.node.name}: {line}")


@contextmanager
def bounded(what):
    """Turn a hang into a failure that tells the case."""

    def late(*_):
        raise TimeoutError(f"{what} took longer than {LONGEST} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def tried(action, case, errors=ValueError):
    """Return what `action` returns, or None where it raises one clear error."""
    with bounded(case), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return action()
        except errors as error:
            message = str(error)
            assert message.strip(), (case, repr(error))
            assert len(message.splitlines()) == 1, (case, message)
            return None


def fuzz(path, other, read, is_right, tally, errors=CheckpointError, seed=0):
    """Feed `CASES` damaged versions of a file; each is read rightly or refused, and unharmed."""
    original = path.read_bytes()
    for number in range(CASES):
        content = damaged(original, np.random.default_rng([seed, number]), other)
        path.write_bytes(content)
        result = tried(read, number, errors)
        assert path.read_bytes() == content, number
        if result is None:
            assert content != original, number
            tally["refused"] += 1
        else:
            assert is_right(result), number
            tally["right"] += 1
    path.write_bytes(original)
    assert is_right(read())


# Checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    return tiny_run(tmp_path_factory.mktemp("run")).folder


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A finished run with another seed."""
    return tiny_run(tmp_path_factory.mktemp("another"), seed=1).folder


@pytest.mark.parametrize("name", [WEIGHTS, HISTORY, RUN])
def test_a_damaged_run(folder, another, name, tally):
    run = load_run(folder)
    before = contents(folder)
    fuzz(
        folder / name,
        (another / name).read_bytes(),
        lambda: load_run(folder),
        lambda loaded: same_run(loaded, run),
        tally,
    )
    assert contents(folder) == before
    assert tally["refused"] > 0


def test_a_damaged_state(tmp_path, tally):
    def state(seed):
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            "weights/layer": torch.randn(16, 3, 4, 4, generator=generator),
            "best/layer": torch.randn(7, generator=generator).bfloat16(),
            "step/layer": torch.tensor(float(seed)),
        }
        history = [dict.fromkeys(HISTORY_COLUMNS, 1.5 * seed)] * 3
        return State(tensors, history, {"config": {"seed": seed}, "code": "c0de"})

    def is_right(loaded):
        return (loaded.history, loaded.identity) == (right.history, right.identity) and all(
            torch.equal(loaded.tensors[name], right.tensors[name])
            for name in loaded.tensors | right.tensors
        )

    right = state(1)
    write_state(tmp_path / "other", state(2))
    write_state(tmp_path, right)
    assert is_right(read_state(tmp_path)) and not is_right(read_state(tmp_path / "other"))
    # A foreign state is a right one; whose it is, is for the experiment to tell.
    foreign = (tmp_path / "other" / STATE).read_bytes()
    fuzz(
        tmp_path / STATE,
        foreign[: len(foreign) // 2],
        lambda: read_state(tmp_path),
        is_right,
        tally,
    )
    assert tally["refused"] > 0


# Pictures and what is made of them


def encoded(pixels, extension, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, extension, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures():
    """Twelve different pictures, [32, 32, 3] each."""
    return shapes(12)[0].permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture
def of_pictures(tmp_path, pictures):
    """A folder of pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(pictures):
        (folder / f"{number:02d}.png").write_bytes(encoded(pixels, "png"))
    return folder


def all_pictures(dataset):
    parts = (dataset.train, dataset.validation, dataset.test)
    assert all(part.dtype == torch.uint8 and part.shape[1:] == (3, 32, 32) for part in parts)
    assert all(len(part) for part in parts)
    return [bytes(picture.numpy()) for part in parts for picture in part]


@pytest.mark.parametrize("suffix", [".u8", ".json"])
def test_a_damaged_cache(tmp_path, of_pictures, suffix, tally, capsys):
    """It is built again, and never believed."""
    root = tmp_path / "root"
    right = load_dataset(of_pictures, root)
    expected = all_pictures(right)
    (path,) = (root / "cache").glob(f"*{suffix}")
    originals = contents(of_pictures)
    original = path.read_bytes()
    load_dataset(of_pictures, tmp_path / "other", seed=1)
    (other,) = (tmp_path / "other" / "cache").glob(f"*{suffix}")
    for number in range(CASES):
        content = damaged(original, np.random.default_rng([5, number]), other.read_bytes())
        path.write_bytes(content)
        dataset = tried(lambda: load_dataset(of_pictures, root), number, ())
        assert all_pictures(dataset) == expected, number
        assert dataset.fingerprint == right.fingerprint
        rebuilt = "building it again" in capsys.readouterr().err
        assert path.read_bytes() == (original if rebuilt else content), number
        tally["built again" if rebuilt else "right"] += 1
    assert contents(of_pictures) == originals
    assert tally["built again"] > 0


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip(tmp_path, of_pictures, pictures, compression, tally):
    """No picture comes out that is not one of those that went in."""
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(of_pictures.iterdir()):
            archive.write(file, file.name)
    known = {bytes(pixels.transpose(2, 0, 1).tobytes()) for pixels in pictures}

    def read():
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        return load_dataset(path, tmp_path / "root")

    def is_right(dataset):
        found = all_pictures(dataset)
        return set(found) <= known and len(found) >= 10

    fuzz(path, of_pictures.joinpath("00.png").read_bytes(), read, is_right, tally, ValueError, 6)
    assert tally["refused"] > 0


FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF"}


def test_a_damaged_picture(tmp_path, of_pictures, pictures, tally):
    """The others are as they were; a PNG, which has checksums, is right or refused."""
    originals = {name: encoded(pictures[0], kind) for name, kind in FORMATS.items()}
    others = collections.Counter(pixels.transpose(2, 0, 1).tobytes() for pixels in pictures[1:])
    foreign = (of_pictures / "01.png").read_bytes()
    first = pictures[0].transpose(2, 0, 1).tobytes()
    (of_pictures / "00.png").unlink()
    for number in range(CASES):
        rng = np.random.default_rng([7, number])
        extension = list(FORMATS)[number % 8 if number % 8 < len(FORMATS) else number % 2]
        content = damaged(originals[extension], rng, foreign)
        path = of_pictures / f"00.{extension}"
        path.write_bytes(content)
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        dataset = tried(lambda: load_dataset(of_pictures, tmp_path / "root"), number)
        if dataset is None:
            assert content != originals[extension], number
            tally["refused"] += 1
        else:
            found = collections.Counter(all_pictures(dataset))
            assert found.total() == 12 and found >= others, number
            (changed,) = found - others
            right = changed == first
            # A foreign file of the right kind is a picture as good as any.
            assert right or extension != "png" or content == foreign, number
            tally["right" if right else "another picture"] += 1
        assert path.read_bytes() == content
        path.unlink()
    assert tally["refused"] > 0


def png(width, height, values, change=0):
    """A PNG; `change` spoils the checksum of its values."""

    def chunk(name, content, change=0):
        checksum = zlib.crc32(name + content) ^ change
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(values), change)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path, of_pictures):
    """Otherwise a few damaged rows could be taken for the picture."""
    values = bytes(range(97)) * 32
    (of_pictures / "00.png").write_bytes(png(32, 32, values))
    load_dataset(of_pictures, tmp_path / "root")
    (of_pictures / "00.png").write_bytes(png(32, 32, values, change=1))
    with pytest.raises(ValueError, match=r"00\.png"):
        load_dataset(of_pictures, tmp_path / "root")


def test_pictures_that_declare_a_huge_size(tmp_path, of_pictures, tally):
    rng = np.random.default_rng(8)
    for number in range(CASES):
        width, height = (int(2 ** rng.uniform(0, 31)) for _ in range(2))
        if width * height <= 64_000_000:
            width, height = 8_001, 8_000
        (of_pictures / "bomb.png").write_bytes(png(width, height, bytes(1 << 20)))
        began = time.perf_counter()
        with pytest.raises(ValueError) as error, bounded(number):
            load_dataset(of_pictures, tmp_path / "root")
        message = str(error.value)
        assert "bomb.png" in message and "\n" not in message, message
        assert time.perf_counter() - began < 5, "it was decoded"
        tally["refused"] += 1


# Values

ODD = st.one_of(
    st.sampled_from(
        [None, True, False, "", "p1", "sum", "fc", "5", "nan", b"fc", (), [], {}, set(), object()]
    ),
    st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e308, 5e-324, 1j, 2**63, -(2**63)]),
    st.sampled_from([Decimal("0.5"), Fraction(1, 2), np.float32(0.5), np.int64(3), np.float64(2)]),
    st.sampled_from([Path("fc"), int, len, torch.tensor(1.0), np.zeros(1), range(3), ...]),
    st.integers(-2, 300),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
)


def mostly(good):
    """Draw good values, and now and then an odd one."""
    return st.integers(0, 4).flatmap(lambda number: ODD if number == 4 else good)


PARAMETERS = {
    "name": mostly(st.text(max_size=8)),
    "batch_size": mostly(st.integers(1, 512)),
    "learning_rate": mostly(st.floats(1e-9, 1)),
    "latent_dim": mostly(st.integers(1, 512)),
}
FIELDS = {
    "model": mostly(st.sampled_from(["fc", "conv"])),
    "seed": mostly(st.integers(0, 2**40)),
    "max_epochs": mostly(st.integers(1, 999)),
    "patience": mostly(st.integers(1, 99)),
    "min_delta": mostly(st.floats(0, 9)),
    "monitor": mostly(st.sampled_from(["train", "validation"])),
    "beta": mostly(st.floats(0, 9)),
    "reduction": mostly(st.sampled_from(["sum", "mean"])),
    "precision": mostly(st.sampled_from(["auto", "float32"])),
}
OPTIONS = {
    "seed": mostly(st.integers(0, 9)),
    "limit": mostly(st.none() | st.integers(1, 20)),
    "fraction": mostly(st.floats(0.01, 1)),
}


def some_of(strategies):
    return st.fixed_dictionaries({}, optional=strategies)


def test_values_of_parameter_sets(tally):
    good = dataclasses.asdict(TINY)

    @properties
    @given(some_of(PARAMETERS))
    def check(values):
        params = tried(lambda: ParameterSet(**good | values), values)
        tally["refused" if params is None else "taken"] += 1
        if params is not None:
            assert params.batch_size >= 1 and params.latent_dim >= 1
            assert 0 < params.learning_rate <= 1
            name = tried(lambda: run_name(Config("fc", params)), values)
            assert name is None or (Path(name).name == name and name.isprintable())

    check()
    assert min(tally["refused"], tally["taken"]) > 0


def test_values_of_configurations(tally):
    """What is taken can be written to a record, and names a folder."""
    good = {"model": "conv", "params": TINY}

    @properties
    @given(some_of(FIELDS))
    def check(values):
        config = tried(lambda: Config(**good | values), values)
        tally["refused" if config is None else "taken"] += 1
        if config is not None:
            stored = dataclasses.asdict(config)
            assert json.loads(json.dumps(stored)) == stored
            assert Path(run_name(config)).name == run_name(config)

    check()
    assert min(tally["refused"], tally["taken"]) > 0


def test_arguments_of_load_dataset(tmp_path, of_pictures, tally):
    before = contents(of_pictures)

    def is_new(value):
        return value is of_pictures or not Path(str(value)).expanduser().exists()

    @properties
    @given(mostly(st.just(of_pictures)).filter(is_new), some_of(OPTIONS))
    def check(name, values):
        def load():
            return load_dataset(name, tmp_path / "root", **values)

        dataset = tried(load, (name, values), (ValueError, FileNotFoundError))
        tally["refused" if dataset is None else "taken"] += 1
        if dataset is not None:
            assert name == of_pictures
            found = all_pictures(dataset)
            assert len(set(found)) == len(found) <= 12
            assert dataset.name.isprintable()
            assert dataset.fingerprint == load().fingerprint

    check()
    assert contents(of_pictures) == before
    assert min(tally["refused"], tally["taken"]) > 0


NOTEBOOK = PROJECT / "notebooks" / "01_fc_vs_cvae.py"
SETTINGS = st.one_of(
    st.text(max_size=30),
    ODD.map(repr),
    st.sampled_from(["{1}", "b'x'", "1j", "...", "{(1, 2): 3}", "{[]}", "5", "None", "[0, 1]"]),
    st.text("[](){}'\"\\=-+0123456789eEjN.,: \n\0*#", max_size=40),
    st.integers(1, 4000).map(lambda depth: "(" * depth),
    st.integers(1, 4000).map(lambda depth: "-" * depth + "1"),
    st.integers(1, 4000).map(lambda depth: "[" * depth + "]" * depth),
)


def test_settings_of_a_notebook(tmp_path, tally):
    notebook = Path(shutil.copy(NOTEBOOK, tmp_path))
    known = notebook_parameters(notebook)

    @properties
    @given(st.lists(st.tuples(st.sampled_from([*known, "unknown", ""]), SETTINGS), max_size=2))
    def check(pairs):
        texts = [f"{name}={text}" for name, text in pairs]
        values = tried(lambda: parse_parameters(notebook, texts), texts)
        tally["refused" if values is None else "taken"] += 1
        if values is not None:
            assert values.keys() == dict(pairs).keys() <= known.keys()
            json.dumps(values)
            for name, text in dict(pairs).items():
                assert values[name] == text if known[name][0] in "'\"" else values[name] != ...

    check()
    assert notebook.read_bytes() == NOTEBOOK.read_bytes()


def test_a_damaged_notebook(tmp_path, tally):
    notebook = Path(shutil.copy(NOTEBOOK, tmp_path))
    fuzz(
        notebook,
        b"\x89PNG\r\n\x1a\n",
        lambda: notebook_parameters(notebook),
        lambda known: all(name.isidentifier() for name in known),
        tally,
        ValueError,
        9,
    )
