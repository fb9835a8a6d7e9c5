"""A million operations, and memory stays where it was."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from harness import run_child


@pytest.mark.seconds(170)
@pytest.mark.parametrize('kind', ['inproc', 'file'])
def test_a_million_operations(tmp_path, kind):
    output = run_child('''
        import gc
        from harness import rss_kib
        if sys.argv[1] == 'inproc':
            backend = tosc.InprocBackend()
        else:
            backend = tosc.FileBackend(sys.argv[2], durable=False)
        manager = tosc.Manager(backend)
        follower = tosc.Manager(backend)
        manager.write({'d': {}, 'l': [], 's': set(), 'b': bytearray()})
        data = manager.read()
        follower.read()

        def rounds(count):
            done = 0
            while done < count:
                with manager.transaction():
                    for n in range(20):
                        data['d'][n] = {'n': done}
                        data['l'].append([n])
                        data['s'].add(n)
                        data['b'].append(n)
                        data['d'][n]['more'] = data['l'][-1]
                        done += 5
                    data['l'].clear()
                    data['s'].clear()
                    data['b'].clear()
                data['x'] = done
                len(data['d'][3])
                done += 3
            follower.refresh()
            gc.collect()
            return rss_kib(), len(gc.get_objects())

        rounds(100_000)
        before, objects = rounds(100_000)
        after, more = rounds(800_000)
        print(after - before, more - objects)
    ''', kind, tmp_path / 'store', timeout=150)
    grown, objects = map(int, output.split())
    assert grown < 6000 and objects < 200, output
