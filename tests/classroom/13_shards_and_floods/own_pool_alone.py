"""Looks at the endpoints that a VIP's own pool lists: not at nested pools, nor at backups.

criterion: what_two_vips_share
says: expected the endpoints of
"""

import maglev.isolation


def in_common(config, one, other):
    pools = [config.pools[vip.pool] for name in (one, other) for vip in config.vips if vip.name == name]
    first, second = ({str(endpoint.address) for endpoint in pool.endpoints} for pool in pools)
    return maglev.isolation.in_common(config, one, other)._replace(endpoints=frozenset(first & second))
