"""The history attribute: which commits made the last versions, after compactions."""
# SPDX-License-Identifier: Apache-2.0
import struct
import subprocess
import time

import tosc

IDS = 128
COMMITTING = '''
    import contextlib
    manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
    data = manager.read()
    print('ready')
    sys.stdin.readline()
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        with contextlib.suppress(tosc.TransactionError), manager.transaction():
            data['count'] += 1
            data['blob'] = os.urandom(3000)
    print('done')
'''


def history_of(cluster, name):
    """The newest version and the number of ids; None: there is no history yet."""
    done = subprocess.run(
        ['rados', '--conf', cluster.environment['CEPH_CONF'], '--id', 'admin', '-p',
         cluster.pool, 'getxattr', name, 'tosc.history'],
        timeout=30, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        return None
    newest, count = struct.unpack_from('<qI', done.stdout)
    assert len(done.stdout) == 16 + 16 * count
    return newest, count


def test_compactions_under_contention_keep_the_history(cluster, name, children):
    """Commits of others come in while a base is made: their ids are taken along."""
    manager = tosc.Manager(cluster.backend(name))
    manager.write({'count': 0, 'blob': b''})
    started = [children(COMMITTING, name, 6) for _ in range(3)]
    for child in started:
        assert child.line() == 'ready'
    for child in started:
        child.send()
    end = time.monotonic() + 6
    found = set()
    while time.monotonic() < end:
        found.add(history_of(cluster, name))
    for child in started:
        assert child.line() == 'done'
    counts = [count for newest, count in found - {None} if newest >= IDS]
    assert len(counts) >= 3, found
    assert sum(count == IDS for count in counts) >= 0.9 * len(counts), sorted(counts)
