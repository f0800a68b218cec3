"""Ryu's messages: made by a student's function in Ryu's own environment, and read by Open vSwitch's own tool."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

from lab.classroom import Case
from lab.classroom.exercise import ROOT
from lab.sdn.rules import Bucket, DecrementTtl, Group, Output, SetField
from lab.sdn_router import RYU_PYTHON

IN_RYU = """
import importlib, importlib.util, json, sys, traceback
import eventlet.wsgi
eventlet.wsgi.ALREADY_HANDLED = object()
from ryu.ofproto import ofproto_v1_5
from ryu.ofproto.ofproto_protocol import ProtocolDesc
from lab.sdn.rules import Bucket, Group
module, file, command, number, buckets = json.load(sys.stdin)
try:
    if file:
        spec = importlib.util.spec_from_file_location(module, file)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(module)
    datapath = ProtocolDesc(ofproto_v1_5.OFP_VERSION)
    group = Group(number, tuple(Bucket(*each) for each in buckets))
    message = loaded.group_mod(datapath, getattr(datapath.ofproto, command), group)
    message.set_xid(1)
    message.serialize()
    said = {"bytes": bytes(message.buf).hex()}
except NotImplementedError as gap:
    said = {"gap": str(gap)}
except Exception as error:
    said = {"error": "".join(traceback.format_exception_only(error)).strip()}
print("\\n" + json.dumps(said))
"""


def made(student: Any, case: Case, command: str, group: Group) -> bytes:
    """Returns the bytes of the message that a student's function makes in Ryu's environment."""
    function: Callable[..., Any] = student.group_mod
    module = function.__module__
    file = "" if module.startswith("lab.") else function.__code__.co_filename
    buckets = [[each.number, each.port, each.source, each.destination] for each in group.buckets]
    told = json.dumps([module, file, command, group.number, buckets])
    with tempfile.TemporaryDirectory() as nowhere:
        arguments = [str(RYU_PYTHON), "-W", "ignore", "-c", IN_RYU]
        done = subprocess.run(
            arguments,
            input=told,
            capture_output=True,
            text=True,
            check=False,
            cwd=nowhere,
            env={"PYTHONPATH": str(ROOT)},
        )
    last = done.stdout.strip().rpartition("\n")[2]
    case.expect_that(last, f"Ryu's environment ended without a message: {done.stderr.strip()[-200:]}")
    said = json.loads(last)
    if "gap" in said:
        raise NotImplementedError(said["gap"])
    case.expect_that("bytes" in said, f"expected a message that Ryu can send, got {said.get('error')}")
    return bytes.fromhex(said["bytes"])


def read_by_switch(message: bytes) -> str:
    """Returns what Open vSwitch's tool makes of a message, in one line."""
    done = subprocess.run(["ovs-ofctl", "ofp-print", message.hex()], capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split())


def in_words(bucket: Bucket) -> str:
    """Returns a bucket's actions as Open vSwitch writes them."""
    return ",".join(map(_word, bucket.actions))


def _word(each: Any) -> str:
    match each:
        case SetField(field, value):
            return f"set_field:{value}->{field}"
        case DecrementTtl():
            return "dec_ttl"
        case Output(port):
            return f"output:{port}"
    raise TypeError(f"no action of a bucket: {each!r}")
