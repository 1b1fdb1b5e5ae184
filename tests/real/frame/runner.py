"""Finds the topics, runs their tests one after another, prints a line for each."""

import importlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unittest

TOPICS = pathlib.Path(__file__).resolve().parent.parent / "topics"

# No test may take longer, nor the start of a topic.
SECONDS_MAX = 90

# Of the reason of a failure.
LINES_MAX = 60

# A missing program or package is then a failure.
STRICT = os.environ.get("CI") == "true"


class Settings:
    """What the command line said, for the topics."""

    binary = pathlib.Path("target/debug/portcullis")


class Topic(unittest.TestCase):
    """Tests that share backends and a gateway, which `begin` starts once and which end with the last test.

    `programs` names the commands that the topic needs.
    """

    programs = ()
    longMessage = True
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        for program in cls.programs:
            if shutil.which(program) is None:
                raise unittest.SkipTest(f"{program} is missing")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-real-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        with Deadline():
            cls.begin()

    @classmethod
    def begin(cls):
        """Starts what the tests share; each thing is handed to `keep`."""

    @classmethod
    def keep(cls, thing):
        """Sees to it that a started thing is stopped at the end of the topic, the youngest first."""
        cls.addClassCleanup(thing.stop)
        return thing

    def run(self, result=None):
        with Deadline():
            return super().run(result)


class Deadline:
    """Raises TimeoutError in the main thread when its block takes too long; a second time if that was swallowed."""

    def __enter__(self):
        signal.signal(signal.SIGALRM, self.late)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX, 5)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)

    @staticmethod
    def late(*_):
        raise TimeoutError(f"not done within {SECONDS_MAX} s")


class Lines(unittest.TestResult):
    """Prints `ok NAME`, `FAIL NAME` with the reason, or `skip NAME: reason`."""

    def __init__(self):
        super().__init__()
        self.passed, self.failed, self.skips = 0, 0, 0

    def startTest(self, test):
        super().startTest(test)
        self.began, self.broken = time.monotonic(), []

    def stopTest(self, test):
        super().stopTest(test)
        if self.broken:
            self.fail(name_of(test), "\n".join(self.broken))

    def addSuccess(self, test):
        self.passed += 1
        print(f"ok {name_of(test)} ({time.monotonic() - self.began:.1f}s)", flush=True)

    def addFailure(self, test, error):
        self.addError(test, error)

    def addError(self, test, error):
        text = told(error)
        if isinstance(test, unittest.TestCase):
            self.broken.append(text)
        else:  # the start or the end of a topic
            self.fail(name_of(test), text)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            text = told(error)
            self.broken.append(f"{subtest._subDescription()}\n{text}")

    def addSkip(self, test, reason):
        self.skip(name_of(test), reason)

    def skip(self, name, reason):
        if STRICT:
            self.fail(name, reason)
            return
        self.skips += 1
        print(f"skip {name}: {reason}", flush=True)

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAIL {name}", flush=True)
        print("\n".join(f"    {line}" for line in reason.splitlines()[:LINES_MAX]), flush=True)


def told(error):
    """An error with where it happened in the topics and the frame, without the insides of libraries."""
    kind, value, trace = error
    ours = [frame for frame in traceback.extract_tb(trace) if str(TOPICS.parent) in frame.filename]
    places = [f"{pathlib.Path(frame.filename).name}:{frame.lineno}: {frame.line}" for frame in ours]
    return "\n".join([*places, *"".join(traceback.format_exception_only(kind, value)).rstrip().splitlines()])


def name_of(test):
    """`curl.Http2.body_is_echoed` for a test, `curl.Http2` for the start of a topic."""
    name = test.id()
    if name.startswith("setUpClass ("):
        name = name[len("setUpClass (") : -1]
    return name.removeprefix("topics.").replace(".test_", ".")


def load(names, lines):
    """The tests whose names contain one of `names`, or all. A topic that cannot be imported for want of a package is a skip."""
    suite = unittest.TestSuite()
    for path in sorted(TOPICS.glob("*.py")):
        if path.name == "__init__.py":
            continue
        try:
            module = importlib.import_module(f"topics.{path.stem}")
        except ModuleNotFoundError as error:
            lines.skip(path.stem, f"the Python package {error.name} is missing")
            continue
        for group in unittest.defaultTestLoader.loadTestsFromModule(module):
            chosen = [test for test in group if not names or any(name in name_of(test) for name in names)]
            suite.addTest(unittest.TestSuite(chosen))
    return suite


def run(options):
    """Runs what was chosen; gives the exit code."""
    Settings.binary = options.binary.resolve()
    lines = Lines()
    suite = load(options.names, lines)
    if options.list:
        print("\n".join(name_of(test) for group in suite for test in group))
        return 0
    if not Settings.binary.is_file():
        print(f"no gateway at {options.binary}: run `cargo build` first", file=sys.stderr)
        return 1
    suite.run(lines)
    skips = f", {lines.skips} skipped" if lines.skips else ""
    print(f"{lines.passed} passed, {lines.failed} failed{skips}")
    return 0 if lines.passed and not lines.failed else 1
