"use strict";

// The decoder. A model's weights are 16-bit floats in base64, layer after layer as PyTorch has them;
// a batch is always one image, so that an array of numbers is all that goes from layer to layer.

function floatOfHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function unpack(base64) {
  const text = atob(base64), table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) table[bits] = floatOfHalf(bits);
  const values = new Float32Array(text.length / 2);
  for (let i = 0; i < values.length; i++) {
    values[i] = table[text.charCodeAt(2 * i) | (text.charCodeAt(2 * i + 1) << 8)];
  }
  return values;
}

// y = W x + b, with W [to, from]
function linear(x, weight, bias) {
  const y = new Float32Array(bias.length);
  for (let row = 0, at = 0; row < y.length; row++) {
    let sum = bias[row];
    for (let i = 0; i < x.length; i++) sum += weight[at++] * x[i];
    y[row] = sum;
  }
  return y;
}

// Kernel 4, stride 2, padding 1: x [channels, h, w] becomes [to, 2h, 2w], with W [channels, to, 4, 4].
// Each place (i, j) of x gives a patch [to, 4, 4], which is added with its corner at (2i - 1, 2j - 1);
// behind a ReLU, half of x is 0 and gives nothing.
function deconvolution(x, [channels, h, w], weight, bias) {
  const area = 4 * h * w, width = 2 * w, patch = new Float64Array(16 * bias.length);
  const y = new Float32Array(bias.length * area);
  bias.forEach((value, to) => y.fill(value, to * area, (to + 1) * area));
  for (let i = 0; i < h; i++) {
    for (let j = 0; j < w; j++) {
      patch.fill(0);
      for (let from = 0; from < channels; from++) {
        const value = x[(from * h + i) * w + j], at = from * patch.length;
        if (value === 0) continue;
        for (let k = 0; k < patch.length; k++) patch[k] += value * weight[at + k];
      }
      for (let k = 0; k < patch.length; k++) {
        const row = 2 * i - 1 + ((k >> 2) & 3), column = 2 * j - 1 + (k & 3);
        if (row < 0 || row >= 2 * h || column < 0 || column >= width) continue;
        y[(k >> 4) * area + row * width + column] += patch[k];
      }
    }
  }
  return y;
}

// Returns the image's values, channel after channel; what leaves [0, 1] is cut off when painted.
function decode(model, z) {
  model.weights ??= unpack(document.getElementById(model.packed).textContent);
  let x = Float32Array.from(z), shape = [z.length], at = 0;
  const next = (count) => model.weights.subarray(at, (at += count));
  for (const layer of model.layers) {
    if (layer.type === "linear") {
      x = linear(x, next(layer.from * layer.to), next(layer.to));
    } else if (layer.type === "deconvolution") {
      x = deconvolution(x, shape, next(shape[0] * layer.to * 16), next(layer.to));
      shape = [layer.to, 2 * shape[1], 2 * shape[2]];
    } else if (layer.type === "reshape") {
      shape = layer.shape;
    } else if (layer.type === "relu") {
      x = x.map((value) => Math.max(value, 0));
    } else {
      x = x.map((value) => 1 / (1 + Math.exp(-value)));
    }
  }
  return x;
}

function paint(canvas, model, z) {
  const values = decode(model, z), [, height, width] = model.shape, area = height * width;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * values[c * area + i]);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The latent space. A location is the ends A and B, each a sample or an encoded image, alpha on the
// path between them, and the offsets that are added to single latents.

// Standard normal numbers, the same for a seed: mulberry32, then Box and Muller.
function sample(seed, count) {
  let state = Math.imul(seed + 1, 0x9e3779b1);
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

const latentOf = (end, model) =>
  end.type === "image" ? model.means[end.number] : sample(end.number, model.latents);

const norm = (z) => Math.hypot(...z);

function interpolate(first, second, alpha, sphere) {
  let [p, q] = [1 - alpha, alpha];
  if (sphere) {
    const dot = first.reduce((sum, value, i) => sum + value * second[i], 0);
    const angle = Math.acos(Math.min(1, Math.max(-1, dot / norm(first) / norm(second))));
    if (Math.sin(angle) > 1e-4) {
      const length = p * norm(first) + q * norm(second);
      p = (Math.sin(p * angle) / Math.sin(angle)) * (length / norm(first));
      q = (Math.sin(q * angle) / Math.sin(angle)) * (length / norm(second));
    }
  }
  return Float32Array.from(first, (value, i) => p * value + q * second[i]);
}

function withOffsets(z, offsets) {
  z = z.slice();
  for (const [dimension, offset] of Object.entries(offsets)) z[dimension] += offset;
  return z;
}

// The page.

const STEPS = 10, TILES = 16, MAX_OFFSET = 3;
const { models, images } = JSON.parse(document.getElementById("about").textContent);
models.forEach((model, i) => (model.packed = `weights-${i}`));
const $ = (id) => document.getElementById(id);
const state = { offsets: {} };

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Images that can wait are painted after a pause, one a task: keys are answered in between.
const waiting = new Map();
let timer = 0;
function paintLater(canvas, model, z) {
  waiting.set(canvas, () => canvas.isConnected && paint(canvas, model, z()));
  clearTimeout(timer);
  timer = setTimeout(paintNext, 150);
}
function paintNext() {
  for (const [canvas, job] of waiting) {
    waiting.delete(canvas);
    job();
    timer = setTimeout(paintNext);
    return;
  }
  writeAddress();
}

// What is seen large: an image for each model, once a frame at most.
let frame = 0;
function showLocation() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    for (const { canvas, model } of pictures) paint(canvas, model, currentLatents(model));
    if (pictures.length > 1) {
      const { number } = state.alpha < 0.5 ? state.a : state.b;
      original.src = pngOf(number);
      original.alt = `image ${number}, before it was encoded`;
    }
    $("alpha").value = state.alpha;
    $("alpha").setAttribute("aria-valuetext", `${Math.round(100 * state.alpha)} % of the path`);
    for (const slider of sliders) slider.show();
    const step = Math.round(state.alpha * (STEPS - 1));
    for (const button of $("strips").querySelectorAll("button")) {
      button.classList.toggle("current", Number(button.dataset.step) === step);
    }
  });
}

// The offsets are for the chosen model only: the same latent means something else to another.
function currentLatents(model) {
  const [a, b] = [latentOf(state.a, model), latentOf(state.b, model)];
  const z = interpolate(a, b, state.alpha, state.sphere);
  return model === state.model ? withOffsets(z, state.offsets) : z;
}

// The chosen model, and where both ends are encoded images all others of these images.
function visibleModels() {
  const encoded = state.a.type === "image" && state.b.type === "image";
  const others = models.filter((entry) => encoded && entry.data === state.model.data);
  return [state.model, ...others.filter((entry) => entry !== state.model)];
}

let pictures = [], original = null;
function showPictures() {
  pictures = visibleModels().map((model) => {
    const name = `${model.title}, ${model.data}`;
    return { model, name, canvas: element("canvas", { role: "img", "aria-label": name }) };
  });
  const figures = pictures.map(({ canvas, name }) =>
    element("figure", {}, canvas, element("figcaption", {}, name)));
  if (pictures.length > 1) {
    original = element("img");
    figures.push(element("figure", {}, original, element("figcaption", {}, "before it was encoded")));
  }
  $("stage").className = figures.length > 1 ? "several" : "";
  $("pictures").replaceChildren(...figures);
}

function showStrips() {
  $("strips").replaceChildren(...visibleModels().map((model) => {
    const strip = element("div", { class: "strip", role: "group", "aria-label": model.title });
    for (let step = 0; step < STEPS; step++) {
      const alpha = step / (STEPS - 1), label = `α = ${alpha.toFixed(2)}, ${model.title}`;
      const [canvas, button] = tile(label, () => set({ alpha }));
      button.dataset.step = step;
      const [a, b, sphere] = [state.a, state.b, state.sphere];
      paintLater(canvas, model, () =>
        interpolate(latentOf(a, model), latentOf(b, model), alpha, sphere));
      strip.append(button);
    }
    return strip;
  }));
}

const pngOf = (number) => `data:image/png;base64,${images[state.model.data][number]}`;

function tile(label, onClick, picture = element("canvas", { "aria-hidden": "true" })) {
  const button = element("button", { type: "button", "aria-label": label, title: label }, picture);
  button.addEventListener("click", onClick);
  return [picture, button];
}

// Both ends are samples, or both are images: the other end becomes the next one.
function choose(type, number, end = document.querySelector("input[name=end]:checked").value) {
  const other = end === "a" ? "b" : "a", next = (number + 1) % images[state.model.data].length;
  const changes = { [end]: { type, number }, alpha: end === "a" ? 0 : 1, offsets: {} };
  if (state[other].type !== type) changes[other] = { type, number: next };
  set(changes);
  $("status").textContent = `${type} ${number} is now ${end.toUpperCase()}`;
}

function showSamples() {
  $("samples").replaceChildren(...Array.from({ length: TILES }, (_, i) => {
    const [number, model] = [state.first + i, state.model];
    const [canvas, button] = tile(`sample ${number}`, () => choose("sample", number));
    button.dataset.end = `sample ${number}`;
    paintLater(canvas, model, () => sample(number, model.latents));
    return button;
  }));
}

function showImages() {
  $("images").replaceChildren(...images[state.model.data].map((_, number) => {
    const picture = element("img", { alt: "", src: pngOf(number) });
    const button = tile(`image ${number}`, () => choose("image", number), picture)[1];
    button.dataset.end = `image ${number}`;
    return button;
  }));
}

function markEnds() {
  const names = Object.fromEntries(["b", "a"].map((end) =>
    [`${state[end].type} ${state[end].number}`, end.toUpperCase()]));
  for (const button of document.querySelectorAll("[data-end]")) {
    const end = names[button.dataset.end];
    button.classList.toggle("chosen", Boolean(end));
    button.setAttribute("aria-label", button.dataset.end + (end ? `, chosen as ${end}` : ""));
    button.dataset.mark = end || "";
  }
}

let sliders = [];
function showSliders() {
  sliders = state.model.dimensions.map(([dimension, kl]) => {
    const model = state.model, id = `latent-${dimension}`;
    const limits = { min: -MAX_OFFSET, max: MAX_OFFSET, step: 0.1 };
    const input = element("input", { type: "range", id, ...limits });
    const label = element("label", { for: id }, `latent ${dimension}`);
    label.append(element("small", {}, ` ${kl.toFixed(1)} nats`));
    const [least, most] = [-MAX_OFFSET, MAX_OFFSET].map((offset) => {
      return { canvas: element("canvas", { "aria-hidden": "true" }), offset };
    });
    const output = element("output", { for: id });
    const parts = [label, least.canvas, input, most.canvas, output];
    const row = element("div", { class: "slider" }, ...parts);
    input.addEventListener("input", () => {
      state.offsets[dimension] = Number(input.value);
      showLocation();
    });
    const show = () => {
      input.value = state.offsets[dimension] || 0;
      output.textContent = Number(input.value).toFixed(1).replace("-", "−");
      input.setAttribute("aria-valuetext", `${input.value} standard deviations of the prior`);
      for (const { canvas, offset } of [least, most]) {
        const latents = () => {
          const change = offset - (state.offsets[dimension] || 0);
          return withOffsets(currentLatents(model), { [dimension]: change });
        };
        paintLater(canvas, model, latents);
      }
    };
    return { row, show };
  });
  $("sliders").replaceChildren(...sliders.map((slider) => slider.row));
}

// Changes the state, and whatever of the page depends on what has changed.
function set(changes) {
  Object.assign(state, changes);
  const has = (...names) => names.some((name) => name in changes);
  if (has("model")) {
    showSliders();
    showImages();
    for (const radio of document.querySelectorAll("[name=model]")) {
      radio.checked = models[radio.value] === state.model;
    }
  }
  if (has("model", "a", "b")) showPictures();
  showLocation();
  if (has("model", "a", "b", "sphere")) showStrips();
  if (has("model", "first")) showSamples();
  if (has("model", "a", "b", "first")) markEnds();
  if (has("sphere")) $("sphere").checked = state.sphere;
}

// The address: #model=…&a=sample 3&b=image 5&alpha=0.50&sphere=1&offsets=22:1.5,96:-0.3
function writeAddress() {
  const text = (end) => `${end.type} ${end.number}`;
  const parts = { model: state.model.key, a: text(state.a), b: text(state.b) };
  parts.alpha = state.alpha.toFixed(2);
  if (state.sphere) parts.sphere = 1;
  const offsets = Object.entries(state.offsets).filter(([, offset]) => offset);
  if (offsets.length) parts.offsets = offsets.map((pair) => pair.join(":")).join(",");
  history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
}

// An invalid part of the address is ignored. Older addresses have "draw" for a sample, "mix" for
// alpha and "moves" for the offsets.
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const model = models.find((entry) => entry.key === parts.get("model")) || models[0];
  const a = readEnd(parts.get("a"), model) || { type: "sample", number: 2 };
  const b = readEnd(parts.get("b"), model) || { type: "sample", number: 3 };
  const alpha = clamp(parts.get("alpha") ?? parts.get("mix"), 0, 1);
  const offsets = readOffsets(parts.get("offsets") ?? parts.get("moves") ?? "", model);
  set({ model, a, b, alpha, sphere: parts.has("sphere"), offsets, first: 0 });
}

function readEnd(text, model) {
  const match = /^(sample|draw|image) (\d{1,9})$/.exec(text);
  if (!match) return null;
  const number = Number(match[2]);
  if (match[1] !== "image") return { type: "sample", number };
  return number < images[model.data].length ? { type: "image", number } : null;
}

function readOffsets(text, model) {
  const offsets = {};
  for (const pair of text.split(",")) {
    const [dimension, offset] = pair.split(":");
    if (model.dimensions.some(([number]) => String(number) === dimension)) {
      offsets[dimension] = clamp(offset, -MAX_OFFSET, MAX_OFFSET);
    }
  }
  return offsets;
}

const clamp = (text, least, most) => Math.min(most, Math.max(least, Number(text) || 0));

// From A to B and back: smoothly, or where the reader wants no motion a step a second.
let walking = 0;
function walk() {
  if (walking) return stop();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const [start, startTime] = [state.alpha, performance.now()];
  const position = (now) => {
    const seconds = (now - startTime) / 1000;
    const traveled = calm ? Math.floor(seconds) / (STEPS - 1) : seconds / 6;
    return 1 - Math.abs(1 - ((start + traveled) % 2));
  };
  const go = () => set({ alpha: position(performance.now()) });
  const step = () => {
    go();
    walking = requestAnimationFrame(step);
  };
  walking = calm ? setInterval(go, 1000) : requestAnimationFrame(step);
  $("walk").textContent = "Stop";
}
function stop() {
  cancelAnimationFrame(walking);
  clearInterval(walking);
  walking = 0;
  $("walk").textContent = "Walk to B and back";
}

models.forEach((model, i) => {
  const radio = element("input", { type: "radio", name: "model", value: i });
  radio.addEventListener("change", () => set({ model, offsets: {} }));
  $("models").append(element("label", {}, radio, ` ${model.title}, ${model.data}`));
});
$("alpha").addEventListener("input", () => {
  stop();
  set({ alpha: Number($("alpha").value) });
});
$("sphere").addEventListener("change", () => set({ sphere: $("sphere").checked }));
$("new").addEventListener("click", () => choose("sample", Math.floor(1e6 * Math.random()), "a"));
$("walk").addEventListener("click", walk);
$("reset").addEventListener("click", () => {
  stop();
  set({ alpha: 0, offsets: {} });
  $("status").textContent = "back at A";
});
$("others").addEventListener("click", () => set({ first: state.first + TILES }));
addEventListener("keydown", (event) => event.key === "Escape" && walking && stop());
addEventListener("hashchange", readAddress);
$("still").hidden = true;
$("live").hidden = false;
readAddress();
