"""The console of `maglab up`: Mininet's, with everything that can be done to a lab as commands.

What a command does is the lab's business (`commands` says which methods are offered); what can be looked at is in
`console_views`. Here is the rest: completion, help, history, errors in a sentence, and scripts: `maglab up < FILE` runs
a command a line, and ends with a status other than 0 if one failed.

Mininet's camelCase, and its way of running in the constructor, stay at this boundary.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import termios
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mininet.cli import CLI
from mininet.log import lg, output

from maglev.errors import MaglevError

from . import commands
from .commands import FAULTS, LOOK, TIME, TRAFFIC, Command
from .connections import Connections
from .console_views import Views
from .errors import LabError, Terminated, WrongUse

if TYPE_CHECKING:
    from .laboratory import Lab

PROMPT = "maglab> "
HISTORY_LINES = 1000
MININET = "Mininet's own"
OWN = {  # what is done here rather than by a method of the lab: name -> group, kinds of its words
    "faults": (FAULTS, ()), "undo": (FAULTS, ("all",)), "wait": (FAULTS, ()),
    "conns": (TRAFFIC, ()), "traffic": (TRAFFIC, ()), "stop": (TRAFFIC, ()),
    "status": (LOOK, ()), "watch": (LOOK, ()), "verify": (LOOK, ()), "routes": (LOOK, ("router",)),
    "table": (LOOK, ("maglev", "endpoint")), "trace": (LOOK, ("client", "vip")), "pcap": (LOOK, ("link",)),
    "capture": (LOOK, ("directory", "link")), "timeline": (LOOK, ()), "graph": (LOOK, ()),
}  # fmt: skip
OF_MININET = ("nodes", "net", "links", "intfs", "dump", "xterm", "py", "px", "sh", "source", "time", "noecho", "exit")
ALSO = {"help", "quit", "EOF"}  # known, and listed nowhere
GROUPS = (FAULTS, TIME, TRAFFIC, LOOK, MININET)
KINDS: dict[str, Callable[[Any], Iterable[str]]] = {
    "node": lambda lab: lab.wiring.names(),
    "server": lambda lab: lab.wiring.names("maglev", "endpoint"),
    "mortal": lambda lab: lab.wiring.names("maglev", "endpoint", "router", "nameserver"),
    "maglev": lambda lab: lab.wiring.names("maglev"),
    "endpoint": lambda lab: lab.wiring.names("endpoint"),
    "client": lambda lab: lab.wiring.names("client"),
    "router": lambda lab: lab.wiring.names("router"),
    "link": lambda lab: [name for link in lab.wiring.links for name in link.names],
    "place": lambda lab: [*KINDS["server"](lab), *KINDS["link"](lab)],
    "vip": lambda lab: [vip.name for vip in lab.config.vips],
    "daemon": lambda lab: sorted({name for node in lab.net.hosts for name in node.daemons}),
    "all": lambda lab: ["all"],
}


class Console(Views, CLI):  # type: ignore[misc]
    """Reads commands until `exit`; `failed` counts those that failed."""

    prompt = PROMPT
    readline: Any = None

    def __init__(self, lab: Lab) -> None:
        self.lab, self.failed = lab, 0
        self._handles: list[Any] = []
        lg.setLogLevel("output")  # what Mininet's commands print, and where it belongs
        lg.ch.setStream(sys.stdout)
        super().__init__(lab.net, stdin=sys.stdin)

    # Reading

    def run(self) -> None:
        """Reads commands until the end; Ctrl-C stops a command, and nothing else, if somebody types."""
        self.prompt = PROMPT if self.isatty() else ""
        while True:
            try:
                self.cmdloop()
                return
            except Terminated:
                raise
            except KeyboardInterrupt:
                if not self.isatty():
                    raise
                print()

    def precmd(self, line: str) -> str:
        """Drops comments; shows the command where nobody has typed it."""
        line = re.sub(r"(^|\s)#.*", "", line)
        if not self.isatty() and line.strip() and line != "EOF":
            print(f"{PROMPT}{line}", flush=True)
        return line

    def onecmd(self, line: str) -> Any:
        """Carries out a command; whatever goes wrong is told in a sentence. True, or a word, ends the console."""
        try:
            return self._obey(line)
        except Terminated:
            raise
        except KeyboardInterrupt:
            if not self.isatty():
                raise
            self._stop_nodes()
            self.complain("stopped")
        except (LabError, MaglevError) as error:
            self.complain(str(error))
        except Exception as error:  # a mistake of ours must not take somebody's lab away
            with open(self.lab.directory / "console.log", "a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
            self.complain(f"{type(error).__name__}: {error} (more in {log.name})")
        return None

    def _obey(self, line: str) -> Any:
        name, rest, _ = self.parseline(line)
        name = (name or "").replace("-", "_")
        command = self.offered().get(name)
        if command is not None:
            return self._call(command, rest)
        known = not name or name in self.mn or name in (*OWN, *OF_MININET, *ALSO)
        if not known:
            raise WrongUse(self._unknown(name))
        return super().onecmd(f"{name} {rest}" if name in OWN else line)

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """Returns a line's first word, the rest, and the line: words end at blanks, so that names may have dashes."""
        line = line.strip()
        if line.startswith("?"):
            line = f"help {line[1:]}"
        first, _, rest = line.partition(" ")
        return first or None, rest.strip(), line

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, [*self._names(), *self.mn], n=1)
        return f"there is no command or node {name!r}; {f'did you mean {near[0]}?' if near else 'help lists them'}"

    def complain(self, text: str) -> None:
        """Says what went wrong, and counts it."""
        self.failed += 1
        print(text, file=sys.stderr, flush=True)

    def say(self, text: object) -> None:
        """Prints."""
        print(text, flush=True)

    def emptyline(self) -> None:
        """Does nothing for an empty line."""

    # Commands that are methods

    def offered(self) -> Mapping[str, Command]:
        """Returns the commands whose methods the lab has."""
        return {command.name: command for command in commands.TABLE if self._method(command) is not None}

    def _method(self, command: Command) -> Callable[..., Any] | None:
        owner = self.lab if hasattr(type(self.lab), command.name) else getattr(self.lab, "traffic", None)
        method: Callable[..., Any] | None = getattr(owner, command.name, None)
        return method

    def _call(self, command: Command, rest: str | None) -> None:
        method = self._method(command)
        assert method is not None
        bound = commands.bind(command.name, method, commands.split(rest or ""))
        before = len(self.lab.timeline.events)
        result = method(*bound.args, **bound.kwargs)
        if command.name == "restore":
            self._handles.clear()  # their traffic has ended
        for event in self.lab.timeline.events[before:]:
            self.say(event)
        if isinstance(result, Connections) or hasattr(result, "report"):
            self._handles.append(result)
            self.say(self.told(result))
        elif isinstance(result, list):
            self.say("\n".join(map(str, result)))
        elif len(self.lab.timeline.events) == before:
            self.say("done")

    # Commands on nodes

    def default(self, line: str) -> None:
        """Runs a command on a node: `c1 ping r1`; node names in it become addresses."""
        name, rest, _ = self.parseline(line)
        node = self.mn[name]
        if not rest:
            raise WrongUse(f"what should {name} do? for example: {name} ip route")
        words = [self.mn[word].address if word in self.mn else word for word in rest.split(" ")]
        with self._terminal_kept():
            node.sendCmd(" ".join(words))
            self.waitForNode(node)
        if not self.isatty() and (status := node.cmd("echo $?").strip()) != "0":
            self.complain(f"{name}: exit status {status}")

    def waitForNode(self, node: Any) -> None:
        """Prints what a node says until it has done; a script's next lines are not for it."""
        if self.isatty():
            super().waitForNode(node)
            return
        while node.waiting:
            output(node.monitor())

    @contextlib.contextmanager
    def _terminal_kept(self) -> Iterator[None]:
        """Gives the terminal back as it was: Mininet has it send keys as they are pressed, to whatever runs."""
        settings = termios.tcgetattr(self.stdin) if self.isatty() else None
        try:
            yield
        finally:
            if settings is not None:
                termios.tcsetattr(self.stdin, termios.TCSADRAIN, settings)

    def _stop_nodes(self) -> None:
        for node in self.mn.values():
            if node.waiting:
                node.sendInt()
                node.waitOutput()

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Opens a terminal on nodes, in a window: xterm NODE…"""
        if not os.environ.get("DISPLAY"):
            raise WrongUse("xterm needs a graphical display, and DISPLAY is not set; over ssh: ssh -X")
        for name in line.split():
            self.lab.node(name)
        super().do_xterm(line, term)

    # Help and completion

    def _names(self) -> list[str]:
        return sorted([*self.offered(), *OWN, *OF_MININET, "help"])

    def do_help(self, line: str) -> None:
        """Lists the commands, or says what one does: help [COMMAND]"""
        name = line.strip().replace("-", "_")
        if not name:
            self.say("\n".join(self._overview()))
        elif name in self.offered():
            method = self._method(self.offered()[name])
            assert method is not None
            self.say(f"{commands.usage(name, method)}\n  {commands.summary(method)}")
        elif name in (*OWN, *OF_MININET, "help"):
            self.say(commands.summary(getattr(self, f"do_{name}")))
        else:
            raise WrongUse(self._unknown(name))

    def _overview(self) -> Iterator[str]:
        by_group = {
            group: [name for name, command in self.offered().items() if command.group == group] for group in GROUPS
        }
        for name, (group, _) in OWN.items():
            by_group[group].append(name)
        by_group[MININET] += OF_MININET
        for group, names in by_group.items():
            if names:
                yield f"{group + ':':16}{' '.join(names)}"
        yield f"{'On a node:':16}NODE COMMAND, such as c1 curl http://192.0.2.1/ or r1 ip route"
        yield f"{'More:':16}help COMMAND; the Tab key completes names; exit takes the lab away"

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Returns the commands and nodes that begin like this."""
        return [f"{name} " for name in [*self._names(), *self.mn] if name.startswith(text)]

    def completedefault(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Returns what the word that is being typed may become."""
        words = line[:begin].split()
        name = words[0].replace("-", "_") if words else ""
        return [word for word in self._candidates(name, len(words) - 1, text) if word.startswith(text)]

    def _candidates(self, name: str, place: int, text: str) -> list[str]:
        if name == "help":
            return self._names()
        if name in self.mn or name == "xterm":
            return KINDS["node"](self.lab)  # type: ignore[return-value]
        command = self.offered().get(name)
        takes = command.takes if command else OWN.get(name, ("", ()))[1]
        found = list(KINDS.get(takes[min(place, len(takes) - 1)], lambda lab: [])(self.lab)) if takes else []
        if command is None or not place:
            return found
        method = self._method(command)
        assert method is not None
        keyword, equals, _ = text.partition("=")
        if equals:
            return [f"{keyword}={value}" for value in self._values(keyword)]
        return found + [f"{each}=" for each in commands.keywords(method)]

    def _values(self, keyword: str) -> Iterable[str]:
        kind = commands.KEYWORD_KINDS.get(keyword)
        return KINDS[kind](self.lab) if kind else []

    # History

    @classmethod
    def initReadline(cls) -> None:
        """Keeps what is typed, for the next console (XDG Base Directory Specification)."""
        if cls.readlineInited:
            return
        cls.readlineInited = True
        try:
            import readline
        except ImportError:
            return
        readline.set_completer_delims(" \t\n")  # names have dashes, options have =
        path = history_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.read_history_file(path)
        except OSError:
            pass  # there is none yet
        readline.set_history_length(HISTORY_LINES)
        cls.readline = readline

    def save_history(self) -> None:
        """Writes what was typed, where there is readline."""
        if self.readline is None:
            return
        try:
            self.readline.write_history_file(history_file())
        except OSError as error:
            self.complain(f"the history cannot be kept: {error}")


def history_file() -> Path:
    """Returns where the console keeps what was typed."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "maglab" / "history"


def converse(lab: Lab) -> int:
    """Runs a console on a lab until it ends; returns an exit status: 1 if nobody typed, and a command failed."""
    console = Console(lab)
    if console.isatty():
        console.save_history()
        return 0
    return 1 if console.failed else 0
