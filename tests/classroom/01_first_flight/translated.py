"""Believes that a Maglev translates addresses.

criterion: knows_why
says: e is said to be true
"""


def true_statements():
    return "bcef"
