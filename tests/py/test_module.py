"""The module as a whole: loading, documentation, stubs, the end of the interpreter."""
# SPDX-License-Identifier: Apache-2.0
import ast
import gc
import importlib
import inspect
import os
import pickle
import pydoc
import re
import sys

import pytest

import tosc
from harness import HERE, run_child

STUBS = os.path.join(HERE, '..', '..', 'py', 'tosc.pyi')

PUBLIC = sorted(name for name in vars(tosc) if not name.startswith('_'))
CLASSES = [name for name in PUBLIC if isinstance(getattr(tosc, name), type)]


def own_members(name):
    """The public names that a class of ours defines, itself or in a base of ours."""
    members = set()
    for cls in getattr(tosc, name).__mro__:
        if cls.__module__ == 'tosc':
            members |= {member for member in vars(cls) if not member.startswith('_')}
    return sorted(members)


MEMBERS = [(name, member) for name in CLASSES for member in own_members(name)]


# ---- names ----

def test_what_the_manual_names_is_there():
    for name in ['Manager', 'BackendBase', 'InprocBackend', 'FileBackend', 'Transaction',
                 'transactional', 'TransactionError', 'TransactionRetryError',
                 'TransactionTimeoutError', 'DList', 'DDict', 'DSet', 'DByteArray', 'DAny']:
        assert name in PUBLIC


def test_all_is_what_is_public():
    assert tosc.__all__ == PUBLIC
    namespace = {}
    exec('from tosc import *', namespace)
    assert set(PUBLIC) <= set(namespace)


def test_the_version_is_a_version():
    assert re.fullmatch(r'\d+\.\d+\.\d+\S*', tosc.__version__)


@pytest.mark.parametrize('name', CLASSES)
def test_classes_know_their_name(name):
    cls = getattr(tosc, name)
    assert cls.__module__ == 'tosc'
    assert cls.__qualname__ == cls.__name__ == name
    assert pickle.loads(pickle.dumps(cls)) is cls


# ---- loading ----

def test_importing_again_gives_the_same_module():
    assert importlib.import_module('tosc') is tosc
    before = tosc.Error
    assert importlib.reload(tosc) is tosc
    assert tosc.Error is before


def test_it_cannot_be_loaded_twice():
    out = run_child('''
        first = sys.modules.pop('tosc')
        for _ in range(3):
            try:
                import tosc as second
            except ImportError as error:
                print(error)
        backend = first.InprocBackend()
        print(backend.write(b'1'), backend.read()[1])
        sys.modules['tosc'] = first
        import tosc
        print(tosc is first)
    ''')
    *errors, works, same = out.split('\n')
    assert len(errors) == 3
    assert all('loaded in this process already' in error for error in errors)
    assert works.endswith("b'1'")
    assert same == 'True'


def test_it_refuses_a_subinterpreter():
    out = run_child('''
        import _xxsubinterpreters as interpreters
        number = interpreters.create()
        interpreters.run_string(number, """if True:
            try:
                import tosc
            except ImportError as error:
                print(error, flush=True)
            """)
        interpreters.destroy(number)
        print(tosc.InprocBackend().write(b'') is not None)
    ''')
    assert out.split('\n') == [
        'tosc works in the main interpreter only, not in a subinterpreter', 'True']


# ---- documentation ----

def test_the_module_explains_itself():
    doc = tosc.__doc__
    assert doc.split('\n')[0].endswith('.')
    for name in PUBLIC:
        if name not in ('Error', 'TransactionRetryError', 'TransactionTimeoutError'):
            assert re.search(rf'\b{name}\b', doc), name


def test_help_shows_everything():
    text = pydoc.plain(pydoc.render_doc(tosc))
    for name in PUBLIC:
        assert re.search(rf'\b{name}\b', text), name


@pytest.mark.parametrize('name', PUBLIC)
def test_every_public_thing_has_a_docstring(name):
    doc = vars(getattr(tosc, name)).get('__doc__') if name in CLASSES else \
        getattr(tosc, name).__doc__
    assert doc and len(doc) > 15


@pytest.mark.parametrize('name, member', MEMBERS)
def test_every_method_and_property_has_a_docstring(name, member):
    doc = inspect.getdoc(getattr(getattr(tosc, name), member))
    assert doc and len(doc) > 5, f'{name}.{member}'


@pytest.mark.parametrize('name', PUBLIC)
def test_no_docstring_is_wider_than_a_terminal(name):
    for thing in [getattr(tosc, name), *(getattr(getattr(tosc, name), member)
                                         for cls, member in MEMBERS if cls == name)]:
        for line in (getattr(thing, '__doc__', None) or '').split('\n'):
            assert len(line) <= 90, line


@pytest.mark.parametrize('name, signature', [
    ('FileBackend', '(file_path, lock_path=None, *, durable=True, shared_by_hosts=False, '
                    'poll_interval=0.1)'),
    ('InprocBackend', '()'),
    ('transactional', '(manager, retries=None, timeout=None)'),
    ('BackendBase.read', '(self, /)'),
    ('BackendBase.write', '(self, /, new)'),
    ('BackendBase.try_write', '(self, /, new, expected)'),
    ('BackendBase.target_wait', '(self, /, timeout=None)'),
    ('FileBackend.try_write', '(self, /, new, expected)'),
    ('FileBackend.copy', '(self, /)'),
])
def test_signatures_can_be_inspected(name, signature):
    thing = tosc
    for part in name.split('.'):
        thing = getattr(thing, part)
    assert str(inspect.signature(thing)) == signature


# ---- stubs ----

@pytest.fixture(scope='module')
def stubs():
    with open(STUBS, encoding='utf-8') as file:
        return ast.parse(file.read())


def defined_names(body):
    names = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets}
    return names


def test_the_stubs_name_what_the_module_has(stubs):
    assert {name for name in defined_names(stubs.body) if not name.startswith('_')} \
        == set(PUBLIC)


@pytest.mark.parametrize('name', CLASSES)
def test_the_stubs_name_what_a_class_has(stubs, name):
    classes = {node.name: node for node in stubs.body if isinstance(node, ast.ClassDef)}

    def stubbed(cls):
        names = {member for member in defined_names(classes[cls].body)}
        for base in classes[cls].bases:
            if isinstance(base, ast.Name) and base.id in classes:
                names |= stubbed(base.id)
        return names

    names = stubbed(name)
    assert {member for member in own_members(name)} - names == set()
    extra = {member for member in names if not hasattr(getattr(tosc, name), member)}
    # Attributes that only instances have.
    assert extra <= {'message', '__getattr__'}


@pytest.mark.parametrize('name', CLASSES)
def test_the_stubs_have_the_bases_of_the_class(stubs, name):
    classes = {node.name: node for node in stubs.body if isinstance(node, ast.ClassDef)}
    stubbed = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    ours = [base.__name__ for base in getattr(tosc, name).__bases__
            if base.__module__ != 'builtins' or issubclass(base, BaseException)]
    assert [base for base in stubbed if base in PUBLIC] \
        == [base for base in ours if base in PUBLIC]
    assert set(stubbed) - set(PUBLIC) == set(ours) - set(PUBLIC)


# ---- the end of the interpreter ----

ENDS = {
    'objects in globals': '''
        backend = tosc.InprocBackend()
        other = tosc.FileBackend(sys.argv[1])
        other.write(b'1')
        error = tosc.StorageError(2, 'x')
    ''',
    'objects in cycles': '''
        class Mine(tosc.InprocBackend):
            pass
        for _ in range(10):
            backend = Mine()
            backend.self = backend
            backend.type = Mine
            Mine.last = backend
        cycle = [tosc.FileBackend(sys.argv[1])]
        cycle.append(cycle)
    ''',
    'objects that outlive the modules': '''
        import builtins
        builtins.kept = [tosc.InprocBackend(), tosc.FileBackend(sys.argv[1]), tosc]
        sys.kept = builtins.kept
    ''',
    'a finalizer that uses the module': '''
        class Last:
            def __init__(self, backend):
                self.backend = backend
            def __del__(self):
                self.backend.write(b'last')
        last = [Last(tosc.InprocBackend()), Last(tosc.FileBackend(sys.argv[1]))]
        last.append(last)
    ''',
    'an exit handler that uses the module': '''
        import atexit
        backend = tosc.FileBackend(sys.argv[1])
        atexit.register(backend.write, b'1')
    ''',
    'a thread that waits': '''
        import threading
        for backend in (tosc.InprocBackend(), tosc.FileBackend(sys.argv[1])):
            for _ in range(3):
                threading.Thread(target=backend.target_wait, daemon=True).start()
        time.sleep(0.1)
    ''',
    'threads that read and write': '''
        import threading
        def work(backend):
            while True:
                backend.write(b'x')
                backend.read()
        for backend in (tosc.InprocBackend(), tosc.FileBackend(sys.argv[1], durable=False)):
            for _ in range(3):
                threading.Thread(target=work, args=(backend,), daemon=True).start()
        time.sleep(0.1)
    ''',
    'an import that was forgotten': '''
        del tosc, sys.modules['tosc']
        import gc
        gc.collect()
    ''',
    'nothing but the import': '',
}


@pytest.mark.parametrize('how', ENDS)
def test_the_interpreter_ends_cleanly_with(how, tmp_path, children):
    child = children(ENDS[how], tmp_path / 'store', timeout=20)
    assert child.wait() == 0
    assert child.stderr == ''


def test_the_collector_sees_all_that_the_module_holds():
    """Collecting with the state in view is as harmless as it should be."""
    for _ in range(3):
        gc.collect()
    referents = gc.get_referents(tosc)
    for name in CLASSES:
        assert getattr(tosc, name) in referents or name in vars(tosc)
    assert tosc.Error in referents


def test_types_hold_no_instance_and_no_memory():
    def work():
        for _ in range(100):
            class Mine(tosc.InprocBackend):
                pass

            Mine().write(b'x')
            error = tosc.StorageError(2, 'x', 'y')
            assert error.errno == 2

    work()
    gc.collect()
    before = len(gc.get_objects())
    references = sys.getrefcount(tosc.InprocBackend)
    work()
    gc.collect()
    assert len(gc.get_objects()) <= before + 5
    assert sys.getrefcount(tosc.InprocBackend) <= references + 2
