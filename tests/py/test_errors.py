"""Exceptions: what each is, what it is not, and which fault of core becomes which."""
# SPDX-License-Identifier: Apache-2.0
import copy
import ctypes
import errno
import os
import pickle
import signal
import sys
import threading
import traceback

import pytest

import tosc
from harness import Thread

BASES = {
    'Error': (Exception,),
    'TransactionError': (tosc.Error,),
    'TransactionRetryError': (tosc.TransactionError,),
    'TransactionTimeoutError': (tosc.TransactionError, TimeoutError),
    'SerializationError': (tosc.Error, TypeError),
    'StorageError': (tosc.Error, OSError),
    'DataError': (tosc.Error, ValueError),
    'UnknownOutcomeError': (tosc.Error,),
    'ClosedError': (tosc.Error, ValueError),
    'EmptyStoreError': (tosc.Error, LookupError),
}

every_error = pytest.mark.parametrize('name', BASES)

# What the operating system's faults are in Python.
BUILTIN = {
    errno.ENOENT: FileNotFoundError, errno.EACCES: PermissionError, errno.EPERM: PermissionError,
    errno.EISDIR: IsADirectoryError, errno.ENOTDIR: NotADirectoryError,
    errno.EEXIST: FileExistsError, errno.EAGAIN: BlockingIOError,
    errno.ETIMEDOUT: TimeoutError, errno.EPIPE: BrokenPipeError,
    errno.ECONNREFUSED: ConnectionRefusedError, errno.ECONNRESET: ConnectionResetError,
    errno.ECHILD: ChildProcessError, errno.ESRCH: ProcessLookupError,
    errno.EINTR: InterruptedError,
}
NO_BUILTIN = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.ELOOP, errno.EDQUOT,
              errno.ESTALE, errno.ENOLCK]


# ---- the classes ----

@every_error
def test_bases(name):
    error = getattr(tosc, name)
    assert error.__bases__ == BASES[name]
    assert error.__module__ == 'tosc'
    assert error.__name__ == error.__qualname__ == name


def test_these_are_all():
    found = {name for name, value in vars(tosc).items()
             if isinstance(value, type) and issubclass(value, BaseException)}
    assert found == set(BASES)


@every_error
def test_docstrings_say_what_to_do(name):
    doc = getattr(tosc, name).__doc__
    assert doc.count('.') >= (1 if name == 'Error' else 2)
    assert '\n\n' in doc or name == 'Error'


@pytest.mark.parametrize('one', BASES)
@pytest.mark.parametrize('other', BASES)
def test_none_is_reported_as_another(one, other):
    """Except for the base of all, and that of the failures of transactions."""
    allowed = {one, 'Error'}
    if one.startswith('Transaction'):
        allowed.add('TransactionError')
    assert issubclass(getattr(tosc, one), getattr(tosc, other)) == (other in allowed)


def test_a_timeout_is_no_storage_error():
    error = tosc.TransactionTimeoutError('too late')
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, tosc.StorageError)
    assert error.errno is None
    assert str(error) == 'too late'


@every_error
def test_errors_are_made_raised_copied_and_pickled_like_others(name):
    error = getattr(tosc, name)('what', 'how') if name not in (
        'StorageError', 'TransactionTimeoutError') else getattr(tosc, name)('what')
    error.extra = 1
    copies = [pickle.loads(pickle.dumps(error, protocol))
              for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in [*copies, copy.copy(error)]:
        assert type(other) is type(error)
        assert other.args == error.args
        assert other.extra == 1
    with pytest.raises(getattr(tosc, name)) as caught:
        raise error
    assert caught.value is error


@every_error
def test_errors_can_be_derived_from(name):
    class Mine(getattr(tosc, name)):
        def __init__(self, number):
            super().__init__(f'number {number}')
            self.number = number

    with pytest.raises(getattr(tosc, name)) as caught:
        raise Mine(5)
    assert caught.value.number == 5
    assert type(caught.value) is Mine
    assert 'number 5' in str(caught.value)


# ---- StorageError ----

@pytest.mark.parametrize('number', BUILTIN, ids=errno.errorcode.get)
def test_a_storage_error_is_also_the_builtin_of_its_errno(number):
    error = tosc.StorageError(number, os.strerror(number), '/some/path')
    assert isinstance(error, tosc.StorageError)
    assert isinstance(error, BUILTIN[number])
    assert isinstance(error, tosc.Error)
    assert type(error) is type(tosc.StorageError(number, 'again'))
    assert (error.errno, error.strerror) == (number, os.strerror(number))
    assert error.filename == '/some/path'
    assert str(error) == f"[Errno {number}] {os.strerror(number)}: '/some/path'"
    with pytest.raises(BUILTIN[number]):
        raise error


@pytest.mark.parametrize('number', NO_BUILTIN, ids=errno.errorcode.get)
def test_a_storage_error_without_a_builtin_is_just_that(number):
    error = tosc.StorageError(number, os.strerror(number))
    assert type(error) is tosc.StorageError
    assert error.errno == number
    assert error.filename is None


@pytest.mark.parametrize('args', [(), ('text',), ('text', 'more'), (None, None)], ids=repr)
def test_a_storage_error_need_not_have_an_errno(args):
    error = tosc.StorageError(*args)
    assert type(error) is tosc.StorageError
    assert error.args == args


def test_the_name_of_the_class_tells_both():
    error = tosc.StorageError(errno.ENOENT, 'x')
    assert type(error).__name__ == 'StorageError[FileNotFoundError]'
    assert type(error).__module__ == 'tosc'
    last = traceback.format_exception_only(error)[-1]
    assert last == 'tosc.StorageError[FileNotFoundError]: [Errno 2] x\n'
    assert type(error).__doc__ == tosc.StorageError.__doc__


@pytest.mark.parametrize('number', [errno.ENOENT, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_storage_error_can_be_pickled(number, protocol):
    error = tosc.StorageError(number, os.strerror(number), '/path')
    error.message = 'cannot do it'
    other = pickle.loads(pickle.dumps(error, protocol))
    assert type(other) is type(error)
    assert (other.errno, other.strerror, other.filename) == (number, os.strerror(number),
                                                             '/path')
    assert str(other) == 'cannot do it'
    assert copy.copy(error).filename == '/path'


def test_the_message_is_what_is_shown():
    error = tosc.StorageError(errno.ENOSPC, 'No space left on device', '/path')
    error.message = 'cannot append to /path: No space left on device'
    assert str(error) == error.message
    error.message = None
    assert str(error) == "[Errno 28] No space left on device: '/path'"
    del error.message
    assert str(error) == "[Errno 28] No space left on device: '/path'"


def test_a_subclass_of_a_storage_error_is_kept():
    class Mine(tosc.StorageError):
        pass

    error = Mine(errno.ENOENT, 'x')
    assert type(error) is Mine
    assert error.errno == errno.ENOENT


def test_a_subclass_of_a_storage_error_may_take_other_arguments():
    class Mine(tosc.StorageError):
        def __init__(self, *, path):
            super().__init__(errno.ENOENT, 'not there', path)

    error = Mine(path='/p')
    assert type(error) is Mine
    assert (error.errno, error.strerror, error.filename) == (errno.ENOENT, 'not there', '/p')
    assert error.args == (errno.ENOENT, 'not there')
    assert str(error) == "[Errno 2] not there: '/p'"


def test_threads_make_the_same_class():
    barrier = threading.Barrier(8)

    def make():
        barrier.wait()
        return type(tosc.StorageError(errno.ESHUTDOWN, 'x'))

    assert len({thread.result() for thread in [Thread(make) for _ in range(8)]}) == 1


def test_a_fault_of_the_system_carries_errno_path_and_sentence(tmp_path):
    path = str(tmp_path / 'missing' / 'store')
    with pytest.raises(tosc.StorageError) as caught:
        tosc.FileBackend(path).write(b'')
    error = caught.value
    assert isinstance(error, FileNotFoundError)
    assert error.errno == errno.ENOENT
    assert error.strerror == os.strerror(errno.ENOENT)
    assert error.filename.startswith(str(tmp_path / 'missing'))
    assert error.message == str(error)
    assert error.filename in str(error) and error.strerror in str(error)


def test_a_path_that_is_no_utf8_can_be_reported(tmp_path):
    path = os.fsencode(tmp_path) + b'/miss\xfcng/store'
    with pytest.raises(tosc.StorageError) as caught:
        tosc.FileBackend(path).write(b'')
    assert b'miss\xfcng' in os.fsencode(caught.value.filename)
    assert 'miss\udcfcng' in str(caught.value)


# ---- codes of core ----

OK, ENOMEM, EINVAL, ESYSTEM, ECONFLICT, ECORRUPT, EUNKNOWN, EINTR, ETIMEDOUT, ECLOSED, \
    EUNSUPPORTED, EPYTHON = range(0, -12, -1)

# The program's own functions, where they can be found.
program = ctypes.PyDLL(None)
needs_symbols = pytest.mark.skipif(
    not all(hasattr(program, name) for name in ('tosc_raise', 'tosc__fail', 'tosc__fail_errno')),
    reason='tosc-run does not export its functions')


def fault(status, message=b''):
    """What tosc_raise() makes of a status that core has left with a message."""
    program.tosc__fail(status, b'%s', message)
    return program.tosc_raise(status)


@needs_symbols
@pytest.mark.parametrize('status, error', [
    (EINVAL, ValueError), (ECONFLICT, tosc.TransactionError), (ECORRUPT, tosc.DataError),
    (EUNKNOWN, tosc.UnknownOutcomeError), (ETIMEDOUT, tosc.TransactionTimeoutError),
    (ECLOSED, tosc.ClosedError), (EUNSUPPORTED, NotImplementedError), (ENOMEM, MemoryError),
    (ESYSTEM, tosc.StorageError), (EPYTHON, RuntimeError), (-99, SystemError)])
def test_each_status_has_its_exception(status, error):
    with pytest.raises(error) as caught:
        fault(status, b'the message of core')
    assert type(caught.value) is error
    if status in (ECONFLICT, ETIMEDOUT):
        assert str(caught.value)  # codes: what core said last is about something else
    elif status != ENOMEM:
        assert 'the message of core' in str(caught.value)
    with pytest.raises(error) as caught:
        fault(status)
    assert str(caught.value) or status in (ENOMEM, ESYSTEM)


@needs_symbols
def test_success_raises_nothing():
    assert fault(OK) == 0


@needs_symbols
def test_a_conflict_says_that_somebody_else_was_first():
    with pytest.raises(tosc.TransactionError, match='changed by somebody else'):
        fault(ECONFLICT)


@needs_symbols
def test_a_message_may_hold_any_bytes():
    with pytest.raises(tosc.DataError) as caught:
        fault(ECORRUPT, b'/p\xfcth: \xe2\x82\xac')
    assert str(caught.value) == '/p\udcfcth: \u20ac'


@needs_symbols
@pytest.mark.parametrize('number', [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EISDIR])
@pytest.mark.parametrize('path', [None, b'/some/p\xe4th'])
def test_a_fault_of_the_system_has_errno_and_path(number, path):
    status = program.tosc__fail_errno(number, path, b'cannot %s', b'look')
    assert status == ESYSTEM
    with pytest.raises(tosc.StorageError) as caught:
        program.tosc_raise(status)
    error = caught.value
    assert isinstance(error, BUILTIN.get(number, OSError))
    assert error.errno == number
    assert error.filename == (path and os.fsdecode(path))
    assert 'cannot look' in str(error) and os.strerror(number) in str(error)


@needs_symbols
def test_an_interrupted_wait_runs_the_handlers():
    """And is to be repeated if they raise nothing."""
    handled = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:
        # The handler may run as soon as the signal is there, or in tosc_raise().
        os.kill(os.getpid(), signal.SIGUSR1)
        assert program.tosc_raise(EINTR) == 0
        assert handled == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, old)


@needs_symbols
def test_faults_keep_no_references():
    def work():
        for status in range(-11, 0):
            if status not in (EINTR, ENOMEM):
                with pytest.raises(Exception):
                    fault(status, b'message')
        with pytest.raises(tosc.StorageError):
            program.tosc_raise(program.tosc__fail_errno(errno.ENOENT, b'/p', b'x'))

    watched = [tosc.Error, tosc.StorageError, tosc.DataError,
               type(tosc.StorageError(errno.ENOENT, ''))]
    work()
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(50):
        work()
    after = [sys.getrefcount(thing) for thing in watched]
    assert all(new <= old + 2 for old, new in zip(before, after)), (before, after)
