"""Takes four bytes off, whatever they say.

criterion: decapsulation
says: expected it to be refused, BAD_GRE_HEADER, got b
"""


def payload_of(gre):
    return gre[4:]
