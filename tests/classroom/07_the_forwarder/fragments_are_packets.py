"""Never asks whether a packet is rare: fragments go by the ports that they do not have.

criterion: rare_packets_are_handed_on
says: expected where all of them go
"""

from maglev.engine.socket import carry_out, run, send
from maglev.errors import Discard, Reason
from maglev.flow import selection_hash
from maglev.forwarding import Decision
from maglev.forwarding import Forwarder as Given
from maglev.packets import flow_of, parse
from maglev.vips import service_at


class Forwarder(Given):
    def decide(self, frame, now):
        try:
            packet = parse(frame)
            ports = self.vips.at(packet.destination)
            if ports is None:
                raise Discard(Reason.NOT_VIP)
            flow, opens = flow_of(packet)
            service = service_at(ports, flow.protocol, flow.destination_port)
            if service is None:
                raise Discard(Reason.NO_VIP_PORT)
            endpoint = self.choose(flow, opens, service, now)
            outer = self._tunnel(endpoint).encapsulate(packet.data, selection_hash(flow))
        except Discard as discard:
            return Decision(reason=discard.reason)
        return Decision(outer, endpoint, service.name)
