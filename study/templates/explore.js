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
    if (layer.kind === "linear") {
      x = linear(x, next(layer.from * layer.to), next(layer.to));
    } else if (layer.kind === "deconvolution") {
      x = deconvolution(x, shape, next(shape[0] * layer.to * 16), next(layer.to));
      shape = [layer.to, 2 * shape[1], 2 * shape[2]];
    } else if (layer.kind === "reshape") {
      shape = layer.shape;
    } else if (layer.kind === "relu") {
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

// The latent space. A place is the ends A and B, each a draw or an encoded image, alpha on the way
// between them, and what is added to single dimensions.

// Standard normal numbers, the same for a seed: mulberry32, then Box and Muller.
function draw(seed, count) {
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
  end.kind === "image" ? model.means[end.number] : draw(end.number, model.latents);

const norm = (z) => Math.hypot(...z);

function between(one, other, alpha, sphere) {
  let [p, q] = [1 - alpha, alpha];
  if (sphere) {
    const dot = one.reduce((sum, value, i) => sum + value * other[i], 0);
    const angle = Math.acos(Math.min(1, Math.max(-1, dot / norm(one) / norm(other))));
    if (Math.sin(angle) > 1e-4) {
      const length = p * norm(one) + q * norm(other);
      p = (Math.sin(p * angle) / Math.sin(angle)) * (length / norm(one));
      q = (Math.sin(q * angle) / Math.sin(angle)) * (length / norm(other));
    }
  }
  return Float32Array.from(one, (value, i) => p * value + q * other[i]);
}

function moved(z, changes) {
  z = z.slice();
  for (const [dimension, distance] of Object.entries(changes)) z[dimension] += distance;
  return z;
}

// The page.

const STEPS = 10, DRAWS = 16, REACH = 3;
const { models, images } = JSON.parse(document.getElementById("about").textContent);
models.forEach((model, i) => (model.packed = `weights-${i}`));
const $ = (id) => document.getElementById(id);
const state = { moves: {} };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Images that can wait are painted after a pause, one a task: keys are answered in between.
const waiting = new Map();
let timer = 0;
function soon(canvas, model, z) {
  waiting.set(canvas, () => canvas.isConnected && paint(canvas, model, z()));
  clearTimeout(timer);
  timer = setTimeout(work, 150);
}
function work() {
  for (const [canvas, job] of waiting) {
    waiting.delete(canvas);
    job();
    timer = setTimeout(work);
    return;
  }
  remember();
}

// What is seen large: an image for each model, once a frame at most.
let frame = 0;
function changed() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    for (const { canvas, model } of pictures) paint(canvas, model, here(model));
    if (pictures.length > 1) {
      const { number } = state.mix < 0.5 ? state.a : state.b;
      original.src = pngOf(number);
      original.alt = `image ${number}, before it was encoded`;
    }
    $("mix").value = state.mix;
    $("mix").setAttribute("aria-valuetext", `${Math.round(100 * state.mix)} % of the way`);
    for (const slider of sliders) slider.show();
    const step = Math.round(state.mix * (STEPS - 1));
    for (const button of $("strips").querySelectorAll("button")) {
      button.classList.toggle("here", Number(button.dataset.step) === step);
    }
  });
}

// Only the chosen model is moved along single dimensions, which are its own.
function here(model) {
  const z = between(latentOf(state.a, model), latentOf(state.b, model), state.mix, state.sphere);
  return model === state.model ? moved(z, state.moves) : z;
}

// The chosen model, and where both ends are encoded images all others of these images.
function shown() {
  const encoded = state.a.kind === "image" && state.b.kind === "image";
  const others = models.filter((one) => encoded && one.data === state.model.data);
  return [state.model, ...others.filter((one) => one !== state.model)];
}

let pictures = [], original = null;
function showPictures() {
  pictures = shown().map((model) => {
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
  $("strips").replaceChildren(...shown().map((model) => {
    const strip = element("div", { class: "strip", role: "group", "aria-label": model.title });
    for (let step = 0; step < STEPS; step++) {
      const alpha = step / (STEPS - 1), label = `α = ${alpha.toFixed(2)}, ${model.title}`;
      const [canvas, button] = tile(label, () => set({ mix: alpha }));
      button.dataset.step = step;
      const [a, b, sphere] = [state.a, state.b, state.sphere];
      soon(canvas, model, () => between(latentOf(a, model), latentOf(b, model), alpha, sphere));
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

// Both ends are draws, or both are images: the other one becomes the next of its kind.
function choose(kind, number, end = document.querySelector("input[name=end]:checked").value) {
  const other = end === "a" ? "b" : "a", next = (number + 1) % images[state.model.data].length;
  const changes = { [end]: { kind, number }, mix: end === "a" ? 0 : 1, moves: {} };
  if (state[other].kind !== kind) changes[other] = { kind, number: next };
  set(changes);
  $("status").textContent = `${kind} ${number} is now ${end.toUpperCase()}`;
}

function showDraws() {
  $("draws").replaceChildren(...Array.from({ length: DRAWS }, (_, i) => {
    const [number, model] = [state.first + i, state.model];
    const [canvas, button] = tile(`draw ${number}`, () => choose("draw", number));
    button.dataset.end = `draw ${number}`;
    soon(canvas, model, () => draw(number, model.latents));
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
    [`${state[end].kind} ${state[end].number}`, end.toUpperCase()]));
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
    const input = element("input", { type: "range", id, min: -REACH, max: REACH, step: 0.1 });
    const label = element("label", { for: id }, `latent ${dimension}`);
    label.append(element("small", {}, ` ${kl.toFixed(1)} nats`));
    const ends = [-REACH, REACH].map((distance) => [element("canvas", { "aria-hidden": "true" }), distance]);
    const output = element("output", { for: id });
    const row = element("div", { class: "slider" }, label, ends[0][0], input, ends[1][0], output);
    input.addEventListener("input", () => {
      state.moves[dimension] = Number(input.value);
      changed();
    });
    const show = () => {
      input.value = state.moves[dimension] || 0;
      output.textContent = Number(input.value).toFixed(1).replace("-", "−");
      input.setAttribute("aria-valuetext", `${input.value} standard deviations of the prior`);
      for (const [canvas, distance] of ends) {
        soon(canvas, model, () => moved(here(model), { [dimension]: distance - (state.moves[dimension] || 0) }));
      }
    };
    return { row, show };
  });
  $("sliders").replaceChildren(...sliders.map((slider) => slider.row));
}

// Changes the state, and whatever of the page depends on what has changed.
function set(changes) {
  Object.assign(state, changes);
  const is = (...names) => names.some((name) => name in changes);
  if (is("model")) {
    showSliders();
    showImages();
    for (const radio of document.querySelectorAll("[name=model]")) {
      radio.checked = models[radio.value] === state.model;
    }
  }
  if (is("model", "a", "b")) showPictures();
  changed();
  if (is("model", "a", "b", "sphere")) showStrips();
  if (is("model", "first")) showDraws();
  if (is("model", "a", "b", "first")) markEnds();
  if (is("sphere")) $("sphere").checked = state.sphere;
}

// The address: #model=…&a=draw 3&b=image 5&mix=0.50&sphere=1&moves=22:1.5,96:-0.3
function remember() {
  const text = (end) => `${end.kind} ${end.number}`;
  const found = { model: state.model.key, a: text(state.a), b: text(state.b) };
  found.mix = state.mix.toFixed(2);
  if (state.sphere) found.sphere = 1;
  const moves = Object.entries(state.moves).filter(([, distance]) => distance);
  if (moves.length) found.moves = moves.map((move) => move.join(":")).join(",");
  history.replaceState(null, "", `#${new URLSearchParams(found)}`);
}

// Whatever in the address makes no sense is as if it were not there.
function recall() {
  const found = new URLSearchParams(location.hash.slice(1));
  const model = models.find((one) => one.key === found.get("model")) || models[0];
  const end = (name, number) => {
    const [, kind, digits] = /^(draw|image) (\d{1,9})$/.exec(found.get(name)) || [];
    const known = kind === "draw" || Number(digits) < images[model.data].length;
    return known ? { kind, number: Number(digits) } : { kind: "draw", number };
  };
  const within = (text, least, most) => Math.min(most, Math.max(least, Number(text) || 0));
  const moves = {};
  for (const move of (found.get("moves") || "").split(",")) {
    const [dimension, distance] = move.split(":");
    if (model.dimensions.some(([known]) => String(known) === dimension)) {
      moves[dimension] = within(distance, -REACH, REACH);
    }
  }
  const [a, b, mix] = [end("a", 2), end("b", 3), within(found.get("mix"), 0, 1)];
  set({ model, a, b, mix, sphere: found.has("sphere"), moves, first: 0 });
}

// From A to B and back: smoothly, or where the reader wants no motion a step a second.
let walking = 0;
function walk() {
  if (walking) return stop();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const [start, begun] = [state.mix, performance.now()];
  const position = (now) => {
    const way = calm ? Math.floor((now - begun) / 1000) / (STEPS - 1) : (now - begun) / 6000;
    return 1 - Math.abs(1 - ((start + way) % 2));
  };
  const go = () => set({ mix: position(performance.now()) });
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
  radio.addEventListener("change", () => set({ model, moves: {} }));
  $("models").append(element("label", {}, radio, ` ${model.title}, ${model.data}`));
});
$("mix").addEventListener("input", () => {
  stop();
  set({ mix: Number($("mix").value) });
});
$("sphere").addEventListener("change", () => set({ sphere: $("sphere").checked }));
$("new").addEventListener("click", () => choose("draw", Math.floor(1e6 * Math.random()), "a"));
$("walk").addEventListener("click", walk);
$("reset").addEventListener("click", () => {
  stop();
  set({ mix: 0, moves: {} });
  $("status").textContent = "back at A";
});
$("others").addEventListener("click", () => set({ first: state.first + DRAWS }));
addEventListener("keydown", (event) => event.key === "Escape" && walking && stop());
addEventListener("hashchange", recall);
$("still").hidden = true;
$("live").hidden = false;
recall();
