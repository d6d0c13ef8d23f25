"""`make answer`: the runs behind 06 to 09, at equal budgets and with a rate that falls to 0.

Epochs of different models that stand in one line cost about as many operations.
"""

from study import sweep
from study.pages import claim
from study.runs import Settings, Task
from vae_core.storage import PROJECT
from vae_core.tables import of_run, read_results, write_results

PUBLISHED = PROJECT / "figures" / "answer.csv"

ALL = "params=p2 schedule=cosine patience=0"
GRIDS = (
    # The learning rate is tuned at the smallest budget, with a seed that is not used again.
    "model=conv max_epochs=8 learning_rate=5e-4,1e-3,2e-3,4e-3,8e-3 seed=10",
    "model=fc max_epochs=26 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    "model=conv-half max_epochs=28 learning_rate=1e-3,2e-3,4e-3 seed=10",
    "model=fc-half max_epochs=55 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    "model=conv-double max_epochs=2 learning_rate=1e-3,2e-3,4e-3 seed=10",
    "model=fc-double max_epochs=12 learning_rate=2.5e-4,5e-4,1e-3,2e-3 seed=10",
    # Equal budgets: about as many operations. The same with half and twice the width.
    "model=conv max_epochs=8,16,32,64 learning_rate=2e-3 seed=0,1,2,3,4",
    "model=fc max_epochs=26,52,104,208 learning_rate=5e-4 seed=0,1,2,3,4",
    "model=conv-half max_epochs=28 learning_rate=2e-3 seed=0,1,2",
    "model=fc-half max_epochs=55 learning_rate=1e-3 seed=0,1,2",
    "model=conv-double max_epochs=2 learning_rate=2e-3 seed=0,1,2",
    "model=fc-double max_epochs=12 learning_rate=1e-3 seed=0,1,2",
    "model=linear max_epochs=1 seed=0",
    # Would about four times the budget have chosen another rate?
    "model=conv max_epochs=32 learning_rate=1e-3,4e-3 seed=0",
    "model=fc max_epochs=104 learning_rate=2.5e-4,1e-3 seed=0",
    # The rungs between the two, and all of them on permuted images. Their learning rates are tuned
    # with seed 0, which stays: three seeds are all they get.
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
    # The ends on images that are permuted in part.
    "model=conv max_epochs=8 learning_rate=2e-3 permuted=0.1,0.25,0.5 seed=0,1,2",
    "model=fc max_epochs=26 learning_rate=5e-4 permuted=0.1,0.25,0.5 seed=0,1,2",
    # Other weights of the KL term.
    "model=conv max_epochs=8,32 learning_rate=2e-3 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    "model=fc max_epochs=26,104 learning_rate=5e-4 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    "model=conv max_epochs=8 learning_rate=2e-3 beta=0.01,0.1,10 seed=1,2",
    "model=fc max_epochs=26 learning_rate=5e-4 beta=0.01,0.1,10 seed=1,2",
    "model=linear max_epochs=1 beta=0.01,0.03,0.1,0.3,3,10 seed=0",
    # A share of the training images; what is kept is what the validation images liked best.
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
# What the notebooks show, by the same fields.
SHOWN = (
    "model=conv max_epochs=32 learning_rate=2e-3 seed=0",
    "model=fc max_epochs=104 learning_rate=5e-4 seed=0",
    "model=conv max_epochs=8 learning_rate=2e-3 permuted=1 seed=0",
)


def tasks(settings: Settings, grids: tuple[str, ...]) -> list[Task]:
    """List every run of the grids once."""
    listed = (sweep.tasks(sweep.parse(f"{ALL} {grid}"), settings) for grid in grids)
    return list(dict.fromkeys(task for some in listed for task in some))


def command(settings: Settings) -> int:
    """Train what is not there yet; write `answer.csv` into the report's folder; return the code.

    What the published table has counts as there, so that one more seed is one more training.
    """
    claim(settings.report)
    listed, rows = tasks(settings, GRIDS), {}
    if PUBLISHED.exists() and not settings.retrain:
        frame = read_results(PUBLISHED)
        for task in listed:
            own = frame[of_run(frame, task.config, task.arguments["dataset"].folder)]
            for row in own.to_dict("records"):  # one at most
                rows[task] = row
        print(f"{len(rows)} of {len(listed)} runs are in {PUBLISHED}; RETRAIN=1 trains them anew")
    missing = [task for task in listed if task not in rows]
    rows |= zip(missing, sweep.train(missing, settings), strict=True)
    table = settings.report / PUBLISHED.name
    write_results(table, (rows[task] for task in listed if rows[task]))
    print(f"the results are in {table}")
    return int(None in rows.values())
