"""Peers that are Rust programs of this folder, each a package of its own, built by hand."""

import os
import re
from pathlib import Path

from .peers import Gateway, Unavailable

HERE = Path(__file__).resolve().parent.parent


class Built(Gateway):
    # The folder of its package, and the name of its binary.
    package = ""
    binary_name = ""

    def program(self):
        program = HERE / self.package / "target" / "release" / self.binary_name
        if not os.access(program, os.X_OK):
            raise Unavailable(f"not built: (cd benches/load/{self.package} && cargo build --release --locked)")
        return program

    def locked(self, crate):
        """The version of a crate that its lock file names."""
        lock = (HERE / self.package / "Cargo.lock").read_text()
        found = re.search(rf'^name = "{re.escape(crate)}"\nversion = "([^"]+)"$', lock, re.M)
        return found.group(1) if found else "?"
