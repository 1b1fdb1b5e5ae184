"""A CGI script that answers with its environment."""

import json
import os
import sys

body = sys.stdin.buffer.read(int(os.environ.get("CONTENT_LENGTH") or 0))
sys.stdout.write("Content-Type: application/json\r\n\r\n")
sys.stdout.write(json.dumps({"environ": dict(os.environ), "body_bytes": len(body)}))
