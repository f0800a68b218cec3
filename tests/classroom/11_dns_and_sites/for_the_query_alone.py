"""Answers for the very prefix that was asked for: no cache can use the answer for others nearby.

criterion: an_answer_says_for_whom_it_holds
says: expected the option for
"""

import maglev.name_answers

given = maglev.name_answers.answered_subnet


def answered_subnet(subnet, scope):
    return given(subnet, subnet.prefix_length)
