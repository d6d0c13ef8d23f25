"""What a training runs on: device, precision, processor."""

import json
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vae_core.config import Config
from vae_core.models import MODELS
from vae_core.storage import DATA, atomic_write, print_error
from vae_core.training import Trainer

MARGIN = 1.15  # how much faster than float32 bfloat16 has to be to be chosen
MEASURED_SECONDS = 0.3  # of each precision, at most, after one step to warm up
MEASURED_STEPS = 6  # of each precision, at most
CACHE = DATA / "cache" / "precision.json"

KNOWN_CHOICES: dict[str, "PrecisionChoice"] = {}  # of this process, by `measurement_key`


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a training, and the measurement behind it.

    `images_per_second` is the speed of a training step by precision; empty where nothing was
    measured because the precision was given or bfloat16 is not supported.
    """

    precision: str
    images_per_second: dict[str, float] = field(default_factory=dict)


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of this name, or the best available one: CUDA, then MPS, then the CPU.

    Raises ValueError where this machine does not have the named device.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    with suppress(RuntimeError):  # torch knows no device of this name
        device = torch.device(available[0] if name is None else name)
        if device.type in available:
            return device
    raise ValueError(f"unknown device {name!r}; this machine has {', '.join(available)}")


def choose_precision(
    config: Config, image_shape: tuple[int, int, int], device: torch.device
) -> PrecisionChoice:
    """Return the precision of a training: the configured one, or for "auto" the faster one.

    If the device supports bfloat16, a few training steps of the model are timed at its batch size
    in both precisions; bfloat16 is chosen if it is at least `MARGIN` times as fast. This is done
    once for each process and processor, printed on one line, and kept in
    `data/cache/precision.json`. A model with a closed form, which takes no such step, is float32.
    """
    if config.precision != "auto":
        return PrecisionChoice(config.precision)
    if MODELS[config.model].closed_form or not supports_bfloat16(device):
        return PrecisionChoice("float32")
    key = measurement_key(config, image_shape, device)
    if key not in KNOWN_CHOICES:
        stored = read_stored_choices()
        if key in stored:
            KNOWN_CHOICES[key] = stored[key]
        else:
            speeds = measure_speeds(config, image_shape, device)
            KNOWN_CHOICES[key] = PrecisionChoice(faster_precision(speeds), speeds)
            store_choice(key, KNOWN_CHOICES[key])
            print_error(describe_choice(config, KNOWN_CHOICES[key]))
    return KNOWN_CHOICES[key]


def faster_precision(images_per_second: dict[str, float]) -> str:
    """Return "bfloat16" if it is at least `MARGIN` times as fast as float32, else "float32"."""
    faster = images_per_second["bfloat16"] >= MARGIN * images_per_second["float32"]
    return "bfloat16" if faster else "float32"


def describe_choice(config: Config, choice: PrecisionChoice) -> str:
    """Return one line about a measured choice."""
    speeds = [f"{name} {speed:,.0f}" for name, speed in choice.images_per_second.items()]
    return (
        f"precision {choice.precision} chosen for model {config.model}, batch size "
        f"{config.params.batch_size}: images per second {', '.join(speeds)}"
    )


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16; emulation, which is slow, does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def measurement_key(config: Config, image_shape: tuple[int, int, int], device: torch.device) -> str:
    """Return a text that names everything the speed of a training step depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    facts = {
        "processor": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": config.model,
        "batch_size": config.params.batch_size,
        "latent_dim": config.params.latent_dim,
        "image_shape": list(image_shape),
    }
    return json.dumps(facts)


def measure_speeds(
    config: Config, image_shape: tuple[int, int, int], device: torch.device
) -> dict[str, float]:
    """Return the images per second of a training step in float32 and in bfloat16.

    The precisions take turns, so that a slow moment of the machine affects both; the fastest step
    of each counts, since other programs can only slow a step down.
    """
    batch_size = config.params.batch_size
    images = torch.zeros(batch_size, *image_shape, dtype=torch.uint8, device=device)
    trainers = {
        precision: Trainer(config, image_shape, images, precision)
        for precision in ("float32", "bfloat16")
    }
    noise = torch.Generator().manual_seed(0)
    fastest, spent = {}, 0.0
    for step in range(1 + MEASURED_STEPS):
        for precision, trainer in trainers.items():
            seconds = timed_step(trainer, images, noise)
            if step > 0:  # the first step is slower, since memory is allocated
                fastest[precision] = min(seconds, fastest.get(precision, seconds))
                spent += seconds
        if spent > 2 * MEASURED_SECONDS:
            break
    return {precision: batch_size / seconds for precision, seconds in fastest.items()}


def timed_step(trainer: Trainer, images: torch.Tensor, noise: torch.Generator) -> float:
    """Take one training step; return its seconds."""
    start = time.perf_counter()
    trainer.train_step(images, progress=0.5, noise=noise)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start


def read_stored_choices() -> dict[str, PrecisionChoice]:
    """Return the choices in the cache file; none where it is missing or damaged."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        stored = json.loads(CACHE.read_text())
        return {key: PrecisionChoice(**choice) for key, choice in stored.items()}
    return {}


def store_choice(key: str, choice: PrecisionChoice) -> None:
    """Add a choice to the cache file; if that fails, it is measured again next time."""
    stored = read_stored_choices() | {key: choice}
    content = {key: vars(choice) for key, choice in stored.items()}
    with suppress(OSError):
        atomic_write(CACHE, json.dumps(content, indent=1) + "\n")


def processor() -> str:
    """Return the processor's name, as far as it can be known."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()
