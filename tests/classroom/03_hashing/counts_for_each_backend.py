"""Goes through the whole table once for each backend.

criterion: measured_in_time
says: it was not done after 8 s
"""


def over_provisioning(table, backends):
    table = list(table)
    return max(table.count(backend) for backend in range(backends)) / (len(table) / backends) - 1
