"""What goes on while runs or pages are computed: said on a terminal, in a file, in a CI's log."""

import time
from threading import Event, Thread

from rich.console import Console
from rich.live import Live
from rich.text import Text

MINUTE = 60


class Board:
    """Moving lines on a terminal; elsewhere a line for each finished run and one a minute.

    `labels` are what people call the runs, or pages, which are told apart by their place there.
    """

    def __init__(self, labels: list[str], console: Console):
        self.labels, self.console = labels, console
        self.running, self.left, self.whole, self.workers, self.said = {}, {}, {}, {}, set()
        self.finished, self.began, self.ended = 0, time.monotonic(), Event()
        self.live = Live(self, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            self.live.start()
        else:
            Thread(target=self._each_minute, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.live.stop()

    def __rich__(self) -> Text:
        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def _each_minute(self):
        while not self.ended.wait(MINUTE):
            self.say("; ".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for the whole, with the time that is left, and one for each that is computed."""
        elapsed, left = time.monotonic() - self.began, list(self.left.values())
        whole = f"{self.finished} of {len(self.labels)} done in {clock(elapsed)}"
        if left:
            waiting = len(self.labels) - self.finished - len(left)
            expected = sum(left) + waiting * sum(self.whole.values()) / len(self.whole)
            whole += f", about {clock(max(*left, expected / max(1, len(self.running))))} left"
        return [whole, *self.running.values()]

    def say(self, text: str):
        """Print a line, the same one once."""
        if text not in self.said:
            self.said.add(text)
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def hear(self, run, worker="", said="", epoch=0, epochs=0, loss=0.0, seconds=0.0):
        """Show what a run tells: a line of text, that it starts, or an epoch and its seconds."""
        label, before = self.labels[run], self.workers.get(run, worker)
        self.workers[run] = worker
        if worker != before:
            self.say(f"{label}: goes on at {worker}, because {before} is gone")
        if said:
            self.say(f"{label}: {said}")
        elif not epoch:
            self.running.setdefault(run, f"{label}: starts")
        else:
            self.left[run], self.whole[run] = (epochs - epoch) * seconds, epochs * seconds
            left = clock(self.left[run])
            self.show(run, f"epoch {epoch} of {epochs}, loss {loss:.2f}, {left} left")

    def show(self, run: int, news: str):
        """Show what a run is at."""
        self.running[run] = f"{self.labels[run]}: {news}"

    def finish(self, run: int, news: str):
        """Say what became of a run."""
        self.finished += 1
        self.running.pop(run, None)
        self.left.pop(run, None)
        self.say(f"[{self.finished}/{len(self.labels)}] {self.labels[run]}: {news}")


def clock(seconds: float) -> str:
    """Return seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
