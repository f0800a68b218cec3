"""A QUIC server (aioquic) whose connection IDs say which endpoint it is; it answers whatever it is asked with its name.

python quic_server.py --name s1 --address 10.2.1.2 --bind 192.0.2.1 --port 443 --certificate FILE --key FILE
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
from ipaddress import ip_address
from types import SimpleNamespace

from aioquic.asyncio import serve
from aioquic.quic import connection
from aioquic.quic.configuration import QuicConfiguration

PROTOCOL = "who"  # what client and server say that they speak (ALPN)
NONCE_BYTES = 4


def connection_ids(address: str):
    """Returns what makes connection IDs: config ID 0 and five random bits, the address, a nonce (QUIC-LB)."""
    server_id = ip_address(address).packed[-4:]

    def choose() -> bytes:
        return bytes([secrets.randbelow(32)]) + server_id + secrets.token_bytes(NONCE_BYTES)

    return choose, 1 + len(server_id) + NONCE_BYTES


async def run(options: argparse.Namespace) -> None:
    choose, size = connection_ids(options.address)
    # aioquic takes connection IDs from here, and they alone have this size
    connection.os = SimpleNamespace(urandom=lambda asked: choose() if asked == size else os.urandom(asked))
    configuration = QuicConfiguration(alpn_protocols=[PROTOCOL], is_client=False, connection_id_length=size)
    configuration.load_cert_chain(options.certificate, options.key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(options.name.encode())
        writer.write_eof()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.ensure_future(answer(reader, writer)))

    answering: set[asyncio.Future[None]] = set()
    await serve(options.bind, options.port, configuration=configuration, stream_handler=on_stream)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("name", "address", "bind", "certificate", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
