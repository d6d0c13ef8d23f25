"""What is shown while runs are trained or notebooks executed: on a terminal and in a file."""

from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

MINUTE = 60  # seconds


class ProgressDisplay:
    """Show how several tasks proceed: bars on a terminal, lines in a file or a CI's log.

    On a terminal there is a bar for the whole and one for each task that is being computed.
    Elsewhere a line is printed for each finished task and at least one in every `interval` seconds.

    >>> with ProgressDisplay(["one", "two"], Console()) as display:
    ...     display.started(0)
    ...     display.epoch_finished(0, epoch=1, max_epochs=2, loss=91.2, seconds=30)
    ...     display.finished(0, "2 epochs, test loss 80.10")
    [1/2] one: 2 epochs, test loss 80.10

    Args:
        labels: the name of each task; the methods take the index of a task in this list.
        console: where everything is printed.
        interval: seconds between two lines where the console is no terminal.
    """

    def __init__(self, labels: list[str], console: Console, interval: float = MINUTE):
        self.labels = labels
        self.console = console
        self.interval = interval
        self._animated = console.is_terminal and not console.is_dumb_terminal
        self._bars = Progress(
            _text_column("{task.description}", Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=10),
            _text_column("{task.fields[status]}", Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=2,
        )
        self._whole = self._bars.add_task("", total=len(labels), status="")
        self._running: dict[int, TaskID] = {}  # the bars of the tasks that are being computed
        self._done: set[int] = set()
        self._seconds_left: dict[int, float] = {}  # of the tasks with a finished epoch
        self._seconds_in_all: dict[int, float] = {}  # of the same tasks, also after their end
        self._printed: set[str] = set()
        self._closed = Event()

    def __enter__(self) -> "ProgressDisplay":
        self._update_whole()
        if self._animated:
            self._bars.start()
        else:
            Thread(target=self._print_status_regularly, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._closed.set()
        if self._animated:
            self._bars.stop()

    def started(self, index: int) -> None:
        """Show that a task is being computed."""
        self.update(index, "starts")

    def epoch_finished(
        self, index: int, *, epoch: int, max_epochs: int, loss: float, seconds: float
    ) -> None:
        """Show the epoch of a training, its loss, and the time left at `seconds` an epoch."""
        self._seconds_left[index] = (max_epochs - epoch) * seconds
        self._seconds_in_all[index] = max_epochs * seconds
        left = format_duration(self._seconds_left[index])
        status = f"epoch {epoch} of {max_epochs}, loss {loss:.2f}, {left} left"
        self.update(index, status, share_done=epoch / max_epochs)

    def update(self, index: int, status: str, share_done: float | None = None) -> None:
        """Show in a few words what a task is doing, and on its bar which share is done."""
        if index in self._done:
            return
        if index not in self._running:
            label = self.labels[index]
            self._running[index] = self._bars.add_task(label, total=1, status=status)
        self._bars.update(self._running[index], status=status, completed=share_done)
        self._update_whole()

    def message(self, index: int, text: str) -> None:
        """Print a line about a task, the same line only once."""
        self.print_line(f"{self.labels[index]}: {text}")

    def finished(self, index: int, result: str) -> None:
        """Print the result of a task, and remove its bar."""
        self._done.add(index)
        self._seconds_left.pop(index, None)
        if index in self._running:
            self._bars.remove_task(self._running.pop(index))
        self.print_line(f"[{len(self._done)}/{len(self.labels)}] {self.labels[index]}: {result}")
        self._update_whole()

    def print_line(self, text: str) -> None:
        """Print a line, the same line only once."""
        if text in self._printed:
            return
        self._printed.add(text)
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _update_whole(self) -> None:
        self._bars.update(
            self._whole,
            description=f"{len(self._done)} of {len(self.labels)} done",
            status=self._time_left(),
            completed=len(self._done),
        )

    def _time_left(self) -> str:
        """Return how long all tasks will still take; "" as long as no epoch is finished.

        A task that waits is assumed to take as long as the measured ones do on average.
        """
        left, in_all = list(self._seconds_left.values()), list(self._seconds_in_all.values())
        if not left:
            return ""
        waiting = len(self.labels) - len(self._done) - len(left)
        work = sum(left) + waiting * sum(in_all) / len(in_all)
        seconds = max(max(left), work / max(1, len(self._running)))
        return f"about {format_duration(seconds)} left"

    def _print_status_regularly(self) -> None:
        while not self._closed.wait(self.interval):
            self._print(self._status_line())

    def _status_line(self) -> str:
        """Return what the bars show, as one line."""
        whole, *running = self._bars.tasks
        parts = [f"{whole.description} in {format_duration(whole.elapsed or 0)}"]
        if whole.fields["status"]:
            parts[0] += f", {whole.fields['status']}"
        parts += [f"{bar.description}: {bar.fields['status']}" for bar in running]
        return "; ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration in seconds or, from 90 seconds on, in minutes.

    >>> format_duration(42.3), format_duration(420)
    ('42 s', '7 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _text_column(text_format: str, column: Column) -> TextColumn:
    """Return a column of text in which square brackets have no special meaning."""
    return TextColumn(text_format, markup=False, table_column=column)
