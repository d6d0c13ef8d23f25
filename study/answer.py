"""`make answer`: the runs behind 06 and 07, at equal budgets and with a rate that falls to 0.

Epochs of different models that stand in one line cost about as many operations.
"""

from study import sweep
from study.pages import claim
from study.runs import Settings, Task
from vae_core.tables import write_results

ALL = "params=p2 schedule=cosine patience=0"
GRIDS = ()
# What notebooks and explorer show, by the same fields.
SHOWN = ()


def tasks(settings: Settings, grids: tuple[str, ...] = GRIDS) -> list[Task]:
    """List every run of the grids once."""
    listed = (sweep.tasks(sweep.parse(f"{ALL} {grid}"), settings) for grid in grids)
    return list(dict.fromkeys(task for some in listed for task in some))


def command(settings: Settings) -> int:
    """Train what is not there yet; write `answer.csv` into the report's folder; return the code."""
    claim(settings.report)
    rows = sweep.train(tasks(settings), settings)
    table = settings.report / "answer.csv"
    write_results(table, filter(None, rows))
    print(f"the results are in {table}")
    return int(None in rows)
