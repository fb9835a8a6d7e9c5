"""Who sees what, and when: threads, tasks and contexts that share a Manager, and other Managers."""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import contextvars
import gc
import sys
import threading

import pytest

import tosc
from harness import MISSING, Thread, in_thread, shape, stored, wait_until


class Oops(Exception):
    pass


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


# ---- threads ----

def test_nobody_sees_changes_before_the_commit_and_everybody_after(store):
    one, two = store.pair({'list': [0], 'dict': {}, 'set': {0}, 'bytes': bytearray(b'0'),
                           'thing': Thing(x=0)})
    before = shape(one.snapshot())

    def looks():
        data = one.read()
        return (shape(data), shape(one.refresh()), shape(one.snapshot()),
                shape(two.refresh()), shape(two.snapshot()), shape(stored(store)))

    held = one.read()
    with one.transaction():
        held['list'].append(1)
        held['dict']['new'] = {'k': []}
        held['dict']['new']['k'].append(1)
        held['set'].add(1)
        held['bytes'].extend(b'1')
        held['thing'].x = 1
        held['new'] = [1]
        after = shape(held)
        assert all(look == before for look in in_thread(looks))
    assert all(look == after for look in in_thread(looks) + looks())


def test_the_state_of_a_transaction_is_that_of_its_start(store):
    one, two = store.pair({'n': 0, 'list': []})
    data = one.read()

    def changes():
        for n in range(10):
            with two.transaction():
                two.read()['n'] = n + 1
                two.read()['list'].append(n)
            one.refresh()
            data['list'].append('thread')
            two.refresh()

    with one.transaction():
        in_thread(changes)
        assert data == {'n': 0, 'list': []}
        assert one.read() is data
        assert one.snapshot() == {'n': 0, 'list': []}
        in_thread(changes)
        assert data == {'n': 0, 'list': []}
    one.refresh()
    assert data['n'] == 10 and len(data['list']) == 40


def test_objects_removed_by_others_are_still_there_in_the_transaction(store):
    one, two = store.pair({'a': {'b': [1, 2, 3]}, 'c': [4]})
    data = one.read()
    inner = data['a']['b']
    with one.transaction():
        two.write('all gone')
        in_thread(one.refresh)
        assert data == {'a': {'b': [1, 2, 3]}, 'c': [4]}
        assert data['a']['b'] is inner and inner == [1, 2, 3]
        assert data['c'] == [4], 'also what was never looked at before'
    assert one.refresh() == 'all gone'


def test_each_thread_has_its_own_transaction_and_the_second_commit_conflicts(store):
    manager = store.manager({'a': 0, 'b': 0})
    data = manager.read()
    barrier = threading.Barrier(2, timeout=20)
    outcome = {}

    def work(key, first):
        try:
            with manager.transaction():
                barrier.wait()
                data[key] += 1
                assert data == ({'a': 1, 'b': 0} if key == 'a' else {'a': 0, 'b': 1})
                barrier.wait()
                if not first:
                    wait_until(lambda: 'a' in outcome)
            outcome[key] = 'committed'
        except tosc.TransactionError:
            outcome[key] = 'conflict'

    threads = [Thread(work, 'a', True), Thread(work, 'b', False)]
    for thread in threads:
        thread.result()
    assert outcome == {'a': 'committed', 'b': 'conflict'}
    assert data == {'a': 1, 'b': 0} == stored(store)


def test_a_thread_started_inside_does_not_take_part(store):
    manager = store.manager([0])
    root = manager.read()
    with pytest.raises(tosc.TransactionError):
        with manager.transaction():
            root.append(1)

            def work():
                seen = list(root)
                root.append(2)
                return seen, list(root)

            assert in_thread(work) == ([0], [0, 2])
            assert root == [0, 1]
    assert root == [0, 2] == stored(store)


def test_implicit_changes_of_the_threads_of_one_manager_do_not_conflict(store):
    manager = store.manager({'list': [], 'set': set(), 'dict': {}})
    data = manager.read()
    count, threads = 60, 6

    def work(me):
        for n in range(count):
            data['list'].append((me, n))
            data['set'].add((me, n))
            data['dict'][me, n] = [n]
            data['dict'][me, n].append(me)

    for thread in [Thread(work, me) for me in range(threads)]:
        thread.result()
    for view in (data, stored(store)):
        assert len(view['list']) == count * threads
        assert set(view['list']) == view['set'] == set(view['dict'])
        for me in range(threads):
            mine = [n for who, n in view['list'] if who == me]
            assert mine == list(range(count)), 'in the order in which the thread made them'
            assert all(view['dict'][me, n] == [n, me] for n in range(count))


def test_implicit_changes_do_not_wait_for_an_open_transaction(store):
    manager = store.manager({'n': 0})
    data = manager.read()
    with pytest.raises(tosc.TransactionError):
        with manager.transaction():
            data['x'] = 1
            in_thread(lambda: data.update(n=1), timeout=10)
            assert data == {'n': 0, 'x': 1}
    assert data == {'n': 1} == stored(store)


def test_readers_never_wait_for_writers(store):
    """A reader goes on while another thread is in the middle of a commit."""
    from harness import PyBackend
    reached, go_on = threading.Event(), threading.Event()

    class Slow(PyBackend):
        def try_write(self, new, expected):
            if expected is not None:
                reached.set()
                assert go_on.wait(20)
            return super().try_write(new, expected)

    with tosc.Manager(Slow()) as manager:
        manager.write([0])
        root = manager.read()
        writer = Thread(root.append, 1)
        assert reached.wait(20)
        try:
            assert in_thread(lambda: (list(root), manager.read() is root, manager.snapshot()),
                             timeout=5) == ([0], True, [0])
            with manager.transaction():
                assert root == [0]
        finally:
            go_on.set()
        writer.result()
        assert root == [0, 1]


def test_a_mixed_state_is_never_seen_by_threads_of_the_same_manager(store):
    manager = store.manager({'a': [0], 'b': {'n': 0}, 'c': Thing(n=0)})
    data = manager.read()
    stop = threading.Event()
    bad = []

    def look():
        while not stop.is_set():
            with manager.transaction():
                first = (data['a'][-1], data['b']['n'], data['c'].n)
                again = (data['a'][-1], data['b']['n'], data['c'].n)
                if len({*first, *again}) != 1:
                    bad.append((first, again))
            snapshot = manager.snapshot()
            if not snapshot['a'][-1] == snapshot['b']['n'] == snapshot['c'].n:
                bad.append(shape(snapshot))

    readers = [Thread(look) for _ in range(2)]

    @tosc.transactional(manager)
    def step():
        data['a'].append(data['a'][-1] + 1)
        data['b']['n'] += 1
        data['c'].n += 1

    for _ in range(150):
        step()
    stop.set()
    for reader in readers:
        reader.result()
    assert bad == []


def test_a_mixed_state_is_never_seen_by_another_manager(store):
    one, two = store.pair({'a': 0, 'b': [0]})
    stop = threading.Event()
    bad = []

    def look():
        data = two.read()
        while not stop.is_set():
            with two.transaction():
                if data['a'] != data['b'][-1]:
                    bad.append((data['a'], list(data['b'])))

    reader = Thread(look)
    data = one.read()
    for n in range(150):
        with one.transaction():
            data['a'] = n
            data['b'].append(n)
    stop.set()
    reader.result()
    assert bad == []


def test_a_hundred_threads_each_increment_once(store):
    manager = store.manager({'counter': 0})
    data = manager.read()
    barrier = threading.Barrier(100, timeout=30)

    @tosc.transactional(manager)
    def increment():
        data['counter'] += 1

    def work():
        barrier.wait()
        increment()

    for thread in [Thread(work) for _ in range(100)]:
        thread.result()
    assert data['counter'] == 100 == stored(store)['counter']


def test_ten_threads_each_increment_two_hundred_times(store):
    manager = store.manager({'counter': 0})
    data = manager.read()

    @tosc.transactional(manager)
    def increment():
        data['counter'] += 1

    def work():
        for _ in range(200):
            increment()

    for thread in [Thread(work) for _ in range(10)]:
        thread.result(60)
    assert data['counter'] == 2000 == stored(store)['counter']


def test_threads_with_a_manager_each_on_one_backend_object(store):
    backend = store.backend()
    tosc.Manager(backend).write({'counter': 0})

    def work():
        with tosc.Manager(backend) as manager:
            data = manager.read()
            increment = tosc.transactional(manager)(
                lambda: data.__setitem__('counter', data['counter'] + 1))
            for _ in range(40):
                increment()

    for thread in [Thread(work) for _ in range(4)]:
        thread.result(60)
    assert tosc.Manager(backend).read() == {'counter': 160}


def test_two_managers_on_one_backend_object_are_two(store):
    backend = store.backend()
    with tosc.Manager(backend) as one, tosc.Manager(backend) as two:
        one.write([0])
        assert two.read() == [0]
        assert one.read() is not two.read()
        with one.transaction():
            one.read().append(1)
            assert two.read() == [0]
        wait_until(lambda: two.read() == [0, 1])
        one.close()
        two.read().append(2)
        assert two.read() == [0, 1, 2]


def test_transfers_between_accounts_keep_the_sum(store):
    managers = [store.manager({'accounts': [100] * 8, 'log': []}), store.manager()]
    stop = threading.Event()
    bad = []

    def transfer(manager, seed):
        data = manager.read()

        @tosc.transactional(manager)
        def move(source, target, amount):
            data['accounts'][source] -= amount
            data['accounts'][target] += amount
            data['log'].append((source, target, amount))

        for n in range(40):
            move((seed + n) % 8, (seed * 3 + n * 5 + 1) % 8, n % 7)

    def audit():
        manager = store.manager()
        while not stop.is_set():
            snapshot = manager.snapshot()
            expected = [100] * 8
            for source, target, amount in snapshot['log']:
                expected[source] -= amount
                expected[target] += amount
            if expected != snapshot['accounts']:
                bad.append(snapshot)
            manager.refresh()

    auditor = Thread(audit)
    for thread in [Thread(transfer, managers[n % 2], n) for n in range(4)]:
        thread.result(60)
    stop.set()
    auditor.result()
    assert bad == []
    final = stored(store)
    assert sum(final['accounts']) == 800 and len(final['log']) == 160


# ---- asyncio and contexts ----

def test_tasks_are_isolated_from_each_other(store):
    manager = store.manager({'a': 0, 'b': 0})
    data = manager.read()
    trace = []

    async def one_task(entered, go_on):
        with manager.transaction():
            data['a'] = 1
            entered.set()
            await go_on.wait()
            trace.append(('one', data['a'], data['b']))

    async def main():
        entered, go_on = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(one_task(entered, go_on))
        await entered.wait()
        trace.append(('main', data['a'], data['b']))
        data['b'] = 5
        trace.append(('main', data['a'], data['b']))
        go_on.set()
        with pytest.raises(tosc.TransactionError):
            await task

    asyncio.run(main())
    assert trace == [('main', 0, 0), ('main', 0, 5), ('one', 1, 0)]
    assert data == {'a': 0, 'b': 5} == stored(store)


def test_a_task_started_inside_a_transaction_does_not_take_part(store):
    manager = store.manager([0])
    root = manager.read()

    async def other():
        seen = list(root)
        root.append('task')
        return seen

    async def main():
        with pytest.raises(tosc.TransactionError):
            with manager.transaction():
                root.append('outer')
                assert await asyncio.create_task(other()) == [0]
                assert root == [0, 'outer']
                assert await asyncio.gather(other()) == [[0, 'task']]
                assert root == [0, 'outer']
        assert root == [0, 'task', 'task']

    asyncio.run(main())
    assert stored(store) == [0, 'task', 'task']


def test_a_coroutine_awaited_inside_takes_part(store):
    manager = store.manager([0])
    root = manager.read()

    async def helper():
        await asyncio.sleep(0)
        root.append(2)

    async def main():
        with manager.transaction():
            root.append(1)
            await helper()
            assert in_thread(lambda: list(root)) == [0]

    asyncio.run(main())
    assert root == [0, 1, 2] == stored(store)


def test_to_thread_copies_the_context_but_is_another_thread(store):
    manager = store.manager([0])
    root = manager.read()

    async def main():
        with pytest.raises(tosc.TransactionError):
            with manager.transaction():
                root.append(1)
                assert await asyncio.to_thread(list, root) == [0]
                await asyncio.to_thread(root.append, 2)
                assert root == [0, 1]

    asyncio.run(main())
    assert root == [0, 2] == stored(store)


def test_a_copied_context_run_in_another_thread_does_not_take_part(store):
    manager = store.manager([0])
    root = manager.read()
    with manager.transaction():
        root.append(1)
        context = contextvars.copy_context()
        assert in_thread(context.run, list, root) == [0]
    assert root == [0, 1]
    assert in_thread(context.run, list, root) == [0, 1], 'the transaction it knew is over'
    in_thread(context.run, root.append, 2)
    context.run(root.append, 3)
    assert root == [0, 1, 2, 3] == stored(store)


def test_a_copied_context_run_in_the_same_thread_takes_part(store):
    manager = store.manager([0])
    root = manager.read()
    with manager.transaction():
        root.append(1)
        assert contextvars.copy_context().run(list, root) == [0, 1]


def test_a_context_that_outlives_the_transaction(store):
    manager = store.manager([0])
    root = manager.read()
    with contextlib.suppress(Oops):
        with manager.transaction():
            root.append(1)
            context = contextvars.copy_context()
            raise Oops
    assert context.run(list, root) == [0]
    context.run(root.append, 2)
    with manager.transaction():
        context.run(root.append, 3)
    assert sorted(root) == [0, 2, 3] == sorted(stored(store))


def test_many_tasks_increment_through_transactional(store):
    manager = store.manager({'n': 0})
    data = manager.read()

    @tosc.transactional(manager)
    def increment():
        data['n'] += 1

    async def work():
        for _ in range(10):
            increment()
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*[work() for _ in range(20)])

    asyncio.run(main())
    assert data['n'] == 200 == stored(store)['n']


def test_many_tasks_with_open_transactions_at_the_same_time(store):
    manager = store.manager({})
    data = manager.read()
    outcomes = []

    async def work(me, gate):
        try:
            with manager.transaction():
                data[me] = [me]
                await gate.wait()
                data[me].append('end')
                assert data == {me: [me, 'end']}
            outcomes.append(me)
        except tosc.TransactionError:
            pass

    async def main():
        gate = asyncio.Event()
        tasks = [asyncio.create_task(work(me, gate)) for me in range(20)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert len(outcomes) == 1, 'all started from one state, so one can commit'
    assert data == {outcomes[0]: [outcomes[0], 'end']} == stored(store)


def test_a_cancelled_task_rolls_back(store):
    manager = store.manager([0])
    root = manager.read()

    async def work(entered):
        with manager.transaction():
            root.append(1)
            entered.set()
            await asyncio.sleep(3600)

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(work(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert root == [0]
        root.append(2)

    asyncio.run(main())
    assert root == [0, 2] == stored(store)


def test_a_transaction_open_in_an_abandoned_task_does_not_stay_in_the_way(store):
    manager = store.manager([0])
    root = manager.read()

    async def work():
        with manager.transaction():
            root.append(1)
            await asyncio.get_running_loop().create_future()

    async def main():
        asyncio.create_task(work())
        await asyncio.sleep(0)

    asyncio.run(main())
    root.append(2)
    assert root == [0, 2] == stored(store)


def test_generators_interleaved_in_one_thread(store):
    """Two blocks of one Manager in one thread nest, whoever opened them."""
    manager = store.manager([0])
    root = manager.read()
    with manager.transaction():
        root.append(1)
        seen = []

        def generator():
            for value in root:
                seen.append(value)
                yield value

        assert list(generator()) == [0, 1] == seen
    assert stored(store) == [0, 1]


# ---- the watcher ----

def test_two_managers_see_each_others_changes_without_being_asked(store):
    one, two = store.pair({'from one': 0, 'from two': 0})
    mine, theirs = one.read(), two.read()
    for n in range(1, 20):
        mine['from one'] = n
        wait_until(lambda n=n: theirs['from one'] == n, what='news for the second')
        theirs['from two'] = n
        wait_until(lambda n=n: mine['from two'] == n, what='news for the first')


def test_news_that_came_during_a_transaction_arrive_after_it(store):
    one, two = store.pair([0])
    root = one.read()
    with one.transaction():
        two.read().append(1)
        two.write([0, 1, 2])
        assert root == [0]
    wait_until(lambda: one.read() == [0, 1, 2])


def test_a_manager_that_started_on_an_empty_store_hears_of_the_first_write(store):
    one = store.manager()
    assert one.read(MISSING) is MISSING
    two = store.manager([1])
    wait_until(lambda: one.read(MISSING) is not MISSING, what='the first value')
    assert one.read() == [1]
    del two


# ---- all at once ----

def test_a_transaction_sees_its_start_through_thousands_of_commits_and_compactions(shared_store):
    manager = shared_store.manager({'n': 0, 'list': list(range(50)), 'deep': {'er': [0]}})
    with tosc.Manager(shared_store.backend(durable=False)
                      if shared_store.is_file else shared_store.backend()) as other:
        data = other.read()
        with manager.transaction():
            view = manager.read()
            before = shape(view)
            for n in range(3000 if shared_store.is_file else 400):
                with other.transaction():
                    data['n'] = n
                    data['list'].append('x' * 100)
                    data['deep'] = {'er': [n]}
                    if n % 50 == 0:
                        data['list'].clear()
                if n % 300 == 0:
                    in_thread(manager.refresh)
                    assert shape(view) == before
            assert shape(view) == before
        manager.refresh()
        assert shape(view) == shape(data)


def test_everything_at_once_with_hurried_threads_and_an_eager_collector(store):
    """Threads are switched and garbage is collected as often as can be: nothing may break."""
    managers = [store.manager({'a': 0, 'b': [0], 'c': {}, 's': {0}, 't': Thing(n=0)}),
                store.manager()]
    stop = threading.Event()

    def consistent(data):
        return data['a'] == data['b'][-1] == data['t'].n and data['a'] in data['s']

    def write(manager):
        data = manager.read()

        @tosc.transactional(manager)
        def step():
            n = data['a'] + 1
            data['a'] = n
            data['b'].append(n)
            data['c'][n % 5] = {'n': [n], 'me': data['b']}
            data['s'].add(n)
            data['s'].discard(n - 3)
            data['t'].n = n
            if len(data['b']) > 10:
                del data['b'][:5]
            return n

        while not stop.is_set():
            step()

    def roll_back(manager):
        data = manager.read()
        while not stop.is_set():
            with contextlib.suppress(Oops):
                with manager.transaction():
                    data['a'] = -1
                    data['c']['loop'] = data['c']
                    data['b'][:] = [-1]
                    raise Oops

    def look(manager):
        data = manager.read()
        while not stop.is_set():
            with manager.transaction():
                assert consistent(data)
                for _ in data['b']:
                    pass
                assert all(value['me'] is data['b'] for value in data['c'].values())
            snapshot = manager.snapshot()
            assert consistent(snapshot)
            manager.refresh()

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(20, 2, 2)
    try:
        threads = [Thread(work, manager) for work in (write, roll_back, look)
                   for manager in managers]
        wait_until(lambda: managers[0].read()['a'] > 60, timeout=30, what='some commits')
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
    for thread in threads:
        thread.result()
    assert consistent(stored(store))
