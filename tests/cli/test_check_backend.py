"""tosc-check-backend: our backends, and the examples, pass; broken ones fail at the right test.

Most of the time such a run waits, so the long ones, which are in RUNS, are all started when the
first test asks for one, several at a time, if a test of this session will look at it.
"""
# SPDX-License-Identifier: Apache-2.0
import collections
import concurrent.futures
import fnmatch
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

SOURCE = pathlib.Path(os.environ.get('TOSC_SRCDIR') or pathlib.Path(__file__).parents[2])
BUILD = pathlib.Path(os.environ.get('TOSC_BUILDDIR') or pathlib.Path(sys.executable).parent)
PROGRAM = str(BUILD / 'tosc-check-backend')
CC = shlex.split(os.environ.get('TOSC_CC') or 'cc')
SANITIZED = bool(os.environ.get('TOSC_SANITIZED'))
SECONDS = 400
AT_A_TIME = 8

Result = collections.namedtuple('Result', 'status out err passed failed skipped reasons')


def check(*args, leaks=True, **env):
    """Runs the program and takes its report apart. It looks for leaks, if it is built for that."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    kept['PYTHONDONTWRITEBYTECODE'] = '1'
    kept['ASAN_OPTIONS'] = kept.get('ASAN_OPTIONS', '') + f':detect_leaks={int(leaks)}'
    ended = subprocess.run([PROGRAM, *args], capture_output=True, check=False, text=True,
                           timeout=SECONDS, env={**kept, **env})
    tests = re.findall(r'^(not )?ok (\d+) - ([\w.]+): (.*?)( # SKIP .*)?\n((?:# .*\n)*)',
                       ended.stdout, re.M)
    plan = re.match(r'1\.\.(\d+)\n', ended.stdout)
    if plan:
        assert [int(test[1]) for test in tests] == list(range(1, int(plan[1]) + 1)), ended
    return Result(ended.returncode, ended.stdout, ended.stderr,
                  [test[2] for test in tests if not test[0] and not test[4]],
                  [test[2] for test in tests if test[0]],
                  [test[2] for test in tests if test[4]],
                  {test[2]: test[5] for test in tests if test[0]})


def passes(*args, **env):
    """What was tested and what was skipped, as nothing failed."""
    result = check(*args, **env)
    expect_passed(result)
    return result


def compiled(directory, *sources, libraries=()):
    plugin = directory / (pathlib.Path(sources[0]).stem + '.so')
    subprocess.run([*CC, '-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-Werror',
                    '-D_GNU_SOURCE', '-shared', '-fPIC', '-I', SOURCE / 'include',
                    '-I', BUILD / 'include', '-o', plugin, *sources, *libraries], check=True)
    return str(plugin)


# ---- the long runs ----

RUNS = {}


def run(function):
    """One of RUNS: makes a run of the program in a directory of its own."""
    RUNS[function.__name__] = function
    return function


@run
def memory(_):
    return check('inproc:{}')


@run
def files(directory):
    return check(f'file:{directory}/{{}}')


@run
def files_not_flushed(directory):
    return check(f'file:{directory}/{{}}?durable=0')


@run
def files_shared_by_hosts(directory):
    return check(f'file:{directory}/{{}}?durable=0&shared_by_hosts=1&poll_ms=20')


@run
def example_in_python(directory):
    return check('--python', 'sqlite_backend:SqliteBackend', f'{directory}/{{}}.db',
                 PYTHONPATH=str(SOURCE / 'examples' / 'sqlite_backend'))


@run
def example_in_c(directory):
    plugin = compiled(directory, SOURCE / 'examples' / 'sqlite_backend_c' / 'sqlite_backend.c',
                      libraries=['-lsqlite3'])
    return check('--plugin', plugin, f'sqlite:{directory}/{{}}.db')


@pytest.fixture(scope='session')
def broken(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp('plugin'),
                    SOURCE / 'tests' / 'cli' / 'broken_backend.c')


@pytest.fixture(scope='session')
def started(request, tmp_path_factory, broken):
    """The runs that the tests of this session look at, by name, as futures."""
    looked_at = {item.callspec.params['result'] for item in request.session.items
                 if hasattr(item, 'callspec') and 'result' in item.callspec.params}
    functions = {fault: functools.partial(with_fault, broken, fault) for fault in FAULTS}
    functions.update(RUNS)
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        futures = {name: pool.submit(functions[name], tmp_path_factory.mktemp('run'))
                   for name in dict.fromkeys([*LONGEST, *RUNS, *FAULTS]) if name in looked_at}
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.fixture
def result(request, started):
    """How the run ended whose name is the parameter."""
    return started[request.param].result()


def looks_at(*names):
    return pytest.mark.parametrize('result', names, indirect=True)


# ---- what has to pass ----

def expect_passed(result):
    assert result.failed == [] and result.status == 0, result.out + result.err


@looks_at('memory')
def test_memory(result):
    expect_passed(result)
    assert all(name.endswith('.processes') or name.startswith('kill.') or name == 'lock.killed'
               for name in result.skipped)


@looks_at('files', 'files_not_flushed')
def test_files(result):
    expect_passed(result)
    assert result.skipped == []


@looks_at('files_shared_by_hosts')
def test_files_shared_by_hosts(result):
    expect_passed(result)
    assert result.skipped == ['changed.tells', 'changed.objects']


@looks_at('example_in_python')
def test_example_in_python(result):
    expect_passed(result)
    assert {'race.sum.processes', 'kill.writer', 'wait.processes'} <= set(result.passed)
    assert {'append.adds', 'wait.signal'} <= set(result.skipped)


def test_example_in_c_is_short():
    source = SOURCE / 'examples' / 'sqlite_backend_c' / 'sqlite_backend.c'
    assert len(source.read_text().splitlines()) < 200
    has = subprocess.run(['pkg-config', '--exists', 'sqlite3'], check=False).returncode == 0
    assert has, 'SQLite is missing: apt-get install libsqlite3-dev'


@looks_at('example_in_c')
def test_example_in_c(result):
    expect_passed(result)
    assert {'race.sum.processes', 'kill.writer', 'wait.processes'} <= set(result.passed)


MODULE = '''
import tosc, time

class Own(tosc.BackendBase):
    def __init__(self):
        self.inner = tosc.InprocBackend()
    def read(self):
        return self.inner.read()
    def write(self, new):
        return self.inner.write(new)
    def try_write(self, new, expected):
        return self.inner.try_write(new, expected)
    def target_wait(self, timeout=None):
        return self.inner.target_wait(timeout)

class Nested:
    Inner = Own

class Liar(Own):
    def try_write(self, new, expected):
        return self.inner.try_write(new, expected) or True

class Raiser(Own):
    def read(self):
        raise OSError('the disk is gone')

class Stubborn(Own):
    def target_wait(self):
        return self.inner.target_wait()

def broken():
    raise ValueError('no such store')
'''


@pytest.fixture
def module(tmp_path):
    (tmp_path / 'made.py').write_text(MODULE)
    return {'PYTHONPATH': str(tmp_path)}


def test_private_backends_are_tested_with_one_object(module):
    result = passes('--private', '--python', 'made:Nested.Inner', **module)
    assert {'race.sum.threads', 'wait.event'} <= set(result.passed)
    assert all(name not in result.passed for name in ('store.objects', 'race.sum.objects'))


def test_native_backends_of_python_have_all_operations():
    result = passes('--private', '--only', 'append.*', '--only', 'store.*', '--python',
                    'tosc:InprocBackend')
    assert 'append.adds' in result.passed


def test_exceptions_of_a_backend_in_python_are_told(module):
    result = check('--private', '--only', 'store.reads', '--python', 'made:Raiser', **module)
    assert 'OSError: the disk is gone' in result.reasons['store.reads']
    result = check('--private', '--only', 'try_write.version', '--python', 'made:Liar', **module)
    assert result.failed == ['try_write.version'] and result.status == 1


def test_target_wait_without_timeout_is_not_asked_to_end(module):
    result = passes('--private', '--only', 'wait', '--only', 'outputs', '--python',
                    'made:Stubborn', **module)
    assert {'wait.timeout', 'wait.event'} <= set(result.skipped)
    assert {'wait.before', 'wait.threads', 'wait.empty', 'wait.burst'} <= set(result.passed)


# ---- what has to fail ----

# All that need no workers; those with workers are added where a fault is about them.
QUICK = ['table', 'store.empty', 'store.reads', 'store.objects', 'version.*', 'try_write.*',
         'bytes.*', 'outputs.*', 'objects.*', 'wait.before', 'wait.timeout', 'append.[!r]*',
         'read_since.*', 'changed.*', 'compact.*', 'lock.holder', 'lock.owner', 'lock.deadline']

# Fault: what fails, what may fail as well, what else is run.
FAULTS = {
    'none': ('', '', ''),
    'no-unlock': ('table', '', ''),
    'blob-of-nothing': ('store.empty', '', ''),
    'same-version': ('version.rises', '', ''),
    'megabyte': ('bytes.exact', '', ''),
    'any-id': ('try_write.id', '', ''),
    '32-bits': ('try_write.version', '', ''),
    'outputs': ('outputs.untouched', '', ''),
    'descriptors': ('objects.end', '', ''),
    'torn-read': ('race.read.threads race.read.objects race.read.processes', '', 'race.*'),
    'two-steps': ('race.one.threads race.sum.threads race.sum.objects race.sum.processes',
                  'race.*', 'race.*'),
    'lost-write': ('race.one.threads race.sum.threads race.sum.objects race.sum.processes',
                   'race.*', 'race.*'),
    'later': ('kill.writer', 'store.objects try_write.id version.rises', 'kill.writer'),
    'late-wait': ('wait.before wait.burst', 'wait.burst.objects', 'wait.*'),
    'own-wait': ('wait.objects wait.processes wait.burst.objects', '', 'wait.*'),
    'no-event': ('wait.event', 'outputs.untouched', 'wait.event wait.signal'),
    'no-signal': ('wait.signal', '', 'wait.event wait.signal'),
    'append-anywhere': ('append.position append.race.threads append.race.processes',
                        'append.race.objects outputs.untouched', 'append.race.*'),
    'all-is-news': ('read_since.news', '', ''),
    'stale-base': ('read_since.gone', 'compact.keeps', ''),
    'unchanged': ('changed.tells changed.objects', '', ''),
    'lost-tail': ('compact.keeps', 'chain.*', 'chain.*'),
    'any-base': ('compact.base', 'outputs.untouched', ''),
    'no-lock': ('lock.deadline lock.owner lock.waits lock.waits.objects lock.waits.processes '
                'lock.excludes.objects lock.excludes.processes lock.one.threads '
                'lock.one.objects lock.one.processes lock.killed lock.signal', '', 'lock.*'),
    'object-lock': ('lock.waits.objects lock.waits.processes lock.excludes.objects '
                    'lock.excludes.processes lock.one.objects lock.one.processes lock.killed',
                    'lock.waits', 'lock.*'),
    'lock-stays': ('lock.killed', '', 'lock.*'),
}

# Several of their tests hang until the limit. It is so long for the sake of those that pass.
LONGEST = ['late-wait', 'own-wait', 'no-event', 'lock-stays']
LIMIT = '15' if SANITIZED else '8'


def with_fault(broken, fault, directory):
    only = [word for name in QUICK + FAULTS[fault][2].split() for word in ('--only', name)]
    return check('--plugin', broken, '--seconds', LIMIT, *only,
                 f'broken:{directory}/{{}}?fault={fault}', leaks=fault == 'none')


@looks_at(*FAULTS)
def test_fault_is_found_by_its_test(request, result):
    must, may, _ = (text.split() for text in FAULTS[request.node.callspec.params['result']])
    assert set(must) <= set(result.failed), result.out
    assert [name for name in result.failed
            if not any(fnmatch.fnmatch(name, pattern) for pattern in must + may)] == [], result.out
    assert result.status == (1 if must else 0)


def test_missing_operation_is_named_and_ends_nothing(tmp_path, broken):
    result = check('--plugin', broken, f'broken:{tmp_path}/{{}}?fault=no-wait')
    assert result.failed == ['table'] and result.passed == []
    assert 'the required operation wait is missing' in result.reasons['table']
    assert '# SKIP the backend has no wait' in result.out


def test_crash_ends_one_test_and_is_told(tmp_path, broken):
    result = check('--plugin', broken, '--only', 'compact', '--only', 'append.adds',
                   f'broken:{tmp_path}/{{}}?fault=crash')
    assert result.failed == ['compact.keeps', 'compact.all', 'compact.base']
    assert result.passed == ['append.adds']
    assert ('was ended by signal 6 (Aborted); the operation last begun is compact'
            in result.reasons['compact.all'])


def test_hang_is_ended_and_told(tmp_path, broken):
    result = check('--plugin', broken, '--seconds', '2', '--only', 'changed.tells', '--only',
                   'append.adds', f'broken:{tmp_path}/{{}}?fault=hang')
    assert result.failed == ['changed.tells'] and result.passed == ['append.adds']
    assert ('did not end within 2 s; the operation last begun is changed'
            in result.reasons['changed.tells'])


# ---- the command line ----

@pytest.mark.parametrize('args, message', [
    ([], 'which backend?'),
    (['inproc:x'], '"{}"'),
    (['inproc:{}', 'inproc:{}'], 'more than one URI'),
    (['--only', 'nonsense', 'inproc:{}'], 'no test has such a name'),
    (['--seconds', 'x', 'inproc:{}'], '--seconds'),
    (['--seconds', '0', 'inproc:{}'], '--seconds'),
    (['--bogus'], 'bogus'),
    (['nonsense:{}'], 'unknown scheme "nonsense"'),
    (['--plugin', '/no/such.so', 'x:{}'], '/no/such.so'),
    (['--plugin', '/no/such.so', '--python', 'a:b', '{}'], 'exclude each other'),
    (['--python', 'a', '{}'], 'MODULE:FACTORY'),
    (['--python', 'tosc:InprocBackend'], '--private'),
    (['--python', 'no_such_module:f', '{}'], 'ModuleNotFoundError'),
    (['--python', 'tosc:no_such_class', '{}'], 'AttributeError'),
    (['--private', '--python', 'tosc:Manager'], 'TypeError'),
    (['--private', '--python', 'made:broken'], 'ValueError: no such store'),
])
def test_what_cannot_be_checked_is_told(module, args, message):
    result = check(*args, **module)
    assert result.status == 2 and message in result.err, result
    assert not result.passed and not result.failed


def test_help_and_version():
    assert check('--help').out.startswith('Usage: tosc-check-backend')
    assert re.fullmatch(r'tosc-check-backend \(libtosc\) \d+\.\d+\.\d+\S*\n',
                        check('--version').out)


def test_list_names_what_is_run():
    listed = check('--list').out.splitlines()
    names = [line.split()[0] for line in listed]
    assert len(names) == len(set(names)) > 60
    assert check('--list', '--only', 'lock.*').out.splitlines() == [
        line for line in listed if line.startswith('lock.')]
    result = passes('--only', 'version.rises', '--only', 'table', 'inproc:{}')
    assert result.passed == ['table', 'version.rises']
