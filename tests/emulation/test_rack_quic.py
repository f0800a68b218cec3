"""QUIC through a VIP that goes by connection ID: real connections (aioquic) whose client moves while they last."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from settling import as_configured
from wires import VIP

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=2, endpoints=4)

HERE = Path(__file__).parent
PORT = 443
TIMEOUT_S = 20.0
MOVES = 6
SECOND_ADDRESS = "10.0.1.9"  # of the client, beside the one that it has from the topology


def certify(directory):
    """Writes a certificate that nobody but its key has signed; returns both files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "h3")])
    start = datetime.datetime(2020, 1, 1)
    signed = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(36500))
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *kinds))
    return files


@pytest.fixture
def served(lab, tmp_path):
    """QUIC servers on all endpoints; returns a function that has the Maglevs serve them, by connection ID or not."""
    vips = lab.document["vips"]
    certificate, key = certify(tmp_path)
    for name in lab.endpoints:
        node = lab.node(name)
        files = ["--certificate", str(certificate), "--key", str(key)]
        about = ["--name", name, "--address", node.address, "--bind", VIP, "--port", str(PORT)]
        node.start("quic", [sys.executable, str(HERE / "quic_server.py"), *about, *files])
    for name in lab.endpoints:
        log = lab.node(name).directory / "quic.log"
        wait_until(lambda log=log: "" if "ready" in log.read_text() else log.read_text(), TIMEOUT_S, "a QUIC server")

    def serve(**more):
        vip = {"name": "h3", "address": VIP, "protocol": "udp", "port": PORT, "pool": "web", **more}
        lab.document["vips"] = [*vips, vip]
        lab.reload()

    with as_configured(lab):
        lab.run("c1", f"ip address add {SECOND_ADDRESS}/24 dev c1-eth0")
        yield serve
        lab.run("c1", f"ip address del {SECOND_ADDRESS}/24 dev c1-eth0")
        for name in lab.endpoints:
            lab.node(name).stop_daemons(names=["quic"])


def who_answers(lab, first_port):
    """Who answers a client on one connection: at first, and after each move to another port, or address and port."""
    addresses = [lab.node("c1").address, SECOND_ADDRESS]
    places = [f"{addresses[number % 2]},{first_port + number}" for number in range(MOVES + 1)]
    done = lab.run("c1", f"{sys.executable} {HERE / 'quic_client.py'} {VIP} {PORT} {' '.join(places)}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_client_that_moves_keeps_its_endpoint(lab, served):
    served(quic_cid={"server_id_bytes": 4})
    found = [who_answers(lab, first_port) for first_port in (40000, 41000, 42000, 43000, 44000, 45000)]
    for answers in found:
        assert answers == [answers[0]] * (MOVES + 1), f"one endpoint should have answered, but {answers}"
        assert answers[0], "the connection should have been opened"
    assert len({answers[0] for answers in found}) > 1, f"connections should be spread over endpoints: {found}"


def test_without_connection_ids_a_client_that_moves_is_lost(lab, served):
    """The contrast: three of four ports lead to an endpoint that does not know the connection."""
    served()
    answers = who_answers(lab, 40000)
    assert answers[0], "a connection that stays where it is works"
    assert "" in answers, f"some move should have led elsewhere, but answers were {answers}"
