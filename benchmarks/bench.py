"""Training speed, side by side: a usual notebook's recipe against this project.

`make bench` runs it. Every measurement has a process of its own, because the allocator setting
that this project makes holds for a whole process and must not help the recipe beside it. The
configurations take turns, `--repeats` times, and the medians are compared.
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import types
from functools import partial
from itertools import islice, product
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BATCH = 128
IMAGES = {"conv": 6_400, "fc": 12_800}
SIZES = (5_000, 50_000)
SIZE_REPEATS = 2
SEVERAL = 6  # trainings
TITLES = {
    "dataloader-2": "PIL dataset, DataLoader with 2 workers, float32",
    "dataloader-0": "PIL dataset, DataLoader without workers, float32",
    "float32": "this project, float32",
    "bfloat16": "this project, bfloat16",
    "pythae": "pythae's trainer, in memory, float32",
}


def main() -> None:
    """Measure everything, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=FOLDER / "results.json")
    parser.add_argument("--several", action="store_true", help="only several runs at once")
    parser.add_argument("--worker", nargs=3, metavar=("CONFIGURATION", "MODEL", "IMAGES"))
    options = parser.parse_args()
    if options.worker:
        configuration, model, images = options.worker
        print(json.dumps(measure(configuration, model, int(images))))
        return
    from vae_core.runs.hardware import processor

    machine = {"processor": processor(), "cores": os.cpu_count()}
    several = {**machine, "seconds": measure_several(options.repeats)}
    if options.several:
        results = json.loads(options.output.read_text())
        options.output.write_text(json.dumps(results | {"several": several}, indent=2) + "\n")
        print(several_line(several))
        return
    speeds, peak = measure_speeds(options.repeats)
    results = {
        "machine": {**machine, "python": platform.python_version()},
        "batch_size": BATCH,
        "images_per_second": speeds,
        "peak": peak,
        "choice": {model: in_own_process("choice", model, 0) for model in IMAGES},
        "scaling": measure_scaling(),
        "several": several,
    }
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{table(results)}\n\nwritten to {options.output}")


def measure_several(repeats: int) -> dict[str, list[float]]:
    """Return the seconds of several trainings, one after the other and shared out to workers."""
    seconds = {"in turn": [], "engine": []}
    for repeat in range(repeats):
        for name, times in seconds.items():
            times.append(in_own_process(name, "", 0)["seconds"])
            print(f"{repeat + 1}/{repeats} {SEVERAL} runs, {name}: {times[-1]:.1f} s")
    return seconds


def measure_speeds(repeats: int) -> tuple[dict, dict]:
    """Return images per second by model and configuration, and the processor's peaks."""
    installed = [name for name in TITLES if name != "pythae" or importlib.util.find_spec(name)]
    speeds = {}
    for model in IMAGES:
        speeds[model] = {name: [] for name in installed}
    peaks = []
    for repeat in range(repeats):
        peaks.append(in_own_process("peak", "conv", 0))
        for model, images in IMAGES.items():
            for name in installed:
                speed = in_own_process(name, model, images)["images_per_second"]
                speeds[model][name].append(speed)
                print(f"{repeat + 1}/{repeats} {model} {name}: {speed:,.0f}")
    # Other programs on the machine can only lower a peak.
    peak = {}
    for name in peaks[0]:
        peak[name] = max(measured[name] for measured in peaks)
    return speeds, peak


def measure_scaling() -> dict:
    """Return speed and memory by model and number of images."""
    scaling = {}
    for model in IMAGES:
        scaling[model] = {str(size): [] for size in SIZES}
    for _ in range(SIZE_REPEATS):
        for model, size in product(IMAGES, SIZES):
            scaling[model][str(size)].append(in_own_process("auto", model, size))
    return scaling


def in_own_process(configuration: str, model: str, images: int) -> dict:
    """Run one measurement in a fresh process and return what it found."""
    command = [sys.executable, __file__, "--worker", configuration, model, str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{configuration} {model} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(configuration: str, model: str, images: int) -> dict:
    """Measure one configuration in this process: images per second and peak memory in MiB."""
    if configuration == "peak":
        return machine_peak()
    if configuration == "choice":
        return precision_choice(model)
    if configuration in ("in turn", "engine"):
        return several_runs(configuration == "engine")
    if configuration.startswith("dataloader"):
        speed = recipe_speed(model, images, workers=int(configuration[-1]))
    elif configuration == "pythae":
        speed = pythae_speed(model, images)
    else:
        speed = project_speed(model, images, configuration)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images_per_second": speed, "peak_mib": round(peak)}


def random_images(n: int):
    """Return uint8 images [n, 3, 32, 32]; speed does not depend on what they show."""
    import torch

    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)


def bench_config(model: str, **options):
    """Return the configuration that is measured."""
    from vae_core.config import Config, ParameterSet

    return Config(model, ParameterSet("bench", BATCH, 5e-4, 128), **options)


def project_speed(model: str, images: int, precision: str) -> float:
    """Time whole epochs of the project's own training; the first one warms up."""
    import torch

    from vae_core.runs.hardware import choose_precision
    from vae_core.training import train

    epochs = 2 if images == max(SIZES) else 3
    config = bench_config(model, max_epochs=epochs, precision=precision)
    device = torch.device("cpu")
    choice = choose_precision(config, (3, 32, 32), device)
    data = random_images(images), random_images(1)
    _, history = train(config, *data, device, precision=choice.precision)
    return images / min(row["seconds"] for row in history[1:])


def precision_choice(model: str) -> dict:
    """Measure anew which precision "auto" chooses here, and the speeds behind it."""
    import torch

    from vae_core.runs.hardware import faster_precision, measure_speeds

    speeds = measure_speeds(bench_config(model), (3, 32, 32), torch.device("cpu"))
    return {"precision": faster_precision(speeds), "images_per_second": speeds}


def without_allocator_setting() -> None:
    """Let modules of the package be imported without its `__init__`, which sets the allocator."""
    package = types.ModuleType("vae_core")
    package.__path__ = [str(FOLDER.parent / "vae_core")]
    sys.modules["vae_core"] = package


def recipe_speed(model_name: str, images: int, workers: int) -> float:
    """Time the recipe of most notebooks: PIL images, ToTensor, DataLoader, Adam, float32."""
    without_allocator_setting()
    import torch

    # As in vae_core/data/cifar10.py.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    with contextlib.suppress(RuntimeError):
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.datasets import CIFAR10
    from torchvision.transforms import ToTensor

    # The real data set's class with other images in it, since its file need not be here.
    dataset = object.__new__(CIFAR10)
    dataset.data = random_images(images).movedim(1, -1).numpy()
    dataset.targets = [0] * images
    dataset.transform, dataset.target_transform = ToTensor(), None
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
    from vae_core.loss import elbo
    from vae_core.models import MODELS

    model = MODELS[model_name](128, (3, 32, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    def epoch(steps=None):
        for batch, _ in islice(loader, steps):
            decoded, mu, logvar = model(batch)
            loss = elbo(decoded, batch, mu, logvar).total.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    epoch(steps=10)
    return images / min(timeit.repeat(epoch, gc.enable, number=1, repeat=2))


def pythae_speed(model_name: str, images: int) -> float:
    """Time pythae's trainer with the same networks."""
    without_allocator_setting()
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    from vae_core.models import MODELS

    ours = MODELS[model_name](128, (3, 32, 32))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.model = ours

        def forward(self, batch):
            mu, logvar = self.model.encode(batch)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.model = ours

        def forward(self, z):
            return ModelOutput(reconstruction=self.model.decode(z))

    model = VAE(VAEConfig((3, 32, 32), 128), encoder=Encoder(), decoder=Decoder())
    batch = random_images(images).float().div_(255)
    dataset = BaseDataset(batch, torch.zeros(images))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            folder,
            num_epochs=2,
            learning_rate=5e-4,
            per_device_train_batch_size=BATCH,
            train_dataloader_num_workers=0,
            no_cuda=True,
        )
        trainer = BaseTrainer(model, dataset, training_config=config)
        trainer.prepare_training()
        step = partial(trainer.train_step, 1)
        return images / min(timeit.repeat(step, gc.enable, number=1, repeat=2))


def several_runs(engine: bool) -> dict:
    """Time some trainings of both models, shared out among workers or one after the other."""
    import torch

    from vae_core.runs import train_or_load
    from vae_study.engine import run_all
    from vae_study.settings import Settings
    from vae_study.tasks import make_task

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(max_epochs=2, limit=6_400, checkpoints=Path(folder))
        runs = product(("conv", "fc"), range(SEVERAL // 2))
        tasks = [make_task(settings, model, "p2", "shapes", seed) for model, seed in runs]
        arguments = [task.arguments for task in tasks]  # loads the images
        start = time.perf_counter()
        if engine:
            run_all(tasks, settings)
        else:
            torch.set_num_threads(os.cpu_count())
            for run_arguments in arguments:
                train_or_load(**run_arguments, checkpoints=folder)
        return {"seconds": time.perf_counter() - start}


def several_line(several: dict) -> str:
    """Return a line that compares several runs at once with one after the other."""
    in_turn, engine = (statistics.median(times) for times in several["seconds"].values())
    return (
        f"{SEVERAL} trainings of two epochs: {in_turn:.1f} s one after the other with all threads, "
        f"{engine:.1f} s shared out among workers of one thread ({engine / in_turn:.2f})"
    )


def machine_peak() -> dict:
    """Measure the matrix product in GFLOP/s, and count what one training image costs."""
    import torch

    from vae_core.evaluation import operations
    from vae_core.models import MODELS

    measured = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(4096, 4096).to(dtype)
        multiply = partial(torch.mm, matrix, matrix)
        multiply()
        seconds = timeit.repeat(multiply, number=1, repeat=3)
        name = str(dtype).removeprefix("torch.")
        measured[f"{name}_gflops"] = 2 * 4096**3 / statistics.median(seconds) / 1e9
    for name in IMAGES:
        measured[f"{name}_mflop_per_image"] = operations(MODELS[name](128, (3, 32, 32))) / 1e6
    return measured


def median_speed(repeats: list[dict]) -> float:
    """Return the median of the images per second of repeated measurements."""
    return statistics.median(repeat["images_per_second"] for repeat in repeats)


def table(results: dict) -> str:
    """Return the results as a Markdown table."""
    peak = results["peak"]
    lines = [
        "| model | configuration | images/s | to 2 workers | to 0 workers | share of peak |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model, configurations in results["images_per_second"].items():
        median = {name: statistics.median(speeds) for name, speeds in configurations.items()}
        for name, speed in median.items():
            dtype = "bfloat16" if name == "bfloat16" else "float32"
            gflops = speed * peak[f"{model}_mflop_per_image"] / 1000
            lines.append(
                f"| {model} | {TITLES[name]} | {speed:,.0f} "
                f"| {speed / median['dataloader-2']:.1f} | {speed / median['dataloader-0']:.1f} "
                f"| {gflops / peak[f'{dtype}_gflops']:.0%} |"
            )
    lines.append("")
    lines.append(
        f"matrix product: {peak['float32_gflops']:.0f} GFLOP/s in float32, "
        f"{peak['bfloat16_gflops']:.0f} in bfloat16"
    )
    for model, choice in results["choice"].items():
        chosen = choice["images_per_second"]
        measured = ", ".join(f"{name} {speed:,.0f}" for name, speed in chosen.items())
        lines.append(f'{model}: "auto" chooses {choice["precision"]} (images/s: {measured})')
    for model, sizes in results["scaling"].items():
        speeds = [median_speed(sizes[str(size)]) for size in SIZES]
        memory = max(entry["peak_mib"] for entry in sizes[str(max(SIZES))])
        lines.append(
            f"{model}: the time per image at 50,000 images is "
            f"{speeds[0] / speeds[1]:.2f} times that at 5,000; "
            f"peak memory at 50,000 is {memory} MiB"
        )
    return "\n".join([*lines, several_line(results["several"])])


if __name__ == "__main__":
    main()
