"""Built-in images drawn from a seed, with the factors that made them: `shapes` and `faces`.

Every object is a signed distance: a field that is negative inside it and positive outside, and
whose passing through zero, one pixel wide, is the antialiased edge. Lengths are in units of half
an image, so x and y run from -1 (left, top) to 1 (right, bottom); angles are in radians.
"""

from collections.abc import Iterator

import numpy as np
import torch

from vae_core.storage import check_int

CHUNK = 128 * 32 * 32  # pixels drawn at once: few enough for their fields to stay in the cache
SOFT = 3 / 16  # the width of a soft edge


def _palette(colours):
    return np.array([tuple(bytes.fromhex(c)) for c in colours.split()], np.float32) / 255


KINDS = ("disc", "square", "triangle", "star", "ring", "heart", "moon")
HUES = _palette("e63946 f3722c f9b41f 6fb83f 1f9e89 2a86d1 5a4fcf b5419f e63946")
BACKDROPS = _palette("fbdfae b4dcf2 c5e6ba e3c9f3")
SKINS = _palette("fde0c9 f2c49e d99d6e a86b45 744632")
HAIRS = _palette("1f1a1c 4a2c20 86432a d9622f f0c35e c4c0c2")
IRISES = _palette("3f2617 2f6f9f 3f7d4f")
SHIRTS = _palette("d1495b edae49 00798c 30638e 6a4c93")
WALLS = _palette("a6dbe8 fbd08f c3e2a8 d7bdec")

# A factor is drawn uniformly: an index below a number, or a number between two.
FACTORS = {
    "shapes": {
        "kind": len(KINDS),
        "hue": (0, 1),  # once around the colour wheel
        "x": (-0.14, 0.14),
        "y": (-0.14, 0.14),
        "size": (0.68, 0.82),  # radius
        "angle": (-0.25, 0.25),  # clockwise
        "light": (-1, 1),  # the direction it comes from: 0 is above, positive is the right
        "background": len(BACKDROPS),
    },
    "faces": {
        "skin": (0, 1),  # light to dark
        "hair": len(HAIRS),
        "style": 4,  # short, long, curly or in a bun
        "fringe": (-0.5, 0.5),  # slope of the hairline
        "eyes": len(IRISES),
        "smile": (-0.3, 1),
        "glasses": 2,
        "shirt": len(SHIRTS),
        "x": (-0.1, 0.1),
        "y": (0, 0.1),
        "size": (0.66, 0.74),  # half the height of the head
        "tilt": (-0.15, 0.15),  # clockwise
        "light": (-1, 1),
        "background": len(WALLS),
    },
}


def shapes(n: int, seed: int = 0, size: int = 32) -> tuple[torch.Tensor, dict]:
    """Draw `n` images of one coloured object in a slanting light, uint8 [n, 3, size, size] in RGB.

    Returns them and the factors that made them, an array [n] for each name in `FACTORS`.
    """
    factors = draw_factors("shapes", n, seed)
    return torch.from_numpy(np.concatenate([*render("shapes", factors, size)])), factors


def faces(n: int, seed: int = 0, size: int = 32) -> tuple[torch.Tensor, dict]:
    """Draw `n` portraits; returns as `shapes` does."""
    factors = draw_factors("faces", n, seed)
    return torch.from_numpy(np.concatenate([*render("faces", factors, size)])), factors


def draw_factors(name: str, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the factors of `n` images of "shapes" or "faces": an array [n] for each."""
    n, rng = check_int("n", n, 1), np.random.default_rng(check_int("seed", seed, 0))
    return {
        factor: rng.integers(span, size=n) if isinstance(span, int) else rng.uniform(*span, n)
        for factor, span in FACTORS[name].items()
    }


def shape_names(factors: dict[str, np.ndarray]) -> list[str]:
    """Return the kind of shape, one of `KINDS`, of each image with these factors."""
    return [KINDS[index] for index in factors["kind"]]


def render(name: str, factors: dict[str, np.ndarray], size: int = 32) -> Iterator[np.ndarray]:
    """Draw the images that belong to `factors`: blocks [k, 3, size, size] of a few at a time."""
    x = (np.arange(check_int("size", size, 8), dtype=np.float32) + 0.5) * (2 / size) - 1
    xy, step = (x, x[:, None]), max(1, CHUNK // size**2)
    draw, backdrops = {"shapes": (_draw_shape, BACKDROPS), "faces": (_draw_face, WALLS)}[name]
    for start in range(0, len(factors["x"]), step):
        part = np.s_[start : start + step, None, None]
        values = {name: factor[part].astype(np.float32) for name, factor in factors.items()}
        cos, sin = _cos_sin(values["light"])
        light = 0.93 + 0.13 * (sin * xy[0] - cos * xy[1])
        canvas = _colour(backdrops, values.pop("background")) * light[:, None]
        draw(canvas, xy, **values)
        yield (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colour(palette, place):
    """Colours [n, 3, 1, 1] at places 0 to len(palette) - 1, mixed between two neighbours."""
    mixed = [np.interp(place.ravel(), np.arange(len(palette)), channel) for channel in palette.T]
    return np.stack(mixed, axis=1).astype(np.float32)[:, :, None, None]


def _cos_sin(angle):
    # Rounded from float64, because processors differ in the last bit of a float32 cosine.
    angle = angle.astype(np.float64)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _paint(canvas, colour, distance, edge, opacity=1):
    """Lay `colour` over `canvas` in place where `distance` is negative, the edge `edge` wide."""
    cover = np.clip(0.5 - distance * (1 / edge), 0, 1) * opacity
    canvas += cover[:, None] * (colour - canvas)


def _local(xy, x, y, size, angle):
    """Coordinates of every pixel in an object's own frame."""
    cos, sin = _cos_sin(angle)
    u, v = (xy[0] - x) / size, (xy[1] - y) / size
    return cos * u + sin * v, cos * v - sin * u


def _radius(u, v):
    return np.sqrt(u * u + v * v)


def _ellipse(u, v, a, b):
    """Distance to an ellipse with half axes a and b, exact to first order at its edge."""
    u, v = u / a, v / b
    r = _radius(u, v)
    return r * (r - 1) / (_radius(u / a, v / b) + 1e-3)


def _star(u, v):
    # Two reflections fold the five points onto one, whose edge is a single line.
    u, v = abs(u), -v
    for a, b in ((0.809, -0.588), (-0.809, -0.588)):
        fold = 2 * np.maximum(a * u + b * v, 0)
        u, v = u - fold * a, v - fold * b
    return 0.910 * abs(u) + 0.414 * (v - 1.05)


def _heart(u, v):
    u, v = abs(u) / 1.75, 0.52 - v / 1.75
    along = np.maximum(u + v, 0) / 2
    tip = np.minimum(_radius(u - along, v - along), _radius(u, v - 1)) * np.sign(u - v)
    return 1.75 * np.where(u + v > 1, _radius(u - 0.25, v - 0.75) - 0.3536, tip)


OUTLINES = {
    "disc": lambda u, v: _radius(u, v) - 0.9,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.8,
    "triangle": lambda u, v: np.maximum(0.866 * abs(u) - 0.5 * v, v) - 0.55,
    "star": _star,
    "ring": lambda u, v: abs(_radius(u, v) - 0.68) - 0.26,
    "heart": _heart,
    "moon": lambda u, v: np.maximum(_radius(u, v) - 0.95, 0.72 - _radius(u - 0.5, v + 0.2)),
}


def _draw_shape(canvas, xy, hue, x, y, size, angle, light, **factors):
    cos, sin = _cos_sin(light)
    pixel = 2 / xy[0].size

    def distance(x, y):
        u, v = _local(xy, x, y, size, angle)
        d = np.empty_like(u)
        for index, name in enumerate(KINDS):
            chosen = factors["kind"].ravel() == index
            d[chosen] = OUTLINES[name](u[chosen], v[chosen])
        return d * size

    d = distance(x, y)
    _paint(canvas, canvas * 0.55, distance(x - 0.13 * sin, y + 0.13 * cos), max(SOFT, pixel))
    colour = _colour(HUES, hue * (len(HUES) - 1))
    _paint(canvas, colour * 0.5, d, pixel)
    lit = 0.97 + 0.42 / size * ((xy[0] - x) * sin - (xy[1] - y) * cos)
    _paint(canvas, colour * lit[:, None], d + 0.07, pixel)


def _draw_face(
    canvas, xy, skin, hair, style, fringe, eyes, smile, glasses, shirt, x, y, size, tilt, light
):
    side, pixel = xy[0].size, 2 / xy[0].size
    hair, shirt = _colour(HAIRS, hair), _colour(SHIRTS, shirt)
    skin = _colour(SKINS, skin * (len(SKINS) - 1))
    u, v = _local(xy, x, y, size, tilt)
    lit = (1 + 0.2 * light * u - 0.06 * v)[:, None]

    def paint(colour, distance, edge=0, opacity=1):
        _paint(canvas, colour, distance * size, max(edge, pixel), opacity)

    curls = 0.1 * (abs(4 * u % 1 - 0.5) + abs(4 * v % 1 - 0.5))
    bulk = [  # one for each style
        _ellipse(u, v + 0.06, 0.86, 1.06),
        np.maximum(_ellipse(u, v - 0.25, 1.02, 1.38), v - 1.15),
        _ellipse(u, v + 0.2, 1.16, 1.12) + curls,
        _ellipse(u, v + 1.1, 0.4, 0.34),
    ]
    paint(hair * 0.75 * lit, np.choose(style.astype(int), bulk))
    paint(skin * 0.75, np.maximum(abs(u) - 0.3, abs(v - 0.9) - 0.5))
    _paint(canvas, shirt * lit, _ellipse(xy[0] - x, xy[1] - 1.3, 0.85, 0.52), pixel)
    paint(skin * 0.9 * lit, _ellipse(abs(u) - 0.8, v - 0.1, 0.14, 0.2))
    paint(skin * lit, _ellipse(u, v, 0.8, 1))
    hairline = 0.8 * (v + 0.52 - fringe * u - 0.75 * u * u)
    paint(skin * 0.8, np.maximum(_ellipse(u, v, 0.8, 1), hairline - 0.1))
    paint(hair * lit, np.maximum(bulk[0], hairline))
    gloss = abs(hairline + 0.28 + 0.1 * light * u) - 0.05
    paint(hair * 1.2 + 0.06, np.maximum(abs(u) - 0.5, gloss))

    # The features lie well inside the image, and a smaller window is drawn faster.
    window = np.s_[..., side // 4 : side - side // 8, side // 8 : side - side // 8]
    canvas, u, v, lit = canvas[window], u[window], v[window], lit[window]
    w = abs(u)
    blush = skin * np.float32([1.02, 0.72, 0.7])[:, None, None]
    paint(blush, _ellipse(w - 0.48, v - 0.42, 0.18, 0.14), SOFT, 0.7)
    paint(skin * 0.8 * lit, _ellipse(u, v - 0.32, 0.1, 0.12))
    paint(np.float32(0.97), _ellipse(w - 0.34, v - 0.06, 0.2, 0.16))
    paint(_colour(IRISES, eyes), _ellipse(w - 0.33, v - 0.06, 0.12, 0.14))
    paint(hair * 0.6, np.maximum(abs(w - 0.35) - 0.2, abs(v + 0.23 - 0.1 * w) - 0.05))
    bow = np.maximum(1 - (u / 0.36) ** 2, 0)
    lips = abs(v - 0.58 - 0.14 * smile * bow) - 0.05 - 0.09 * np.maximum(smile, 0) * bow
    paint(skin * np.float32([0.7, 0.36, 0.38])[:, None, None], np.maximum(lips, w - 0.36))
    paint(np.float32(0.97), np.maximum(lips + 0.08, w - 0.3))
    frame = abs(_ellipse(w - 0.36, v - 0.06, 0.28, 0.27)) - 0.05
    bridge = np.maximum(abs(v) - 0.04, w - 0.1)
    paint(np.float32(0.13), np.minimum(frame, bridge), opacity=glasses)
