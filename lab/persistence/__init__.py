"""`maglab persistence`: how many connections a change breaks, predicted and then measured, for each hash and table.

`events` are the changes, `theory` predicts with `maglev.persistence`, `live` measures in labs and `simulated` in
`lab.simulation`, `report` and `chart` show both side by side.
"""
