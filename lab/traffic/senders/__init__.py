"""What runs on a client node and sends: processes of the standard library, which start fast (see `obeying`)."""
