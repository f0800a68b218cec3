"""Expects that a Maglev takes its connections along when it dies.

criterion: predicts_what_breaks
says: a Maglev dies: 0 connections broke, you expected 67
"""


def predictions():
    return {"a Maglev dies": 67, "it returns": 0, "an endpoint dies": 50}
