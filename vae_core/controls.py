"""The widgets of an explorer: what is done with them changes it, and then its images.

Images are `<img>` elements, since drawing a matplotlib figure takes longer than a key's repeat.
"""

import base64
import io
import random
from functools import partial
from html import escape

import ipywidgets as widgets
from PIL import Image
from torch import Tensor

from vae_core.latent import imagine
from vae_core.storage import in_one_line

REACH = 3.0  # how far a slider moves a latent, whose prior has a standard deviation of 1
ENDS = ("A", "B")
HINT = "draw 7, image 7, or a file"


def png(image: Tensor) -> str:
    """Return a uint8 image [3, H, W] as base64 of a PNG."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def figure(image: Tensor, alt: str, width: str, caption: str = "") -> str:
    """Return a uint8 image [3, H, W] as HTML of a width, its pixels as squares."""
    style = "width: 100%; display: block; margin: 0; image-rendering: pixelated"
    picture = f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{png(image)}">'
    below = f'<figcaption style="line-height: 1.3">{escape(caption)}</figcaption>'
    return f'<figure style="margin: 0; width: {width}">{picture}{below if caption else ""}</figure>'


def side_by_side(figures: list[str], gap: str = "1em") -> str:
    """Return HTML with its parts in a row."""
    return f'<div style="display: flex; gap: {gap}">{"".join(figures)}</div>'


class Controls:
    """Sliders with a number field each, the way from A to B, and sixteen draws to pick from.

    `box` is all of it, to be displayed.
    """

    def __init__(self, explorer):
        self.explorer, self.first, self.shown = explorer, 0, []
        self.picture, self.strip, self.error = widgets.HTML(), widgets.HTML(), widgets.HTML()
        named = {"options": list(explorer.runs), "value": explorer.name}
        self.name = widgets.Dropdown(**named, description="model", layout={"width": "32em"})
        self.moves = [_linked(-REACH, REACH, 1 / 8) for _ in max(explorer.moves.values(), key=len)]
        self.mix = _linked(0, 1, 1 / 32, "A to B")
        self.spherical = widgets.Checkbox(description="along the sphere", indent=False)
        images = [f"image {number}" for number in range(len(explorer.images))]
        hint = {"placeholder": HINT, "tooltip": HINT}
        field = partial(widgets.Combobox, options=images, continuous_update=False, **hint)
        self.ends = {end: field(value=explorer.ends[end], description=end) for end in ENDS}
        self.pick = widgets.Dropdown(options=ENDS, description="pick for", layout={"width": "12em"})
        buttons = ("reset", "new draw", "sixteen others")
        self.reset, self.new, self.others = (widgets.Button(description=name) for name in buttons)
        thin = {"width": "auto", "padding": "0"}
        self.draws = [(widgets.HTML(), widgets.Button(layout=thin)) for _ in range(16)]
        self.mix[0].value, self.spherical.value = explorer.mix, explorer.spherical
        self._listen()

        rows = [widgets.HBox([number, slider]) for slider, number in (*self.moves, self.mix)]
        tiles = [widgets.VBox(pair) for pair in self.draws]
        columns = {"grid_template_columns": "repeat(8, 5.5em)", "grid_gap": "6px"}
        from_top_to_bottom = [
            self.name,
            widgets.HBox([self.picture, widgets.VBox([*rows[:-1], self.reset])]),
            widgets.HBox([rows[-1], self.spherical]),
            self.strip,
            widgets.HBox(list(self.ends.values())),
            self.error,
            widgets.HBox([self.pick, self.new, self.others]),
            widgets.GridBox(tiles, layout=columns),
        ]
        self.box = widgets.VBox(from_top_to_bottom)
        self._choose(explorer.name)

    def _listen(self):
        self.name.observe(lambda change: self._choose(change.new), "value")
        for place, (slider, _) in enumerate(self.moves):
            slider.observe(partial(self._move, place), "value")
        self.mix[0].observe(lambda change: self._change("mix", change.new), "value")
        self.spherical.observe(lambda change: self._change("spherical", change.new), "value")
        for end, text in self.ends.items():
            text.observe(partial(self._go, end), "value")
        for _, button in self.draws:
            button.on_click(lambda clicked: self._take(clicked.description))
        self.new.on_click(lambda _: self._take(f"draw {random.randrange(1_000_000)}"))
        self.reset.on_click(self._go_back)
        self.others.on_click(lambda _: self._show_draws(self.first + len(self.draws)))

    def _choose(self, name: str) -> None:
        self.explorer.name, moves = name, self.explorer.moves[name]
        ranked = list(self.explorer.kl[name].items())
        for place, (slider, number) in enumerate(self.moves):
            there = place < len(ranked)
            slider.layout.display = number.layout.display = None if there else "none"
            if there:
                dimension, kl = ranked[place]
                number.description = f"latent {dimension}, {kl:.1f} nats"
                slider.value = moves[dimension]
        self._show_draws(0)
        self._show(strip=True)

    def _move(self, place: int, change) -> None:
        name, explorer = self.explorer.name, self.explorer
        explorer.moves[name][list(explorer.kl[name])[place]] = change.new
        self._show()

    def _change(self, what: str, value) -> None:
        setattr(self.explorer, what, value)
        self._show(strip=what == "spherical")

    def _go(self, end: str, change) -> None:
        """Set A or B; where that makes no sense, say so below the field."""
        try:
            self.explorer.go(**{end: change.new})
        except ValueError as error:
            self.error.value = f'<span role="alert">{escape(in_one_line(error))}</span>'
        else:
            self.error.value = ""
            self._show(strip=True)

    def _take(self, draw: str) -> None:
        self.ends[self.pick.value].value = draw
        self.mix[0].value = float(ENDS.index(self.pick.value))

    def _go_back(self, _=None) -> None:
        for slider, _ in self.moves:
            slider.value = 0.0

    def _show_draws(self, first: int) -> None:
        self.first, model = first, self.explorer.runs[self.explorer.name].model
        for number, (picture, button) in enumerate(self.draws, start=first):
            button.description = f"draw {number}"
            picture.value = figure(imagine(model, 1, number)[0], f"draw {number}", "100%")

    def _show(self, strip: bool = False) -> None:
        """Show the image, and all of the way from A to B if it is another one."""
        shown, end = self.explorer.shown, ENDS[round(self.explorer.mix)]
        width = "11em" if len(shown) > 1 else "20em"
        figures = [figure(self.explorer.image(name), name, width, name) for name in shown]
        if len(shown) > 1:
            before = f"{self.explorer.ends[end]}, before it was encoded"
            figures.append(figure(self.explorer.originals[end], before, width, before))
        self.picture.value = side_by_side(figures)
        if strip or shown != self.shown:
            self.shown, ways = shown, [self.explorer.strip(name) for name in shown]
            labels = [f"alpha = {step / 9:.2f}" for step in range(10)]
            rows = [[*map(figure, way, labels, ["10%"] * 10)] for way in ways]
            self.strip.value = "".join(side_by_side(row, "2px") for row in rows)


def _linked(least, most, step, description=""):
    """A slider and its number field, which has the arrow keys where the notebook takes them."""
    # Steps are exact in binary: others add up to 0.30000000000000004 in the field.
    limits, style = {"min": least, "max": most, "step": step}, {"description_width": "11em"}
    slider = widgets.FloatSlider(**limits, value=0, readout=False)
    number = widgets.BoundedFloatText(**limits, description=description, style=style)
    number.layout = {"width": "17em", "min_width": "17em"}
    widgets.jslink((slider, "value"), (number, "value"))
    return slider, number
