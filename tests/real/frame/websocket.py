"""A WebSocket client whose calls wait, over a loop that reads and writes on one thread.

The library's own client of this kind reads on one thread and writes on another. Over TLS both then work on one object of OpenSSL,
which allows that to nobody, and some versions of Python have no lock there. One handshake in a thousand gets no answer on a busy
machine, with no gateway in between.
"""

import asyncio
import threading

from websockets.asyncio.client import connect

from frame.process import PATIENCE


class Loop:
    """One event loop on a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def wait(self, coroutine, patience=PATIENCE):
        """What the coroutine gives, or `TimeoutError` after so many seconds."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, patience), self.loop).result()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()


class Client:
    """An open connection; names and errors are those of the library's."""

    def __init__(self, loop, url, **options):
        self.loop = loop
        self.connection = loop.wait(self.opened(url, options))

    @staticmethod
    async def opened(url, options):
        return await connect(url, open_timeout=PATIENCE, ping_interval=None, max_size=None, proxy=None, **options)

    @property
    def subprotocol(self):
        return self.connection.subprotocol

    @property
    def close_code(self):
        return self.connection.close_code

    @property
    def close_reason(self):
        return self.connection.close_reason

    def send(self, message):
        self.loop.wait(self.connection.send(message))

    def recv(self):
        return self.loop.wait(self.connection.recv())

    def ping(self, data):
        """Sends a ping and waits for its pong; gives the seconds between."""
        return self.loop.wait(self.pong(data))

    async def pong(self, data):
        return await (await self.connection.ping(data))

    def close(self, code=1000, reason=""):
        self.loop.wait(self.connection.close(code, reason))

    def vanish(self):
        """Ends the connection beneath the WebSocket without a word."""
        self.loop.loop.call_soon_threadsafe(self.connection.transport.abort)
