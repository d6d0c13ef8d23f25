import time
import tracemalloc

import numpy as np
import pytest
import torch

from vae_core import synthetic
from vae_core.synthetic import KINDS, faces, shapes

BOTH = pytest.mark.parametrize("draw", [shapes, faces])
PAINTERS = {shapes: synthetic._draw_shapes, faces: synthetic._draw_faces}
TABLES = {shapes: synthetic.SHAPE_FACTORS, faces: synthetic.FACE_FACTORS}


def repaint(draw, factors, **changed):
    return synthetic._render(PAINTERS[draw], {**factors, **changed})


def as_float(pictures):
    return pictures.numpy().astype(np.float32) / 255


def chromaticity(colours, axis):
    return colours / (colours.sum(axis=axis, keepdims=True) + 1e-6)


def object_mask(pictures, factors):
    """Where the hue is not the backdrop's: the object without its shadow, bool [n, 32, 32]."""
    backdrop = synthetic.BACKDROPS[factors["background"]][:, :, None, None]
    difference = chromaticity(as_float(pictures), 1) - chromaticity(backdrop, 1)
    return abs(difference).sum(axis=1) > 0.1


def centroid(mask):
    area = mask.sum(axis=(1, 2))
    x, y = (mask * synthetic.X).sum(axis=(1, 2)), (mask * synthetic.Y).sum(axis=(1, 2))
    return x / area, y / area


def nearest(palette, colours):
    """Index of the palette's colour whose chromaticity is closest, [n] for colours [n, 3]."""
    distance = chromaticity(palette, 1)[None] - chromaticity(colours, 1)[:, None]
    return (distance**2).sum(axis=2).argmin(axis=1)


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


@BOTH
def test_returns_rgb_bytes_and_one_value_per_factor_and_picture(draw):
    pictures, factors = draw(131)
    assert isinstance(pictures, torch.Tensor)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (131, 3, 32, 32)
    assert factors.keys() == TABLES[draw].keys()
    assert all(isinstance(v, np.ndarray) and v.shape == (131,) for v in factors.values())


@BOTH
def test_the_seed_decides_the_pictures(draw):
    (first, factors), (again, same_factors), (other, _) = draw(150, 3), draw(150, 3), draw(150, 4)
    assert torch.equal(first, again)
    assert all(np.array_equal(factors[name], same_factors[name]) for name in factors)
    assert (first != other).flatten(1).any(dim=1).all()
    assert torch.equal(draw(5)[0], draw(5, seed=0)[0])


@BOTH
def test_pictures_do_not_depend_on_the_chunks_they_are_drawn_in(draw, monkeypatch):
    whole, _ = draw(100)
    monkeypatch.setattr(synthetic, "CHUNK", 7)
    assert torch.equal(whole, draw(100)[0])


@BOTH
def test_every_factor_covers_its_range_and_stays_in_it(draw):
    _, factors = draw(2000)
    for name, span in TABLES[draw].items():
        if isinstance(span, int):
            assert sorted(set(factors[name])) == list(range(span)), name
        else:
            low, high = span
            margin = 0.02 * (high - low)
            assert low <= factors[name].min() < low + margin, name
            assert high - margin < factors[name].max() <= high, name


@pytest.mark.parametrize(
    ("draw", "name"), [(draw, name) for draw in (shapes, faces) for name in TABLES[draw]]
)
def test_every_factor_is_visible(draw, name):
    pictures, factors = draw(300)
    span = TABLES[draw][name]
    if isinstance(span, int):
        other = (factors[name] + 1) % span
    else:
        low, high = span
        other = low + (factors[name] - low + (high - low) / 2) % (high - low)
    change = (repaint(draw, factors, **{name: other}).int() - pictures.int()).abs()
    visible = ((change.amax(dim=1) > 12).flatten(1).sum(dim=1) >= 3).numpy()
    if (draw, name) == (shapes, "angle"):  # a turned disc or ring is the same disc or ring
        visible |= np.isin(factors["kind"], [KINDS.index("disc"), KINDS.index("ring")])
    assert visible.mean() > 0.98


@pytest.fixture(scope="module")
def shape_set():
    pictures, factors = shapes(2000)
    return pictures, factors, object_mask(pictures, factors)


def of_kind(factors, *names):
    return np.isin(factors["kind"], [KINDS.index(name) for name in names])


def test_an_object_lies_where_its_factors_say(shape_set):
    _, factors, mask = shape_set
    some = of_kind(factors, "disc", "square", "ring")
    x, y = centroid(mask[some])
    assert abs(x - factors["x"][some]).max() < 0.04
    assert abs(y - factors["y"][some]).max() < 0.04


def test_the_area_of_an_object_follows_its_size(shape_set):
    _, factors, mask = shape_set
    some = of_kind(factors, "disc")
    area = mask[some].sum(axis=(1, 2)) / 16**2
    expected = np.pi * (0.9 * factors["size"][some]) ** 2
    assert abs(area / expected - 1).max() < 0.08


def test_an_object_has_the_colour_of_its_hue(shape_set):
    pictures, factors, mask = shape_set
    place = factors["hue"] * (len(synthetic.HUES) - 1)
    expected = chromaticity(synthetic._colour(synthetic.HUES, place)[:, :, 0, 0], 1)
    inside = np.where(mask[:, None], chromaticity(as_float(pictures), 1), np.nan)
    seen = np.nanmedian(inside, axis=(2, 3))
    assert abs(seen - expected).max() < 0.06


def test_a_moon_turns_with_its_angle(shape_set):
    _, factors, mask = shape_set
    some = of_kind(factors, "moon")
    x, y = centroid(mask[some])
    # From the open side to the full one is to the left, where atan2 jumps; its opposite is not.
    direction = np.arctan2(factors["y"][some] - y, factors["x"][some] - x)
    assert correlation(direction, factors["angle"][some]) > 0.95


def test_the_light_brightens_its_side(shape_set):
    pictures, factors, _ = shape_set
    brightness = as_float(pictures).mean(axis=1)
    corners = brightness[:, 0, -1] - brightness[:, 0, 0]
    assert correlation(corners, factors["light"]) > 0.95
    assert (brightness[:, 0].mean(axis=1) > brightness[:, -1].mean(axis=1)).mean() > 0.95


def test_the_kind_can_be_told_in_the_object_s_own_frame(shape_set):
    _, factors, mask = shape_set
    x, y, size, angle = (factors[name][:, None] for name in ("x", "y", "size", "angle"))
    v, u = np.mgrid[-1:1:15j, -1:1:15j].reshape(2, 1, -1)
    column = (x + size * (np.cos(angle) * u - np.sin(angle) * v) + 1) * 16
    row = (y + size * (np.sin(angle) * u + np.cos(angle) * v) + 1) * 16
    column, row = (np.clip(place, 0, 31).astype(int) for place in (column, row))
    turned_back = mask[np.arange(len(mask))[:, None], row, column].astype(float)
    kind, learnt, left = factors["kind"], slice(1000), slice(1000, None)
    typical = [turned_back[learnt][kind[learnt] == k].mean(axis=0) for k in range(len(KINDS))]
    told = ((turned_back[left, None] - typical) ** 2).sum(axis=2).argmin(axis=1)
    assert (told == kind[left]).mean() > 0.99
    # Upright and of one size again, the pictures of a kind agree nearly everywhere.
    agreement = [abs(2 * cover - 1).mean() for cover in typical]
    assert min(agreement) > 0.9, agreement


@pytest.fixture(scope="module")
def face_set():
    return faces(1000)


def test_a_face_has_the_colours_of_its_factors(face_set):
    pictures, factors = face_set
    seen = as_float(pictures)
    assert (nearest(synthetic.WALLS, seen[:, :, 0, 0]) == factors["background"]).all()
    assert (nearest(synthetic.SHIRTS, seen[:, :, 31, 16]) == factors["shirt"]).mean() > 0.98
    nose = seen[:, :, 20:22, 15:18].mean(axis=(1, 2, 3))
    assert correlation(nose, factors["skin"]) < -0.9


def test_a_head_lies_where_its_factors_say(face_set):
    pictures, factors = face_set
    wall = synthetic.WALLS[factors["background"]][:, :, None, None]
    difference = chromaticity(as_float(pictures), 1) - chromaticity(wall, 1)
    head = (abs(difference).sum(axis=1) > 0.08)[:, 8:20]
    x = (head * synthetic.X).sum(axis=(1, 2)) / head.sum(axis=(1, 2))
    assert correlation(x, factors["x"]) > 0.8


def test_glasses_darken_the_rims_and_a_smile_shows_teeth(face_set):
    _, factors = face_set
    n = len(factors["x"])
    bare = as_float(repaint(faces, factors, glasses=np.zeros(n, int)))
    worn = as_float(repaint(faces, factors, glasses=np.ones(n, int)))
    assert (worn <= bare + 0.15).all()
    assert (bare - worn)[:, :, 10:22].sum(axis=(1, 2, 3)).min() > 2
    mouth = np.s_[:, :, 21:29, 8:24]
    stern = as_float(repaint(faces, factors, smile=np.full(n, -0.3)))[mouth]
    happy = as_float(repaint(faces, factors, smile=np.full(n, 1.0)))[mouth]
    assert (happy - stern).max(axis=(1, 2, 3)).min() > 0.15


@BOTH
def test_edges_are_antialiased(draw):
    pictures, factors = draw(200)
    eighth_of_a_pixel = repaint(draw, factors, x=factors["x"] + 1 / 128)
    change = (eighth_of_a_pixel.int() - pictures.int()).abs()
    assert change.any()
    assert change.max() < 64  # a hard edge jumps by its whole contrast


@BOTH
def test_ten_thousand_pictures_are_drawn_fast(draw):
    start = time.process_time()
    draw(10_000)
    assert time.process_time() - start < 5


@BOTH
def test_memory_is_that_of_the_pictures_and_a_few_chunks(draw):
    tracemalloc.start()
    pictures, _ = draw(4000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < pictures.numel() + 40e6


@BOTH
@pytest.mark.parametrize("n", [0, -3, 2.0, "9", None, True])
def test_an_unusable_number_of_pictures_is_named(draw, n):
    with pytest.raises(ValueError, match=r"n is .*whole number of at least 1"):
        draw(n)
