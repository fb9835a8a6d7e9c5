"""Writers that are killed at random moments, and what must be true after each kill."""
# SPDX-License-Identifier: Apache-2.0
import random
import signal
import time

import tosc
from harness import Thread

# Each writer moves amounts between accounts, notes that in a log, counts its commits, and
# says on its output which of them it knows to be committed. Now and then it replaces the root.
WRITER = '''
    import random
    path, me, seed, durable = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == '1'
    rng = random.Random(seed)
    manager = tosc.Manager(tosc.FileBackend(path, durable=durable))

    @tosc.transactional(manager)
    def transfer():
        data = manager.read()
        source, target, amount = rng.randrange(10), rng.randrange(10), rng.randrange(50)
        data['accounts'][source] -= amount
        data['accounts'][target] += amount
        data['done'][me] = data['done'].get(me, 0) + 1
        data['log'].append((me, data['done'][me], source, target, amount))
        if len(data['log']) > 60:
            for _, _, source, target, amount in data['log'][:40]:
                data['settled'][source] -= amount
                data['settled'][target] += amount
            del data['log'][:40]
        data['payload'] = 'x' * rng.choice([1, 10, 100, 30000])
        if rng.randrange(20) == 0:
            manager.write(manager.snapshot())
        return manager.read()['done'][me]

    os.write(1, b'0\\n')
    while True:
        number = transfer()
        os.write(1, b'%d\\n' % number)
'''


def first_value():
    return {'accounts': [1000] * 10, 'settled': [1000] * 10, 'log': [], 'done': {},
            'payload': ''}


def check(data):
    """The books balance, and the log leads from what is settled to what is."""
    assert sum(data['accounts']) == 10_000
    expected = list(data['settled'])
    last = {}
    for who, number, source, target, amount in data['log']:
        expected[source] -= amount
        expected[target] += amount
        assert number == last.get(who, number - 1) + 1, 'a gap in what a writer has done'
        last[who] = number
    assert expected == list(data['accounts'])
    for who, number in last.items():
        assert data['done'][who] == number


def kill_writers(store, children, kills, durable=True, writers=3, seed=1):
    """Keeps some writers going and kills one after the other at a random moment."""
    rng = random.Random(seed)
    backend_options = {'durable': durable}
    with tosc.Manager(store.backend(**backend_options)) as manager:
        manager.write(first_value())
    names = iter(range(10 ** 9))
    acknowledged = {}
    running = []

    def start():
        name = f'w{next(names)}'
        child = children(WRITER, store.path, name, rng.randrange(10 ** 9), int(durable),
                         timeout=300)
        running.append((name, child))

    for _ in range(writers):
        start()
    for name, child in running:
        child.line()
    follower = tosc.Manager(store.backend(**backend_options))
    slowest = 0.0
    for kill in range(kills):
        name, child = running.pop(rng.randrange(len(running)))
        if not child.out:
            child.line()
        # A random moment: within some commits of its life.
        time.sleep(rng.random() * 0.03)
        child.process.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        # The next writer goes on at once: this one, here.
        here = Thread(commit_here, follower)
        here.result(10)
        slowest = max(slowest, time.monotonic() - begin)
        child.wait()
        acks = [int(line) for line in child.out if line.strip()]
        # The last line may be cut off, then it says a smaller number: no harm.
        acknowledged[name] = acks[-1] if acks else 0
        start()
        if kill % 5 == 0 or kill == kills - 1:
            with tosc.Manager(store.backend(**backend_options)) as fresh:
                data = fresh.snapshot()
            check(data)
            for who, number in acknowledged.items():
                assert data['done'].get(who, 0) >= number, \
                    f'{who} was told that commit {number} is stored, and it is lost'
        with follower.transaction():
            check(follower.refresh())
    assert slowest < 1.0, f'a writer had to wait {slowest} s after a kill'
    for _, child in running:
        child.process.send_signal(signal.SIGKILL)
        child.wait()
    with tosc.Manager(store.backend(**backend_options)) as fresh:
        data = fresh.snapshot()
        check(data)
        for who, child in running:
            acks = [int(line) for line in child.out if line.strip()]
            assert data['done'].get(who, 0) >= (acks[-1] if acks else 0)
        # The last commit of one who died may come to light only now: a conflict, then.
        commit_here(fresh)
    follower.close()
    assert sum(acknowledged.values()) > kills, 'they did some work before they died'


def commit_here(manager):
    manager.refresh()

    @tosc.transactional(manager)
    def note():
        data = manager.read()
        data['done']['here'] = data['done'].get('here', 0) + 1

    note()
