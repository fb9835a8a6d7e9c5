"""One of several processes on files of a CephFS: cephfs_worker.py WORK TIMES PATH….

count    raise a counter by transactions
change   give all parts of a list the next number, in ways that append and replace
read     open the store again and again, and check that all parts belong together

With several paths one is done after the other, each when a line comes.
"""
# SPDX-License-Identifier: Apache-2.0
import faulthandler
import sys

faulthandler.dump_traceback_later(230, exit=True)

import tosc  # noqa: E402  pylint: disable=wrong-import-position

PARTS = 40


def count(manager, times):
    data = manager.read()

    @tosc.transactional(manager)
    def step():
        data['counter'] += 1

    for _ in range(times):
        step()


def change(manager, times):
    """All parts get one number; the store is appended to, replaced and compacted on the way."""
    for turn in range(times):
        @tosc.transactional(manager)
        def step(turn=turn):
            number = manager.read()['parts'][0] + 1
            if turn % 10 == 9:
                manager.write({**manager.snapshot(), 'parts': [number] * PARTS})
            else:
                manager.read()['parts'][:] = [number] * PARTS
        step()


def read(path, times):
    """Each look is from the beginning: a Manager of its own."""
    newest = 0
    for _ in range(times):
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            parts = list(manager.read()['parts'])
        assert len(parts) == PARTS and len(set(parts)) == 1, parts
        assert parts[0] >= newest, 'time goes back'
        newest = parts[0]


def main():
    work, times, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    for path in paths:
        print('ready', flush=True)
        sys.stdin.readline()
        if work == 'read':
            read(path, times)
        else:
            with tosc.Manager(tosc.FileBackend(path)) as manager:
                {'count': count, 'change': change}[work](manager, times)
        print('done', flush=True)


if __name__ == '__main__':
    main()
