"""`make answer`: the runs behind the fair comparison of the models, at equal budgets.

Learning rates decay to zero. The epochs of different models in one group of lines of `GRIDS` cost
about as many operations.
"""

from typing import Any

from vae_core.runs.results import read_results, rows_of_run, write_results
from vae_core.storage import PROJECT
from vae_study.report import claim_folder
from vae_study.settings import Settings
from vae_study.sweep import parse_grid, sweep_tasks, train_all
from vae_study.tasks import Task

PUBLISHED_TABLE = PROJECT / "figures" / "answer.csv"

COMMON_FIELDS = "params=p2 schedule=cosine patience=0"
GRIDS = (
    # The learning rate is tuned at the smallest budget, with a seed that is not used again.
    "model=conv max_epochs=8 learning_rate=5e-4,1e-3,2e-3,4e-3,8e-3 seed=10",
    "model=fc max_epochs=26 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    "model=conv-half max_epochs=28 learning_rate=1e-3,2e-3,4e-3 seed=10",
    "model=fc-half max_epochs=55 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    "model=conv-double max_epochs=2 learning_rate=1e-3,2e-3,4e-3 seed=10",
    "model=fc-double max_epochs=12 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    # Equal budgets: about as many operations. The same with half and with twice the width.
    "model=conv max_epochs=8,16,32,64 learning_rate=2e-3 seed=0,1,2,3,4",
    "model=fc max_epochs=26,52,104,208 learning_rate=5e-4 seed=0,1,2,3,4",
    "model=conv-half max_epochs=28 learning_rate=2e-3 seed=0,1,2",
    "model=fc-half max_epochs=55 learning_rate=1e-3 seed=0,1,2",
    "model=conv-double max_epochs=2 learning_rate=2e-3 seed=0,1,2",
    "model=fc-double max_epochs=12 learning_rate=1e-3 seed=0,1,2",
    "model=linear max_epochs=1 seed=0",
    # Whether about four times the budget would have chosen another learning rate.
    "model=conv max_epochs=32 learning_rate=1e-3,4e-3 seed=0",
    "model=fc max_epochs=104 learning_rate=2.5e-4,1e-3 seed=0",
    # The intermediate models, and all models on permuted images. Their learning rates are tuned
    # with seed 0, which also counts in the comparison, since each has only three seeds.
    "model=fc-conv max_epochs=13 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=0",
    "model=fc-conv max_epochs=13 learning_rate=5e-4,1e-3 seed=1,2",
    "model=conv-fc max_epochs=12 learning_rate=5e-4,1e-3,2e-3 seed=0",
    "model=conv-fc max_epochs=12 learning_rate=1e-3 seed=1,2",
    "model=local max_epochs=8 learning_rate=1e-3,2e-3,4e-3,8e-3 seed=0",
    "model=local max_epochs=8 learning_rate=1e-3,2e-3,4e-3 seed=1,2",
    "model=local max_epochs=32 learning_rate=4e-3 seed=0,1,2",
    "model=conv max_epochs=8 learning_rate=1e-3,2e-3,4e-3 permuted=1 seed=0",
    "model=conv max_epochs=8 learning_rate=2e-3,4e-3 permuted=1 seed=1,2",
    "model=fc max_epochs=26 learning_rate=5e-4 permuted=1 seed=0,1,2",
    "model=fc-conv max_epochs=13 learning_rate=5e-4,1e-3,2e-3 permuted=1 seed=0",
    "model=fc-conv max_epochs=13 learning_rate=1e-3 permuted=1 seed=1,2",
    "model=conv-fc max_epochs=12 learning_rate=5e-4,1e-3,2e-3 permuted=1 seed=0",
    "model=conv-fc max_epochs=12 learning_rate=1e-3 permuted=1 seed=1,2",
    "model=local max_epochs=8 learning_rate=5e-4,1e-3,2e-3 permuted=1 seed=0",
    "model=local max_epochs=8 learning_rate=1e-3 permuted=1 seed=1,2",
    # The CVAE and the FC-VAE on images whose pixels are permuted in part.
    "model=conv max_epochs=8 learning_rate=2e-3 permuted=0.1,0.25,0.5 seed=0,1,2",
    "model=fc max_epochs=26 learning_rate=5e-4 permuted=0.1,0.25,0.5 seed=0,1,2",
    # Other weights of the KL term.
    "model=conv max_epochs=8,32 learning_rate=2e-3 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    "model=fc max_epochs=26,104 learning_rate=5e-4 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    "model=conv max_epochs=8 learning_rate=2e-3 beta=0.01,0.1,10 seed=1,2",
    "model=fc max_epochs=26 learning_rate=5e-4 beta=0.01,0.1,10 seed=1,2",
    "model=linear max_epochs=1 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    # A share of the training images; the weights of the epoch with the lowest validation loss.
    "model=conv max_epochs=40 learning_rate=2e-3 fraction=0.2 monitor=validation seed=0,1,2",
    "model=conv max_epochs=80 learning_rate=2e-3 fraction=0.06 monitor=validation seed=0,1,2",
    "model=conv max_epochs=160 learning_rate=2e-3 fraction=0.02 monitor=validation seed=0,1,2",
    "model=fc max_epochs=130 learning_rate=5e-4 fraction=0.2 monitor=validation seed=0,1,2",
    "model=fc max_epochs=260 learning_rate=5e-4 fraction=0.06 monitor=validation seed=0,1,2",
    "model=fc max_epochs=520 learning_rate=5e-4 fraction=0.02 monitor=validation seed=0,1,2",
    "model=local max_epochs=40 learning_rate=4e-3 fraction=0.2 monitor=validation seed=0,1,2",
    "model=local max_epochs=80 learning_rate=4e-3 fraction=0.06 monitor=validation seed=0,1,2",
    "model=local max_epochs=160 learning_rate=4e-3 fraction=0.02 monitor=validation seed=0,1,2",
)
# The runs whose weights are published, since the notebooks show them.
PUBLISHED_RUNS = (
    "model=conv max_epochs=32 learning_rate=2e-3 seed=0",
    "model=fc max_epochs=104 learning_rate=5e-4 seed=0",
    "model=conv max_epochs=8 learning_rate=2e-3 permuted=1 seed=0",
)


def grid_tasks(settings: Settings, grids: tuple[str, ...]) -> list[Task]:
    """List every run of the grids once."""
    tasks = []
    for grid in grids:
        tasks += sweep_tasks(parse_grid(f"{COMMON_FIELDS} {grid}"), settings)
    return list(dict.fromkeys(tasks))


def published_rows(tasks: list[Task]) -> dict[Task, dict[str, Any]]:
    """Return the rows of the published table that are runs of these tasks, by task.

    Rows of another precision than the tasks' do not count, since a table must not mix them.
    """
    table = read_results(PUBLISHED_TABLE)
    rows = {}
    for task in tasks:
        folder = task.arguments["dataset"].folder
        matches = table[rows_of_run(table, task.config, folder)]
        if not matches.empty:
            (rows[task],) = matches.to_dict("records")
    return rows


def run_command(settings: Settings) -> int:
    """Carry out `make answer`: train what is missing, write `answer.csv`; return the exit code.

    A run of the published table need not be trained, so that one more seed is one more training.
    """
    claim_folder(settings.report)
    tasks = grid_tasks(settings, GRIDS)
    rows: dict[Task, dict[str, Any] | None] = {}
    if PUBLISHED_TABLE.exists() and not settings.retrain:
        rows |= published_rows(tasks)
        print(f"{len(rows)} of {len(tasks)} runs are in {PUBLISHED_TABLE}; RETRAIN=1 ignores it")
    missing = [task for task in tasks if task not in rows]
    rows |= zip(missing, train_all(missing, settings), strict=True)
    table = settings.report / PUBLISHED_TABLE.name
    write_results(table, [rows[task] for task in tasks if rows[task] is not None])
    print(f"the results are in {table}")
    return int(None in rows.values())
