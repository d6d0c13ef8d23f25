"""What a training runs on: device, precision, processor."""

import platform
from contextlib import suppress
from pathlib import Path

import torch


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of this name, or the best there is: CUDA, then MPS, then the CPU.

    Raises ValueError where this machine does not have the device that was named.
    """
    works = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [kind for kind in works if works[kind]] + ["cpu"]
    with suppress(RuntimeError):  # torch knows no device of this name
        device = torch.device(there[0] if name is None else name)
        if device.type in there:
            return device
    raise ValueError(f"unknown device {name!r}; this machine has {', '.join(there)}")


def choose_precision(precision: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16"; "auto" becomes what the hardware is made for.

    A CPU without AVX512-BF16 or AMX instructions emulates bfloat16, slower than float32.
    """
    if precision != "auto":
        return precision
    made_for_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        there = torch.cpu.get_capabilities()
        made_for_it = there.get("avx512_bf16") or there.get("amx_bf16")
    return "bfloat16" if made_for_it else "float32"


def processor() -> str:
    """Return the processor's name, as well as it can be known."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()
