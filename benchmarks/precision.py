"""Does bfloat16 cost anything? Float32 against bfloat16 on the same seeds.

`python benchmarks/precision.py --dataset PATH` trains both models with p1 and p2 on three seeds
for twelve epochs in either precision and compares the validation losses. Everything but the
rounding is the same in a pair of runs: initial weights, order, noise.
"""

import argparse
import json
import statistics
import sys
from itertools import product
from pathlib import Path

from vae_core.data import load_dataset
from vae_core.models import MODELS
from vae_core.runs import train_or_load
from vae_core.storage import atomic_write

EPOCHS, SEEDS = 12, (0, 1, 2)
OUTPUT = Path(__file__).with_name("precision.json")


def main() -> int:
    """Train or load the runs, print the table, write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10", help="a name or a path")
    data, rows = load_dataset(parser.parse_args().dataset), []
    for params, model in product(("p1", "p2"), ("fc", "conv")):
        rows.append({"params": params, "model": model, "float32": [], "bfloat16": []})
        for precision, seed in product(("float32", "bfloat16"), SEEDS):
            run = train_or_load(model, params, data, seed, EPOCHS, precision=precision)
            rows[-1][precision].append(run.history[-1]["validation_loss"])
    results = {"dataset": data.title, "epochs": EPOCHS, "seeds": SEEDS, "rows": rows}
    atomic_write(OUTPUT, json.dumps(results, indent=2) + "\n")
    print(table(results))
    return 0


def table(results: dict) -> str:
    """Return the comparison as a Markdown table."""
    lines = [
        "| set | model | float32 | bfloat16 | difference | spread of the seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        before, after = (statistics.fmean(row[name]) for name in ("float32", "bfloat16"))
        spread = statistics.stdev(row["float32"])
        lines.append(
            f"| {row['params']} | {MODELS[row['model']].title} | {before:.2f} | {after:.2f} "
            f"| {after - before:+.2f} | {spread:.2f} |"
        )
    pairs = [
        after - before
        for row in results["rows"]
        for before, after in zip(row["float32"], row["bfloat16"], strict=True)
    ]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    lines.append("")
    lines.append(
        f"Mean difference over all {len(pairs)} pairs of runs: {statistics.fmean(pairs):+.2f} "
        f"± {error:.2f} (standard error) nats per image."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
