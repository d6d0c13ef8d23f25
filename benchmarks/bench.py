"""Training speed, side by side: a usual notebook's recipe against this project.

`make bench` runs it. Every measurement has a process of its own, because the allocator setting
that this project makes holds for a whole process and must not help the recipe beside it. The
configurations take turns, `--repeats` times, and the medians are compared.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice, product
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BATCH = 128
PICTURES = {"conv": 6_400, "fc": 12_800}
SIZES = (5_000, 50_000)
SIZE_REPEATS = 2
CONFIGURATIONS = ("dataloader-2", "dataloader-0", "float32", "bfloat16")
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
    parser.add_argument("--worker", nargs=3, metavar=("CONFIGURATION", "MODEL", "PICTURES"))
    options = parser.parse_args()
    if options.worker:
        configuration, model, pictures = options.worker
        print(json.dumps(measure(configuration, model, int(pictures))))
        return
    from vae_core.experiment import processor

    configurations = list(CONFIGURATIONS)
    if importlib.util.find_spec("pythae"):
        configurations.append("pythae")
    speeds = {model: {name: [] for name in configurations} for model in PICTURES}
    peaks = []
    for repeat in range(options.repeats):
        peaks.append(in_own_process("peak", "conv", 0))
        for model, pictures in PICTURES.items():
            for name in configurations:
                found = in_own_process(name, model, pictures)
                speeds[model][name].append(found["pictures_per_second"])
                print(
                    f"{repeat + 1}/{options.repeats} {model} {name}: {speeds[model][name][-1]:,.0f}"
                )
    scaling = {model: {str(size): [] for size in SIZES} for model in PICTURES}
    for _ in range(SIZE_REPEATS):
        for model, size in product(PICTURES, SIZES):
            scaling[model][str(size)].append(in_own_process("auto", model, size))
    results = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "batch_size": BATCH,
        "pictures_per_second": speeds,
        # What else runs on the machine can only lower it.
        "peak": {name: max(peak[name] for peak in peaks) for name in peaks[0]},
        "scaling": scaling,
    }
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{table(results)}\n\nwritten to {options.output}")


def in_own_process(configuration: str, model: str, pictures: int) -> dict:
    """Run one measurement in a fresh process and return what it found."""
    command = [sys.executable, __file__, "--worker", configuration, model, str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{configuration} {model} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(configuration: str, model: str, pictures: int) -> dict:
    """Measure one configuration in this process: pictures per second and peak memory in MiB."""
    if configuration == "peak":
        return machine_peak()
    if configuration.startswith("dataloader"):
        speed = recipe_speed(model, pictures, workers=int(configuration[-1]))
    elif configuration == "pythae":
        speed = pythae_speed(model, pictures)
    else:
        speed = project_speed(model, pictures, configuration)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"pictures_per_second": speed, "peak_mib": round(peak)}


def random_pictures(n: int):
    """Return uint8 pictures [n, 3, 32, 32]; speed does not depend on what they show."""
    import torch

    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)


def project_speed(model: str, pictures: int, precision: str) -> float:
    """Time whole epochs of the project's own training; the first one warms up."""
    from vae_core.data import Dataset
    from vae_core.parameter_sets import ParameterSet
    from vae_core.training import Config, choose_device, train

    held_out = random_pictures(1)
    data = Dataset(random_pictures(pictures), held_out, held_out, "random", "random", "")
    epochs = 2 if pictures == max(SIZES) else 3
    config = Config(
        model, ParameterSet("bench", BATCH, 5e-4, 128), max_epochs=epochs, precision=precision
    )
    _, history = train(config, data, choose_device("cpu"))
    return pictures / min(row["seconds"] for row in history[1:])


def module_alone(name: str):
    """Import a module of the project without its package, hence without the allocator setting."""
    spec = importlib.util.spec_from_file_location(name, FOLDER.parent / "vae_core" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe_speed(model_name: str, pictures: int, workers: int) -> float:
    """Time the recipe of most notebooks: PIL pictures, ToTensor, DataLoader, Adam, float32."""
    import torch

    vision = module_alone("vision")
    from torchvision.transforms import ToTensor

    # The real data set's class with other pictures in it, since its file need not be here.
    dataset = object.__new__(vision.CIFAR10)
    dataset.data = random_pictures(pictures).movedim(1, -1).numpy()
    dataset.targets = [0] * pictures
    dataset.transform, dataset.target_transform = ToTensor(), None
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
    model = module_alone("models").build_model(model_name, 128)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    elbo = module_alone("loss").elbo

    def epoch(steps=None):
        for batch, _ in islice(loader, steps):
            decoded, mu, logvar = model(batch)
            loss = elbo(decoded, batch, mu, logvar).total.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    epoch(steps=10)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - began)
    return pictures / min(seconds)


def pythae_speed(model_name: str, pictures: int) -> float:
    """Time pythae's trainer with the same networks."""
    import tempfile

    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    ours = module_alone("models").build_model(model_name, 128)

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
    batch = random_pictures(pictures).float().div_(255)
    dataset = BaseDataset(batch, torch.zeros(pictures))
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
        seconds = []
        for number in range(2):
            began = time.perf_counter()
            trainer.train_step(number)
            seconds.append(time.perf_counter() - began)
    return pictures / min(seconds)


def machine_peak() -> dict:
    """Measure the matrix product in GFLOP/s, and count what one training picture costs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vae_core.models import build_model

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(4096, 4096).to(dtype)
        matrix @ matrix
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - began)
        name = str(dtype).removeprefix("torch.")
        found[f"{name}_gflops"] = 2 * 4096**3 / statistics.median(seconds) / 1e9
    for name in PICTURES:
        with FlopCounterMode(display=False) as counter:
            decoded, _, _ = build_model(name, 128)(torch.rand(BATCH, 3, 32, 32))
            decoded.sum().backward()
        found[f"{name}_mflop_per_picture"] = counter.get_total_flops() / BATCH / 1e6
    return found


def table(results: dict) -> str:
    """Return the results as a Markdown table."""
    peak = results["peak"]
    lines = [
        "| model | configuration | pictures/s | to 2 workers | to 0 workers | share of peak |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model, configurations in results["pictures_per_second"].items():
        median = {name: statistics.median(speeds) for name, speeds in configurations.items()}
        for name, speed in median.items():
            dtype = "bfloat16" if name == "bfloat16" else "float32"
            gflops = speed * peak[f"{model}_mflop_per_picture"] / 1000
            lines.append(
                f"| {model} | {TITLES[name]} | {speed:,.0f} "
                f"| {speed / median['dataloader-2']:.1f} | {speed / median['dataloader-0']:.1f} "
                f"| {gflops / peak[f'{dtype}_gflops']:.0%} |"
            )
    lines.append("")
    for model, sizes in results["scaling"].items():
        speeds = [
            statistics.median(found["pictures_per_second"] for found in sizes[str(size)])
            for size in SIZES
        ]
        memory = max(found["peak_mib"] for found in sizes[str(max(SIZES))])
        lines.append(
            f"{model}: the time per picture at 50,000 pictures is "
            f"{speeds[0] / speeds[1]:.2f} times that at 5,000; "
            f"peak memory at 50,000 is {memory} MiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
