"""What a probe says and what counts as a good answer to it: HTTP, DNS and UDP (Maglev §2.2).

Pure: bytes in, a verdict out. A judge returns when the answer is good and raises `ProbeFailed`, with the reason, when
it is not. `engine.probing` carries the bytes.
"""

from __future__ import annotations

import re
from functools import cache

from dnslib import QTYPE, RCODE, DNSError, DNSQuestion, DNSRecord

from .config_checks import HEX, HealthCheck
from .flow import Address

LARGEST_ANSWER_BYTES = 65536  # of an HTTP answer that are read before the probe hangs up
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]")  # RFC 9112 §4
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[^\r\n]*\r\n")  # RFC 9112 §7.1


class ProbeFailed(Exception):
    """A probe that was answered, but not as it should be."""


def http_request(method: HealthCheck, address: Address) -> bytes:
    """Returns the request of an http check of a server at an address."""
    shown = str(address) if address.version == 4 else f"[{address}]"
    host = method.host or f"{shown}:{method.port}"
    lines = (f"GET {method.path} HTTP/1.1", f"Host: {host}", "Connection: close", "User-Agent: maglev", "", "")
    return "\r\n".join(lines).encode("ascii")


def http_is_whole(answer: bytes) -> bool:
    """Says whether an answer has ended by its own account; one without a length ends with the connection."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    head += b"\r\n"
    if CHUNKED.search(head):
        return _chunks(body)[1]
    length = CONTENT_LENGTH.search(head)
    return length is not None and len(body) >= int(length[1])


def judge_http(method: HealthCheck, answer: bytes) -> None:
    """Passes on the status that the check wants, and on the text that its body must hold."""
    status = STATUS_LINE.match(answer)
    if status is None:
        raise ProbeFailed("the answer is not HTTP" if answer else "the connection was closed without an answer")
    if not _is_wanted(int(status[1]), method.status or ()):
        raise ProbeFailed(f"HTTP status {int(status[1])}")
    if method.body is not None and method.body.encode() not in _body_of(answer):
        raise ProbeFailed(f"the body does not hold {method.body!r}")


@cache
def _is_wanted(status: int, wanted: tuple[int | str, ...]) -> bool:
    ranges = (str(each).partition("-") for each in wanted)
    return any(int(first) <= status <= int(last or first) for first, _, last in ranges)


def _body_of(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    return _chunks(body)[0] if CHUNKED.search(head + b"\r\n") else body


def _chunks(body: bytes) -> tuple[bytes, bool]:
    """Returns what the chunks of a body hold, as far as they are there, and whether the last one is."""
    content, at = b"", 0
    while size := CHUNK_SIZE.match(body, at):
        length = int(size[1], 16)
        if length == 0:
            return content, True
        content += body[size.end() : size.end() + length]
        at = size.end() + length + 2
    return content, False


def bytes_of(text: str) -> bytes:
    """Returns what a configuration means by a text: UTF-8, or the bytes whose hex digits stand behind `hex:`."""
    return bytes.fromhex(text.removeprefix(HEX)) if text.startswith(HEX) else text.encode()


def judge_udp(method: HealthCheck, answer: bytes) -> None:
    """Passes on an answer that holds what the check expects; on any, if it expects nothing in particular."""
    if method.expect is not None and bytes_of(method.expect) not in answer:
        raise ProbeFailed(f"the answer does not hold {method.expect!r}")


def dns_question(method: HealthCheck, number: int) -> bytes:
    """Returns the question of a dns check (RFC 1035 §4.1), with a number that the answer has to repeat."""
    record = DNSRecord(q=DNSQuestion(method.query, getattr(QTYPE, str(method.record))))
    record.header.id = number
    return bytes(record.pack())


def judge_dns(method: HealthCheck, number: int, answer: bytes) -> bool:
    """Returns True for a good answer, False for one to another question; raises for one that is none.

    A good answer has no error and at least one record of the type that was asked for.
    """
    try:
        record = DNSRecord.parse(answer)
    except (DNSError, ValueError, IndexError) as error:
        raise ProbeFailed(f"the answer is not DNS: {error}") from None
    if record.header.id != number or not record.header.qr:
        return False
    if record.header.rcode != RCODE.NOERROR:
        raise ProbeFailed(f"the name server answers {RCODE.get(record.header.rcode)}")
    if not any(QTYPE.get(answered.rtype) == method.record for answered in record.rr):
        raise ProbeFailed(f"the name server knows no {method.record} record of {method.query}")
    return True
