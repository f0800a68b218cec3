"""Has a VIP none of whose next hops is known lead to a group without buckets, which swallows its packets.

criterion: vips_lead_to_their_groups
says: none of whose next hops is known
"""

from lab.sdn.rules import ROUTES, USUAL, Flow, Rules, ToGroup, base, destined_to, group, number_groups, to_neighbours


def rules(ports, neighbours, routes, numbers):
    numbered = number_groups(routes, numbers)
    groups, flows = {}, {*base(ports), *to_neighbours(ports, neighbours.values())}
    for vip, number in numbered.items():
        groups[number] = group(number, ports, [neighbours[hop] for hop in routes[vip] if hop in neighbours])
        flows.add(Flow(ROUTES, USUAL, destined_to(vip), (ToGroup(number),)))
    return Rules(frozenset(flows), groups, numbered)
