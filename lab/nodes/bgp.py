"""What both ends of a BGP session are set up with."""

HOLD_TIME_S = 3  # BGP's shortest (RFC 4271 §4.2); a keepalive every second
ROUTER_AS, MAGLEV_AS = 65000, 65001
