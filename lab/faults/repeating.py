"""Something that goes on in the background, step by step, until it is ended: a crash loop, a flap, a schedule.

The only threads of the faults are here. A step is never cut short: whoever ends it waits for the one under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

END_TIMEOUT_S = 60.0  # the longest step is a drain


class Repeating:
    """A generator that does a step, and yields for how many seconds to rest before the next."""

    def __init__(self, name: str, steps: Callable[[], Iterator[float]]) -> None:
        self._steps = steps
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        """Says whether there is more to come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        steps = self._steps()
        try:
            for rest_s in steps:
                if self._ending.wait(max(0.0, rest_s)):
                    return
        except BaseException as error:  # said to whoever ends it, or waits for its end
            self.error = error

    def end(self) -> None:
        """Begins no further step, and waits until the one under way has been done."""
        self._ending.set()
        self.wait(END_TIMEOUT_S)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the end; says whether it has come."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def end_and_tell(self) -> None:
        """Ends it; raises what went wrong in it."""
        self.end()
        if self.error is not None:
            raise self.error
