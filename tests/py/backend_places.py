"""Stores of every kind, for the tests of backends by themselves."""
# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import uuid

import pytest

import tosc
from backends_example import SqliteBackend
from harness import FILE_KINDS, new_directory
from opening import CEPH, ON_CEPH, ceph_arguments, open_store

BIG = 1 << 20


class Place:
    """One store; open() gives an object for it, a new one wherever the kind allows that."""

    def __init__(self, kind):
        self.kind = kind
        self.directory = None if kind in ('inproc', 'ceph') else new_directory(kind)
        self.name = CEPH + str(uuid.uuid4())
        self.first = tosc.InprocBackend() if kind == 'inproc' else None

    @property
    def path(self):
        return os.path.join(self.directory, 'store') if self.directory else self.name

    def open(self):
        if self.kind == 'inproc':
            return self.first.copy()
        if self.kind == 'sqlite':
            return SqliteBackend(self.path)
        return open_store(self.path)

    def close(self):
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def _place(kind):
    place = Place(kind)
    yield place
    place.close()


@pytest.fixture(params=['ceph'] if ON_CEPH else ['inproc', *FILE_KINDS, 'sqlite'])
def place(request):
    yield from _place(request.param)


@pytest.fixture(params=['ceph'] if ON_CEPH else ['inproc', *FILE_KINDS])
def native(request):
    """A store of one of our own kinds."""
    yield from _place(request.param)


@pytest.fixture(params=FILE_KINDS)
def file_place(request):
    yield from _place(request.param)


@pytest.fixture
def backend(place):
    return place.open()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'store')


def count_up(backend, times):
    """Increments the number that is stored, by compare-and-set."""
    for _ in range(times):
        while True:
            version, data = backend.read()
            if backend.try_write(b'%d' % (int(data or 0) + 1), version):
                break


class LabelledInproc(tosc.InprocBackend):
    def __init__(self, label='none'):
        self.label = label
        self.reads = 0

    def read(self):
        self.reads += 1
        return super().read()


class LabelledFile(tosc.FileBackend):
    __slots__ = ('label', '__dict__')

    def __init__(self, path, label):
        super().__init__(path, durable=False)
        self.label = label
        self.reads = 0

    def read(self):
        self.reads += 1
        return super().read()


class LabelledCeph(tosc.CephBackend):
    __slots__ = ('label', '__dict__')

    def __init__(self, name, label):
        super().__init__(**ceph_arguments(name))
        self.label = label
        self.reads = 0

    def read(self):
        self.reads += 1
        return super().read()


def labelled(native):
    if native.kind == 'inproc':
        return LabelledInproc('mine')
    if native.kind == 'ceph':
        return LabelledCeph(native.name, 'mine')
    return LabelledFile(native.path, 'mine')
