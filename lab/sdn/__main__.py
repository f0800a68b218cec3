"""Runs the controller in Ryu's environment, on a file that says what it controls:

python -m lab.sdn FILE
"""

from __future__ import annotations

import logging
import os
import sys

import eventlet.wsgi

from maglev.errors import MaglevError
from maglev.swap import swap_in_from_environment

LISTEN = ("127.0.0.1", 6653)


def main() -> None:
    if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):  # Ryu 4.34 imports what eventlet 0.31 took away
        eventlet.wsgi.ALREADY_HANDLED = object()
    from ryu.lib import hub

    hub.patch()  # before anything else is imported
    from ryu import cfg
    from ryu.base.app_manager import AppManager

    from . import controller

    try:
        controller.Controller.carries_on = not swap_in_from_environment("lab")
    except MaglevError as error:
        sys.exit(f"lab.sdn: {error}")
    os.environ[controller.FILE_VARIABLE] = sys.argv[1]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    cfg.CONF(args=[f"--ofp-listen-host={LISTEN[0]}", f"--ofp-tcp-listen-port={LISTEN[1]}"], project="ryu")
    AppManager.run_apps([controller.__name__, "ryu.controller.ofp_handler"])


main()
