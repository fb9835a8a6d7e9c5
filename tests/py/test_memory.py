"""Memory stays flat: objects, bytes, threads and descriptors, over many rounds of everything."""
# SPDX-License-Identifier: Apache-2.0
import collections
import contextlib
import gc
import os
import weakref

import pytest

import tosc
from harness import count_objects, run_child, wait_until


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Oops(Exception):
    pass


def value():
    inner = [1, {'k': {2}}]
    return {'a': inner, 'b': [inner, (inner, 5)], 't': Thing(x=inner), 'c': bytearray(b'x'),
            'q': collections.deque([1])}


def cyclic():
    root = {'list': []}
    root['list'].append(root)
    root['thing'] = Thing(me=root)
    return root


def _write(one, two):
    one.write(value())
    two.refresh()


def _write_cycle(one, two):
    one.write(cyclic())
    two.refresh()


def _commit(one, two):
    with one.transaction():
        data = one.read()
        data['x'] = {'n': [1, 2]}
        data['x']['n'].append(3)
    two.refresh()
    del two.read()['x']
    one.refresh()


def _roll_back(one, two):
    with contextlib.suppress(Oops):
        with one.transaction():
            one.read()['x'] = value()
            one.read()['x']['a'].append(cyclic())
            with contextlib.suppress(Oops):
                with one.transaction():
                    one.write(cyclic())
                    raise Oops
            raise Oops


def _conflict(one, two):
    with contextlib.suppress(tosc.TransactionError):
        with one.transaction():
            one.read()['mine'] = [1]
            two.refresh()['n'] = value()
    one.refresh()


def _read(one, two):
    one.read()
    one.snapshot()
    two.refresh()
    for _ in one.read():
        pass


def _cycle(one, two):
    data = one.read()
    data['cycle'] = {}
    data['cycle']['me'] = data['cycle']
    two.refresh()
    del data['cycle']
    two.refresh()


def _failing(one, two):
    with contextlib.suppress(TypeError):
        one.read()['x'] = [{'deep': lambda: None}]
    with contextlib.suppress(KeyError):
        del one.read()['no such key']
    with contextlib.suppress(tosc.Error):
        one.try_write([1], -5)


def _managers(one, two):
    with tosc.Manager(one.backend) as manager:
        manager.read()
    tosc.Manager(one.backend).read()


def _transactional(one, two):
    calls = []
    # A Manager of its own: one that has seen many conflicts takes the lock at once.
    with tosc.Manager(one.backend) as mine:

        @tosc.transactional(mine)
        def operation(argument):
            calls.append(argument)
            if len(calls) == 1:
                two.refresh()['n'] = 1
            mine.read()['m'] = [argument]
            return argument

        operation({'a': 1})
    one.refresh()


STEPS = [_write, _write_cycle, _commit, _roll_back, _conflict, _read, _cycle, _failing,
         _managers, _transactional]


@pytest.mark.parametrize('step', STEPS, ids=lambda step: step.__name__)
def test_the_number_of_objects_stays_flat(store, step):
    one, two = store.pair(value())
    for _ in range(30):
        step(one, two)
    before = count_objects()
    for _ in range(100):
        step(one, two)
    # PyBackend notes its calls in a list of strings, which the collector does not count. The
    # threads of Managers that were dropped end a little later.
    wait_until(lambda: count_objects() - before < 50, what='as few objects as before')


@pytest.mark.skipif('TOSC_SANITIZED' in os.environ,
                    reason='AddressSanitizer keeps freed memory back; the plain build tells')
@pytest.mark.parametrize('kind', ['inproc', 'file'])
@pytest.mark.parametrize('number', range(len(STEPS)))
def test_the_memory_stays_flat(tmp_path, kind, number):
    """In a process of its own, where nobody else allocates."""
    output = run_child('''
        import gc
        from harness import rss_kib
        import test_memory
        step = test_memory.STEPS[int(sys.argv[3])]
        if sys.argv[1] == 'inproc':
            backends = [tosc.InprocBackend()] * 2
        else:
            backends = [tosc.FileBackend(sys.argv[2], durable=False) for _ in range(2)]
        one, two = map(tosc.Manager, backends)
        one.write(test_memory.value())
        two.read()

        def rounds(count):
            for _ in range(count):
                step(one, two)
            gc.collect()
            return rss_kib(), sys.getallocatedblocks()

        rounds(600)  # caches of the interpreter fill up
        seen = [rounds(120) for _ in range(5)]
        print(min(after[0] - before[0] for before, after in zip(seen, seen[1:])),
              min(after[1] - before[1] for before, after in zip(seen, seen[1:])))
    ''', kind, tmp_path / 'store', number, timeout=50)
    rss, blocks = map(int, output.split())
    # One block lost in each round would be 120.
    assert rss < 600 and blocks < 60, output


def test_old_states_go_when_the_transaction_that_needed_them_ends(inproc_store):
    one, two = inproc_store.pair({'a': [0] * 1000})
    gc.collect()
    with one.transaction():
        one.read()['a'][0]
        for n in range(50):
            two.refresh()['a'][:] = [n] * 1000
            two.read()['t'] = Thing(x=[n])
    one.refresh()
    before = count_objects()
    for _ in range(5):
        with one.transaction():
            for n in range(50):
                two.refresh()['a'][:] = [n] * 1000
                two.read()['t'] = Thing(x=[n])
        one.refresh()
    assert count_objects() - before < 50


def test_wrappers_of_a_dropped_manager_go(store):
    manager = tosc.Manager(store.backend())
    manager.write(cyclic())
    reference = weakref.ref(manager.read())
    inner = weakref.ref(manager.read()['list'])
    manager_reference = weakref.ref(manager)
    del manager
    gc.collect()
    assert reference() is None and inner() is None
    assert manager_reference() is None, 'the watcher holds no strong reference'


def test_wrappers_of_a_closed_manager_go(store):
    with tosc.Manager(store.backend()) as manager:
        manager.write(cyclic())
        reference = weakref.ref(manager.read()['list'])
    del manager
    gc.collect()
    assert reference() is None


def test_detached_cycles_are_collected(store):
    manager = store.manager({'cycle': {}})
    cycle = manager.read()['cycle']
    cycle['me'] = cycle
    reference = weakref.ref(cycle)
    del manager.read()['cycle']
    assert cycle['me'] is cycle
    del cycle
    gc.collect()
    assert reference() is None


def test_a_manager_in_a_cycle_with_its_own_data_is_collected():
    class Holder:
        pass

    backend = tosc.InprocBackend()
    holder = Holder()
    holder.manager = tosc.Manager(backend)
    holder.manager.write([1])
    holder.data = holder.manager.read()
    holder.function = tosc.transactional(holder.manager)(lambda: holder.data.append(1))
    holder.transaction = holder.manager.transaction()
    holder.iterator = iter(holder.data)
    holder.function()
    reference = weakref.ref(holder)
    del holder
    gc.collect()
    assert reference() is None


def test_descriptors_and_threads_stay_flat(shared_store):
    shared_store.manager([1])

    def count():
        gc.collect()
        return len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task'))

    for _ in range(3):
        with tosc.Manager(shared_store.backend()) as manager:
            manager.read()
    before = count()
    for n in range(40):
        with tosc.Manager(shared_store.backend()) as manager:
            manager.read()
            manager.write([n])
    after = count()
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 1


def test_reading_makes_no_garbage(inproc_store):
    manager = inproc_store.manager({'d': {n: [n] for n in range(100)}})
    data = manager.read()
    assert data['d'][5][0] == 5
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(1000):
            data['d'][5][0]
            manager.read()
            len(data['d'])
            5 in data['d']
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()


def test_memory_of_many_small_dicts_is_near_that_of_plain_ones(tmp_path):
    output = run_child('''
        from harness import rss_kib
        import gc
        backend = tosc.FileBackend(sys.argv[1], durable=False)
        with tosc.Manager(backend) as manager:
            manager.write([{'name': f'user{n}', 'n': n} for n in range(50_000)])
        del manager
        gc.collect()
        before = rss_kib()
        plain = [{'name': f'user{n}', 'n': n} for n in range(50_000)]
        middle = rss_kib()
        manager = tosc.Manager(backend)
        data = manager.read()
        assert data[49_999]['n'] == 49_999
        print((rss_kib() - middle) / max(middle - before, 1))
    ''', tmp_path / 'store', timeout=50)
    assert float(output) < 6, output
