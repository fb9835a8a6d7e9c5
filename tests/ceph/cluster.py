"""A Ceph cluster for the tests: ceph-test-cluster, driven from Python.

The first test that wants the cluster brings it up in a directory under /tmp, on free ports; it
is taken down when pytest ends, however that is. Each test gets it whole: what it has broken is
mended after it.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import uuid

import pytest

import tosc
from opening import ceph_arguments

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(HERE, 'ceph-test-cluster')
PACKAGES = {'ceph-mon': 'ceph-mon', 'ceph-osd': 'ceph-osd', 'ceph': 'ceph-common',
            'rados': 'ceph-common'}


def skip(reason):
    """Skips the test; where TOSC_NEED_CEPH says that all has to be there, fails it."""
    if os.environ.get('TOSC_NEED_CEPH'):
        pytest.fail(reason)
    pytest.skip(reason)


def skip_without(commands):
    """Skips the test where packages are missing, naming them."""
    path = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'
    missing = sorted({package for command, package in commands.items()
                      if not shutil.which(command, path=path)})
    if missing:
        skip('apt-get install --no-install-recommends ' + ' '.join(missing))


def skip_without_librados():
    try:
        tosc.CephBackend('nobody', None, None, 'no-pool', 'no-object', conf='/nonexistent')
    except NotImplementedError as error:
        skip(str(error))
    except (tosc.Error, ValueError):
        pass


class Cluster:
    """One monitor and one OSD. The methods do what ceph-test-cluster's commands say."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.settings = {f'CTC_{name.upper()}': str(value) for name, value in settings.items()}
        self.environment = {}
        self.broken = False

    def do(self, command, *args, timeout=100):
        """Runs a command of the script; what it printed."""
        done = subprocess.run([SCRIPT, command, self.directory, *args], timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, encoding='utf-8', check=False,
                              env={**os.environ, **self.settings, 'CTC_OWNER': str(os.getpid())})
        assert done.returncode == 0, f'{command} {args}: {done.stderr}'
        return done.stdout

    def up(self):
        self.do('up')
        pairs = re.findall(r'(?m)^(\w+)=(.*)$', self.do('env'))
        self.environment = {name: shlex.split(value)[0] for name, value in pairs}

    def down(self):
        self.do('down')

    def ceph(self, *args):
        return self.do('ceph', '--connect-timeout', '10', *args)

    def rados(self, *args):
        """The rados command as administrator."""
        done = subprocess.run(
            ['rados', '--conf', self.environment['CEPH_CONF'], '--id', 'admin', *args],
            timeout=30, stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8',
            check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def snapshot(self, name):
        """A snapshot of the pool by this name, which whatever is written from now on is not in.

        Whoever writes has the pool's map of before, and so may the OSD have for a moment. It does
        what a newcomer asks for, who has the newest map, when it has that too.
        """
        self.rados('-p', self.pool, 'mksnap', name)
        self.rados('-p', self.pool, 'stat', name)

    def breaking(self, command):
        self.broken = True
        self.do(command)

    def kill_osd(self):
        self.breaking('kill-osd')

    def start_osd(self):
        self.do('start-osd')

    def freeze_osd(self):
        self.breaking('freeze-osd')

    def thaw_osd(self):
        self.do('thaw-osd')

    def kill_mon(self):
        self.breaking('kill-mon')

    def start_mon(self):
        self.do('start-mon')

    @contextlib.contextmanager
    def without_osd(self):
        self.kill_osd()
        try:
            yield
        finally:
            self.start_osd()

    @contextlib.contextmanager
    def frozen_osd(self):
        self.freeze_osd()
        try:
            yield
        finally:
            self.thaw_osd()

    @contextlib.contextmanager
    def without_mon(self):
        self.kill_mon()
        try:
            yield
        finally:
            self.start_mon()

    def mend(self):
        if self.broken:
            with contextlib.suppress(AssertionError):
                self.do('thaw-osd')
            self.do('up')
            self.broken = False

    @property
    def key(self):
        return self.environment['TOSC_CEPH_KEY']

    @property
    def pool(self):
        return self.environment['TOSC_CEPH_POOL']

    def arguments(self, name=None, **options):
        """The arguments of a CephBackend for the object, by default a new one."""
        return ceph_arguments(name or str(uuid.uuid4()), **options)

    def backend(self, name=None, **options):
        return tosc.CephBackend(**self.arguments(name, **options))

    def watchers(self, name):
        """Addresses of those that watch the object."""
        listed = self.rados('-p', self.pool, 'listwatchers', name)
        return re.findall(r'watcher=(\S+)', listed)


@pytest.fixture(scope='session')
def bare_cluster():
    """The cluster, whether or not there is a CephBackend."""
    skip_without(PACKAGES)
    directory = tempfile.mkdtemp(prefix='tosc-ceph-', dir='/tmp')
    running = Cluster(directory)
    try:
        running.up()
        os.environ.update({name: value for name, value in running.environment.items()
                           if name.startswith('TOSC_CEPH_') and 'ADMIN' not in name})
        yield running
    finally:
        running.down()


@pytest.fixture(scope='session')
def whole_cluster(request):
    skip_without_librados()
    return request.getfixturevalue('bare_cluster')


@pytest.fixture
def cluster(whole_cluster):
    """The cluster, whole again after the test."""
    yield whole_cluster
    whole_cluster.mend()


@pytest.fixture
def name():
    """The name of an object that does not exist yet."""
    return str(uuid.uuid4())
