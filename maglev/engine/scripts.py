"""Health checks by script: a command runs with the endpoint's address, and passes by exit status 0.

The address is the command's last argument, and MAGLEV_ENDPOINT in its environment. Its output goes nowhere. A script
that is not done at the timeout is killed with all its children, but for those that have left its process group.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

from ..answers import ProbeFailed
from ..flow import Address

AT_ONCE = 16  # scripts: each is a process or more
ADDRESS_VARIABLE = "MAGLEV_ENDPOINT"


async def run(command: tuple[str, ...], address: Address) -> None:
    """Returns when the command has passed; ProbeFailed with its exit status if it has not, OSError if it cannot run.

    Whatever cancels this, such as a timeout, kills the command.
    """
    process = subprocess.Popen(
        [*command, str(address)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {ADDRESS_VARIABLE: str(address)},
    )
    try:
        await _ended(process.pid)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so the number is still this group's
        raise
    finally:
        status = process.wait()
    if status:
        raise ProbeFailed(f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}")


async def _ended(process: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    handle = os.pidfd_open(process)
    try:
        loop.add_reader(handle, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
