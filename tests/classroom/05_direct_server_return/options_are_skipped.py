"""Takes 4 bytes off whatever comes, and looks at nothing.

criterion: refuses_what_it_does_not_know
says: expected Discard(BAD_GRE_HEADER), got
"""


def payload_of(gre):
    return gre[4:]
