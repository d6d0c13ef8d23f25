"""The explorer's page in a real browser: the system's Chromium, for nothing is downloaded."""

import os
import re
import shutil

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from vae_core.explorer.page import PAGE, write_explorer_page
from vae_core.latent import prior_samples
from vae_core.runs import published_run

pytestmark = pytest.mark.browser
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}
QUIET = "waiting.size === 0"
PUBLISHED = (("conv", "celeba-9k"), ("conv", "cifar10-jpeg"), ("fc", "cifar10-jpeg"))


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        reason = "no chromium, chromium-browser or google-chrome on this machine"
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "it's #1" / PAGE
    write_explorer_page(path, [published_run(model, "p2", data) for model, data in PUBLISHED])
    assert path.stat().st_size < 7_500_000
    assert "http" not in path.read_text("utf-8").replace("http-equiv", "")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """A function that opens the page; no script may fail on it, and nothing else be asked for."""
    errors, contexts = [], []

    def visit(viewport=DESKTOP, fragment="", **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page, requests = contexts[-1].new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address + fragment)
        assert len(requests) == 1
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_first_view_is_accessible_and_fits(opened, viewport):
    page = opened(viewport)
    page.wait_for_function(QUIET)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    sizes = page.evaluate("[...document.querySelectorAll('canvas')].map((canvas) => canvas.width)")
    assert sizes == [32] * (1 + 16 + 10 + 16)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_it_decodes_as_pytorch_does(opened):
    page = opened()
    for index, (model, data) in enumerate(PUBLISHED):
        run = published_run(model, "p2", data)
        z = prior_samples(run.model, 16)
        code = "([i, z]) => z.map((entry) => [...decode(models[i], entry)])"
        decoded = torch.tensor(page.evaluate(code, [index, z.tolist()]))
        expected = run.model.decode(z).detach().flatten(1)
        assert (decoded - expected).abs().max() <= 1e-5


def test_a_key_changes_the_image(opened):
    page = opened()
    page.wait_for_function(QUIET)
    picture = "$('pictures').querySelector('canvas').toDataURL()"
    before = page.evaluate(picture)
    page.locator("#sliders input").first.focus()
    page.keyboard.press("End")
    page.wait_for_function(f"(before) => {picture} !== before", arg=before)


def test_the_keyboard_reaches_and_moves_everything(opened):
    page = opened()
    buttons = "[...document.querySelectorAll('button, [type=range], [type=checkbox]')]"
    names = page.evaluate(f"{buttons}.map((entry) => entry.id || entry.ariaLabel)")
    assert len(names) == 8 + 2 + 4 + 10 + 16 + 12
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.ariaLabel")
        names = [other for other in names if other != name]
    assert not names
    slider = page.locator("#sliders input").first
    slider.focus()
    for key, value in {"End": 3, "Home": -3, "PageUp": -2.4, "ArrowRight": -2.3}.items():
        page.keyboard.press(key)
        assert float(slider.input_value()) == pytest.approx(value), key
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^-2.3 standard"))


def test_an_address_can_be_shared_and_an_invalid_one_is_ignored(opened):
    page = opened()
    page.get_by_role("radio", name="FC-VAE").check()
    page.get_by_role("button", name="image 3").click()
    assert page.locator("#pictures canvas").count() == 2  # the same image, in both models
    page.locator("#sliders input").first.press("End")
    page.wait_for_function("location.hash.includes('offsets')")
    again = opened(fragment=page.evaluate("location.hash"))
    state = "JSON.stringify({ ...state, model: state.model.key })"
    assert again.evaluate(state) == page.evaluate(state)
    assert "FC-VAE" in again.locator("figcaption").first.inner_text()
    invalid = (
        "model=<b>&a=image 99&alpha=x&offsets=1:2,zz,:",
        "%",
        "alpha=1e999&offsets=__proto__:1",
    )
    for fragment in invalid:
        again.evaluate("(text) => (location.hash = text)", fragment)
        again.wait_for_function("state.model === models[0] && state.a.type === 'sample'")


def test_an_older_address_leads_to_the_same_location(opened):
    latent = opened().evaluate("models[0].dimensions[0][0]")
    state = "JSON.stringify({ ...state, model: state.model.key })"
    today, older = (
        opened(fragment=fragment).evaluate(state)
        for fragment in (
            f"#a=sample 8&b=image 1&alpha=0.25&offsets={latent}:1.5",
            f"#a=draw 8&b=image 1&mix=0.25&moves={latent}:1.5",
        )
    )
    assert today == older
    assert '"number":8' in today
    assert '"alpha":0.25' in today
    assert f'"{latent}":1.5' in today


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_walk_to_b_can_be_stopped(opened, motion):
    page = opened(reduced_motion=motion)
    page.get_by_role("button", name="Walk").click()
    page.wait_for_function("state.alpha > 0.1")
    if motion == "reduce":
        steps = 9 * page.evaluate("state.alpha")
        assert steps == pytest.approx(round(steps))
    page.get_by_role("button", name="Stop").click()
    alpha = page.evaluate("state.alpha")
    page.wait_for_timeout(300)
    assert page.evaluate("[state.alpha, walking]") == [alpha, 0]


def test_without_javascript_there_is_a_strip(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("#still img").is_visible() and not page.locator("#live").is_visible()
