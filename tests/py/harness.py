"""What all tests in Python share: stores, child processes, waiting and a guard against hangs.

Nothing here sleeps for a fixed time: what has to be waited for is polled with a deadline
(`wait_until`). A test that hangs is ended by the guard with the tracebacks of all threads;
so is a child process. Each file of tests imports from here; the fixtures come through the
conftest.py of its directory.
"""
# SPDX-License-Identifier: Apache-2.0
import faulthandler
import gc
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid

import pytest

import tosc
from opening import CEPH, ON_CEPH, open_store

HERE = os.path.dirname(os.path.abspath(__file__))

# How long a test or a child may take before it counts as hanging.
HANG_SECONDS = 60
SCALE = 4 if os.environ.get('TOSC_SANITIZED') else 1
SHM = '/dev/shm' if os.path.isdir('/dev/shm') and os.access('/dev/shm', os.W_OK) else None

MISSING = object()


# ---- waiting ----

def wait_until(condition, timeout=10.0, what='the condition'):
    """Polls until `condition()` is true and returns its value; fails after `timeout`."""
    deadline = time.monotonic() + timeout * SCALE
    pause = 0.0005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f'{what} did not come true within {timeout} s')
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


class Thread(threading.Thread):
    """A daemon thread that is started at once; result() joins it and passes its exception on."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._function = function
        self._args = args
        self._result = None
        self.error = None
        self.start()

    def run(self):
        try:
            self._result = self._function(*self._args)
        except BaseException as error:  # handed to the thread that asks
            self.error = error

    def result(self, timeout=30.0):
        self.join(timeout)
        if self.is_alive():
            pytest.fail(f'a thread is still busy after {timeout} s')
        if self.error is not None:
            raise self.error
        return self._result


def in_thread(function, *args, timeout=30.0):
    """Runs the function in a thread of its own and returns what it returned."""
    return Thread(function, *args).result(timeout)


# ---- a backend written in Python ----

class Box:
    """What PyBackends that share a store have in common."""

    def __init__(self):
        self.changed = threading.Condition()
        self.version = None
        self.data = None


class PyBackend(tosc.BackendBase):
    """No more than the four methods of the manual.

    `step`: versions need not be consecutive. `make`: the type of the data that read() gives.
    """

    def __init__(self, box=None, step=3, make=bytes):
        super().__init__()
        self.box = box or Box()
        self.step = step
        self.make = make
        self.seen = threading.local()
        self.calls = []

    def read(self):
        self.calls.append('read')
        with self.box.changed:
            if self.box.version is None:
                return None, None
            return self.box.version, self.make(self.box.data)

    def _store(self, new):
        self.box.data = bytes(new)
        self.box.version = (self.box.version or 0) + self.step
        self.box.changed.notify_all()
        return self.box.version

    def write(self, new):
        self.calls.append('write')
        with self.box.changed:
            return self._store(new)

    def try_write(self, new, expected):
        self.calls.append('try_write')
        with self.box.changed:
            if self.box.version != expected:
                return False
            self._store(new)
            return True

    def target_wait(self):
        with self.box.changed:
            last = getattr(self.seen, 'version', MISSING)
            if last == self.box.version:
                self.box.changed.wait(0.02)
            self.seen.version = self.box.version
            return last != self.box.version


# ---- stores ----

class Store:
    """One store of some kind; it can be opened any number of times."""

    def __init__(self, kind, directory=None):
        self.kind = kind
        self.directory = directory
        self.path = os.path.join(directory, 'store') if directory else None
        if kind == 'ceph':
            self.path = CEPH + str(uuid.uuid4())
        self._backend = tosc.InprocBackend() if kind == 'inproc' else None
        self._box = Box() if kind == 'python' else None
        self._managers = []

    @property
    def is_file(self):
        return self.directory is not None

    def backend(self, **options):
        """A backend over this store: a new object where the kind allows it."""
        if self.kind == 'inproc':
            return self._backend
        if self.kind == 'python':
            return PyBackend(self._box)
        return open_store(self.path, **options)

    def manager(self, value=MISSING, **options):
        """A new Manager with a backend of its own; with `value` it writes that first."""
        manager = tosc.Manager(self.backend(), **options)
        self._managers.append(manager)
        if value is not MISSING:
            manager.write(value)
        return manager

    def pair(self, value):
        """Two Managers that both have seen the value."""
        one = self.manager(value)
        two = self.manager()
        two.read()
        return one, two

    def close(self):
        while self._managers:
            self._managers.pop().close()


def new_directory(kind):
    return tempfile.mkdtemp(prefix='tosc-test-', dir=SHM if kind == 'shm' else None)


def make_store(kind):
    return Store(kind, new_directory(kind) if kind in ('shm', 'disk') else None)


def drop_store(store):
    store.close()
    if store.directory:
        shutil.rmtree(store.directory, ignore_errors=True)


CEPH_FIXTURES = {'store', 'shared_store', 'quick_shared_store', 'place', 'native', 'backend'}


def keep_what_runs_on_ceph(config, items):
    """Deselects the tests that are about files, memory or nothing that is stored."""
    kept = [item for item in items if CEPH_FIXTURES & set(item.fixturenames)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _store_fixture(name, kinds):
    if ON_CEPH and name in CEPH_FIXTURES:
        kinds = ['ceph']

    @pytest.fixture(name=name, params=kinds)
    def fixture(request):
        store = make_store(request.param)
        yield store
        drop_store(store)
    return fixture


FILE_KINDS = ['shm', 'disk'] if SHM else ['disk']

store = _store_fixture('store', ['inproc', *FILE_KINDS, 'python'])
file_store = _store_fixture('file_store', FILE_KINDS)
quick_file_store = _store_fixture('quick_file_store', FILE_KINDS[:1])
# What other processes can open by its path: open_store(path).
shared_store = _store_fixture('shared_store', FILE_KINDS)
quick_shared_store = _store_fixture('quick_shared_store', FILE_KINDS[:1])
inproc_store = _store_fixture('inproc_store', ['inproc'])


@pytest.fixture
def children():
    """Starts children that are killed at the end, however the test ends."""
    started = []

    def start(code, *args, **options):
        child = Child(code, *args, **options)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()


# ---- child processes ----

PRELUDE = '''
import faulthandler, os, sys, time
faulthandler.dump_traceback_later({timeout!r}, exit=True)
sys.path.insert(0, {here!r})
sys.dont_write_bytecode = True
import tosc
from opening import open_store
'''


class Child:
    """A process that runs `code` (dedented) under the same program as this one.

    Its standard output is read line by line as it comes; it ends itself with the tracebacks
    of its threads when it takes longer than `timeout`.
    """

    def __init__(self, code, *args, timeout=30.0, env=None):
        timeout *= SCALE
        prelude = PRELUDE.format(timeout=timeout, here=HERE)
        self.timeout = timeout
        self.process = subprocess.Popen(
            [sys.executable, '-u', '-c', prelude + textwrap.dedent(code), *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=None if env is None else {**os.environ, **env})
        self.out = []
        self.err = []
        self._lines = queue.Queue()
        self._pumps = [Thread(self._pump_out), Thread(self._pump_err)]

    @property
    def pid(self):
        return self.process.pid

    def _pump_out(self):
        for line in self.process.stdout:
            line = line.decode('utf-8', 'replace').rstrip('\n')
            self.out.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _pump_err(self):
        for line in self.process.stderr:
            self.err.append(line.decode('utf-8', 'replace'))

    def line(self, timeout=None):
        """The next line of its output; fails when it ends without one."""
        try:
            line = self._lines.get(timeout=timeout or self.timeout)
        except queue.Empty:
            self.kill()
            pytest.fail('the child printed nothing in time\n' + self.stderr)
        if line is None:
            code = self.process.wait(10)
            pytest.fail(f'the child ended with {code}\n' + self.stderr)
        return line

    def line_within(self, seconds):
        """The next line of its output, or None: none has come so soon, or none comes any more."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def send(self, text=''):
        self.process.stdin.write((text + '\n').encode())
        self.process.stdin.flush()

    @property
    def stderr(self):
        return ''.join(self.err)

    @property
    def stdout(self):
        return '\n'.join(self.out)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=None):
        """Its exit status, after all of its output has been read."""
        try:
            self.process.wait((timeout or self.timeout) + 10)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail('the child does not end\n' + self.stderr)
        for pump in self._pumps:
            pump.join(10)
        return self.process.returncode

    def check(self, timeout=None):
        """Waits for it, wants exit status 0, and returns what it printed."""
        code = self.wait(timeout)
        assert code == 0, f'the child ended with {code}\n{self.stdout}\n{self.stderr}'
        return self.stdout

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pump in self._pumps:
            pump.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass


def run_child(code, *args, **options):
    """Runs the code in a process of its own to its end and returns its output."""
    child = Child(code, *args, **options)
    try:
        return child.check()
    finally:
        child.kill()


# ---- looking at what is stored ----

WRAPPERS = tuple(getattr(tosc, name)
                 for name in ('DList', 'DDict', 'DSet', 'DByteArray', 'DAny'))


def kind_of(value):
    """'list', 'dict', 'set', 'bytearray' or 'any' for wrapper and plain alike; else None."""
    if isinstance(value, (tosc.DList, list)):
        return 'list'
    if isinstance(value, (tosc.DDict, dict)):
        return 'dict'
    if isinstance(value, (tosc.DSet, set)):
        return 'set'
    if isinstance(value, (tosc.DByteArray, bytearray)):
        return 'bytearray'
    if hasattr(value, '__dict__') and not isinstance(value, type):
        return 'any'
    return None


def shape(root):
    """Contents and alias structure as plain data: equal for equal graphs, cycles or not."""
    numbers = {}
    keep = []  # ids stay unique only as long as the objects live
    todo = []

    def see(value):
        if isinstance(value, tuple):
            return (type(value).__name__, *[see(element) for element in value])
        kind = kind_of(value)
        if kind is None:
            return (type(value).__name__, value)
        if id(value) not in numbers:
            numbers[id(value)] = len(numbers)
            keep.append(value)
            todo.append((kind, value))
        return ('ref', numbers[id(value)])

    top = see(root)
    nodes = []
    position = 0
    while position < len(todo):
        kind, value = todo[position]
        position += 1
        if kind == 'list':
            content = [see(element) for element in value]
        elif kind == 'dict':
            content = [(see(key), see(element)) for key, element in value.items()]
        elif kind == 'set':
            content = sorted(repr(see(element)) for element in value)
        elif kind == 'bytearray':
            content = bytes(value)
        else:
            content = sorted((name, see(element)) for name, element in vars(value).items())
        nodes.append((kind, content))
    return top, nodes


def stored(store):
    """What a Manager that has never looked before finds there, as plain data."""
    with tosc.Manager(store.backend()) as manager:
        return manager.snapshot(MISSING)


def rss_kib():
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * (os.sysconf('SC_PAGE_SIZE') // 1024)


def count_objects():
    gc.collect()
    gc.collect()
    return len(gc.get_objects())


# ---- the guard against hangs ----

_guard_file = None


def install_guard(config):
    """To be called from pytest_configure, where standard error is not captured."""
    global _guard_file
    config.addinivalue_line('markers', 'seconds(n): how long this test may take')
    if _guard_file is None:
        _guard_file = os.fdopen(os.dup(sys.__stderr__.fileno()), 'w')
    sys.dont_write_bytecode = True


@pytest.fixture(autouse=True)
def hang_guard(request):
    marker = request.node.get_closest_marker('seconds')
    seconds = marker.args[0] if marker else HANG_SECONDS
    faulthandler.dump_traceback_later(seconds * SCALE, exit=True,
                                      file=_guard_file or sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


FIXTURES = ['store', 'file_store', 'quick_file_store', 'inproc_store', 'shared_store',
            'quick_shared_store', 'children', 'hang_guard']

try:
    import hypothesis
    from hypothesis import HealthCheck
    # The same histories each time, so that one tree has one verdict; to look for what these do
    # not find, set TOSC_HISTORIES (see docs/testing.md).
    hypothesis.settings.register_profile(
        'tosc', deadline=None, database=None, print_blob=True,
        derandomize='TOSC_HISTORIES' not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                               HealthCheck.function_scoped_fixture])
    hypothesis.settings.load_profile('tosc')
except ImportError:  # the tests that need it say so themselves
    pass
