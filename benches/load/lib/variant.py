"""Another Portcullis than the one that all cases are measured on: the same binary, started for one figure."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

from .peers import Portcullis


class Variant(Portcullis):
    def __init__(self, peer):
        folder = Path(tempfile.mkdtemp(dir=peer.folder))
        super().__init__(folder, peer.cores, peer.keys, peer.upstream, peer.options)
        self.binary = peer.binary

    @contextmanager
    def running(self):
        try:
            self.start()
            yield self
        finally:
            self.stop()


class Budgeted(Variant):
    """With the budget of bad tokens that it has by default."""

    name = "budgeted"
    bad_tokens = '{ rate = "20/1m", burst = 50 }'
