"""nginx on an endpoint: the configuration with which it answers as Python's server does (`servers`).

Only the standard library, as all that nodes use.
"""

from __future__ import annotations

import resource
from pathlib import Path

BEHIND_PORT = 8080  # of Python's HTTP server on an endpoint whose port 80 is nginx's


def configuration(name: str, directory: Path) -> str:
    """Returns the configuration of an endpoint's nginx, which writes nowhere but into `directory`."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {directory}/nginx-{kind};\n" for kind in kinds)
    return f"""# Written by the lab. nginx serves / and /healthz itself; what is computed comes from Python.
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[1]};
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_buffering off;
{temporary}    server {{
        listen 80 backlog=4096;
        listen [::]:80 ipv6only=on backlog=4096;
        location = / {{ return 200 "{name} answers $remote_addr\\n"; }}
        location = /healthz {{ return 200 "ok\\n"; }}
        location / {{ proxy_pass http://127.0.0.1:{BEHIND_PORT}; }}
    }}
}}
"""
