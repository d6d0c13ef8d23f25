"""The widgets of an explorer: what is done with them changes the explorer, and then its images.

Images are `<img>` elements, since drawing a matplotlib figure takes longer than a key's repeat.
"""

import base64
import io
import random
from functools import partial
from html import escape
from typing import NamedTuple

import ipywidgets as widgets
from PIL import Image
from torch import Tensor

from vae_core.explorer.state import ENDS, ExplorerState
from vae_core.latent import generate
from vae_core.storage import single_line

MAX_OFFSET = 3.0  # of a latent, whose prior has a standard deviation of 1
TILES = 16  # samples from the prior to choose from
HINT = "sample 7, image 7, or a file"


class NumberSlider(NamedTuple):
    """A slider, and a number field that moves with it."""

    slider: widgets.FloatSlider
    number: widgets.BoundedFloatText


class Tile(NamedTuple):
    """A sample from the prior, and the button that chooses it."""

    picture: widgets.HTML
    button: widgets.Button


class ExplorerWidgets:
    """Sliders for the latents, the path from A to B, and samples from the prior to choose from.

    `box` is all of it, to be displayed.
    """

    def __init__(self, explorer: ExplorerState):
        self.explorer = explorer
        self.first_sample = 0  # of the tiles
        self.visible: list[str] = []  # runs whose strips are shown
        self.picture, self.strip, self.error = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._make_model_choice()
        self._make_sliders()
        self._make_ends()
        self._make_tiles()
        self._listen()
        self.box = self._arrange()
        self._choose_model(explorer.name)

    def _make_model_choice(self) -> None:
        self.model = widgets.Dropdown(
            options=list(self.explorer.runs),
            value=self.explorer.name,
            description="model",
            layout={"width": "32em"},
        )

    def _make_sliders(self) -> None:
        largest = max(len(offsets) for offsets in self.explorer.offsets.values())
        self.offsets = [number_slider(-MAX_OFFSET, MAX_OFFSET, 1 / 8) for _ in range(largest)]
        self.reset = widgets.Button(description="reset")
        self.alpha = number_slider(0, 1, 1 / 32, "A to B")
        self.alpha.slider.value = self.explorer.alpha
        self.spherical = widgets.Checkbox(
            value=self.explorer.spherical, description="along the sphere", indent=False
        )

    def _make_ends(self) -> None:
        images = [f"image {number}" for number in range(len(self.explorer.images))]
        self.ends = {}
        for name in ENDS:
            self.ends[name] = widgets.Combobox(
                value=self.explorer.ends[name].label,
                options=images,
                description=name,
                continuous_update=False,
                placeholder=HINT,
                tooltip=HINT,
            )

    def _make_tiles(self) -> None:
        self.choose_for = widgets.Dropdown(
            options=ENDS, description="choose for", layout={"width": "12em"}
        )
        self.new_sample = widgets.Button(description="new sample")
        self.other_samples = widgets.Button(description="sixteen others")
        thin = {"width": "auto", "padding": "0"}
        self.tiles = [Tile(widgets.HTML(), widgets.Button(layout=thin)) for _ in range(TILES)]

    def _listen(self) -> None:
        self.model.observe(lambda change: self._choose_model(change.new), "value")
        for index, (slider, _) in enumerate(self.offsets):
            slider.observe(partial(self._change_offset, index), "value")
        self.alpha.slider.observe(self._change_alpha, "value")
        self.spherical.observe(self._change_path, "value")
        for name, field in self.ends.items():
            field.observe(partial(self._change_end, name), "value")
        for tile in self.tiles:
            tile.button.on_click(lambda button: self._choose_sample(button.description))
        self.new_sample.on_click(self._choose_new_sample)
        self.reset.on_click(self._reset_offsets)
        self.other_samples.on_click(self._show_next_tiles)

    def _arrange(self) -> widgets.VBox:
        sliders = [widgets.HBox([number, slider]) for slider, number in self.offsets]
        path = [self.alpha.number, self.alpha.slider, self.spherical]
        tiles = [widgets.VBox([tile.picture, tile.button]) for tile in self.tiles]
        columns = {"grid_template_columns": "repeat(8, 5.5em)", "grid_gap": "6px"}
        return widgets.VBox(
            [
                self.model,
                widgets.HBox([self.picture, widgets.VBox([*sliders, self.reset])]),
                widgets.HBox(path),
                self.strip,
                widgets.HBox(list(self.ends.values())),
                self.error,
                widgets.HBox([self.choose_for, self.new_sample, self.other_samples]),
                widgets.GridBox(tiles, layout=columns),
            ]
        )

    def _choose_model(self, name: str) -> None:
        """Give the sliders to the latents of a run, and show it."""
        self.explorer.name = name
        offsets = self.explorer.offsets[name]
        ranked = list(self.explorer.kl[name].items())
        for index, (slider, number) in enumerate(self.offsets):
            if index >= len(ranked):
                slider.layout.display = number.layout.display = "none"
                continue
            slider.layout.display = number.layout.display = None
            dimension, kl = ranked[index]
            number.description = f"latent {dimension}, {kl:.1f} nats"
            slider.value = offsets[dimension]
        self._show_tiles(0)
        self._show(with_strip=True)

    def _change_offset(self, index: int, change) -> None:
        name = self.explorer.name
        dimension = list(self.explorer.kl[name])[index]
        self.explorer.offsets[name][dimension] = change.new
        self._show()

    def _reset_offsets(self, _) -> None:
        for slider, _ in self.offsets:
            slider.value = 0.0

    def _change_alpha(self, change) -> None:
        self.explorer.alpha = change.new
        self._show()

    def _change_path(self, change) -> None:
        self.explorer.spherical = change.new
        self._show(with_strip=True)

    def _change_end(self, name: str, change) -> None:
        """Set A or B; where that is not possible, show why below the fields."""
        try:
            self.explorer.set_ends(**{name: change.new})
        except ValueError as error:
            self.error.value = f'<span role="alert">{escape(single_line(error))}</span>'
            return
        self.error.value = ""
        self._show(with_strip=True)

    def _choose_sample(self, sample: str) -> None:
        """Make a sample one of the ends, and go there."""
        name = self.choose_for.value
        self.ends[name].value = sample
        self.alpha.slider.value = float(ENDS.index(name))

    def _choose_new_sample(self, _) -> None:
        self._choose_sample(f"sample {random.randrange(1_000_000)}")

    def _show_next_tiles(self, _) -> None:
        self._show_tiles(self.first_sample + TILES)

    def _show_tiles(self, first: int) -> None:
        """Show the samples from number `first` on."""
        self.first_sample = first
        model = self.explorer.runs[self.explorer.name].model
        for number, tile in enumerate(self.tiles, start=first):
            label = f"sample {number}"
            tile.button.description = label
            tile.picture.value = image_html(generate(model, 1, number)[0], label, "100%")

    def _show(self, with_strip: bool = False) -> None:
        """Show the image, and the path from A to B if it has changed."""
        visible = self.explorer.visible_runs
        self.picture.value = self._picture_html(visible)
        if with_strip or visible != self.visible:
            self.visible = visible
            self.strip.value = "".join(self._strip_html(name) for name in visible)

    def _picture_html(self, visible: list[str]) -> str:
        """Return the image of each visible run; beside several also the original of an end."""
        if len(visible) == 1:
            name = visible[0]
            return side_by_side([image_html(self.explorer.image(name), name, "20em", name)])
        pictures = [image_html(self.explorer.image(name), name, "11em", name) for name in visible]
        end = self.explorer.ends[ENDS[round(self.explorer.alpha)]]
        caption = f"{end.label}, before it was encoded"
        pictures.append(image_html(end.image, caption, "11em", caption))
        return side_by_side(pictures)

    def _strip_html(self, name: str) -> str:
        """Return the path of a run from A to B as a row of images."""
        pictures = []
        for step, image in enumerate(self.explorer.strip(name)):
            pictures.append(image_html(image, f"alpha = {step / 9:.2f}", "10%"))
        return side_by_side(pictures, "2px")


def number_slider(minimum: float, maximum: float, step: float, label: str = "") -> NumberSlider:
    """Return a slider with a number field, which has the arrow keys if the notebook takes them."""
    # The steps are exact in binary; others add up to 0.30000000000000004 in the field.
    limits = {"min": minimum, "max": maximum, "step": step}
    slider = widgets.FloatSlider(**limits, value=0, readout=False)
    number = widgets.BoundedFloatText(
        **limits,
        description=label,
        style={"description_width": "11em"},
        layout={"width": "17em", "min_width": "17em"},
    )
    widgets.jslink((slider, "value"), (number, "value"))
    return NumberSlider(slider, number)


def encode_png(image: Tensor) -> str:
    """Return a uint8 image [3, H, W] as the base64 of a PNG."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def image_html(image: Tensor, alt: str, width: str, caption: str = "") -> str:
    """Return a uint8 image [3, H, W] as HTML of a width, its pixels as squares."""
    style = "width: 100%; display: block; margin: 0; image-rendering: pixelated"
    source = f"data:image/png;base64,{encode_png(image)}"
    picture = f'<img alt="{escape(alt)}" style="{style}" src="{source}">'
    if caption:
        picture += f'<figcaption style="line-height: 1.3">{escape(caption)}</figcaption>'
    return f'<figure style="margin: 0; width: {width}">{picture}</figure>'


def side_by_side(parts: list[str], gap: str = "1em") -> str:
    """Return HTML with its parts in a row."""
    return f'<div style="display: flex; gap: {gap}">{"".join(parts)}</div>'
