"""Damaging records: whatever a store holds, reading it ends in an error or in a state.

Run as a script: fuzz.py SEED ROUNDS.
"""
# SPDX-License-Identifier: Apache-2.0
import collections
import datetime
import decimal
import os
import random
import sys

import tosc


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Key:
    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name


for _cls in (Thing, Key):
    _cls.__module__ = 'fuzz'
sys.modules.setdefault('fuzz', sys.modules[__name__])


def samples(key=None):
    """Valid stores: lists of records, each with all that a record can hold."""
    found = []
    for kind in range(3):
        backend = tosc.InprocBackend()
        with tosc.Manager(backend, key=key) as manager:
            if kind == 0:
                manager.write({'a': [1, 2.5, 'x' * 300, None, True], 'b': {'k': (1, ('y', []))}})
            elif kind == 1:
                one = Thing(me=None, d={Key('a'): 1}, s={1, (2, 3), 'z'})
                one.me = one
                manager.write([one, bytearray(b'abc'), collections.deque([[1], 2]), 2 ** 90,
                               decimal.Decimal('1.5'), datetime.date(2020, 1, 1), b'bytes'])
            else:
                manager.write({'l': list(range(20)), 's': {1, 2}, 'd': {}, 'b': bytearray(9)})
            root = manager.read()
            if kind == 0:
                root['c'] = {'new': []}
                with manager.transaction():
                    root['a'][1:3] = [[], {}]
                    root['a'].append('x')
                    root['b'].clear()
                    root['cycle'] = {}
                    root['cycle']['x'] = root['cycle']
                del root['cycle']
            elif kind == 1:
                root[0].x = {'q': root}
                root[2].append({})
                root[1] += b'def'
                del root[0].d
            else:
                root['l'][3] = 'y'
                root['s'].add(7)
                root['s'].discard(1)
                root['d'].update(a=1, b=[])
                del root['d']['a']
                root['b'][2:5] = b'123456'
            found.append(bytes(backend.read()[1]))
    return found


def records(data):
    found, at = [], 0
    while at < len(data):
        size = 32 + int.from_bytes(data[at + 8:at + 16], 'little')
        found.append(data[at:at + size])
        at += size
    return found


def resize(record):
    return record[:8] + (len(record) - 32).to_bytes(8, 'little') + record[16:]


def mutate(r, corpus):
    parts = records(r.choice(corpus))
    for _ in range(r.randrange(1, 4)):
        number = r.randrange(len(parts))
        part = bytearray(parts[number] or b'?')
        choice = r.randrange(9)
        at = r.randrange(len(part))
        if choice < 3:
            part[at] ^= 1 << r.randrange(8)
        elif choice == 3:
            part[at] = r.choice(b'\x00\x01\x7f\x80\xff.(eutQ]}\x8f\x90\x94\x85hK')
        elif choice == 4:
            del part[at:at + r.randrange(1, 9)]
        elif choice == 5:
            part[at:at] = part[at:at + r.randrange(1, 30)]
        elif choice == 6:
            other = r.choice(records(r.choice(corpus)))
            start = r.randrange(len(other))
            part[at:at + r.randrange(20)] = other[start:start + r.randrange(1, 40)]
        elif choice == 7:
            parts.insert(number, bytes(part))
        else:
            del part[at:]
        parts[number] = resize(bytes(part)) if r.random() < .9 and len(part) > 32 else bytes(part)
        if r.random() < .1:
            r.shuffle(parts)
    return b''.join(parts)


def use(manager):
    """Goes through the state, and changes it."""
    snapshot = manager.snapshot()
    with manager.transaction():
        seen, todo = set(), [manager.read()]
        for item in todo[:50]:
            if id(item) in seen:
                continue
            seen.add(id(item))
            if isinstance(item, tosc.DDict):
                todo.extend(item.values())
                item['fuzz'] = [1]
            elif isinstance(item, tosc.DList):
                todo.extend(item)
                item.append({})
                del item[:1]
            elif isinstance(item, tosc.DSet):
                item.add('fuzz')
            else:
                repr(item)
    with tosc.Manager(manager.backend) as other:
        other.read()
    return snapshot


def attempt(data, with_use=True):
    """True: it was a state; False: it was refused as it should be."""
    backend = tosc.InprocBackend()
    backend.write(data)
    manager = tosc.Manager(backend)
    try:
        manager.read()
    except (tosc.DataError, tosc.SerializationError, tosc.EmptyStoreError):
        return False
    finally:
        if not with_use:
            manager.close()
    try:
        use(manager)
    except (MemoryError, SystemError):
        raise
    except Exception:  # a state of damaged values may well refuse to be used
        pass
    manager.close()
    return True


def follow(r, corpus):
    """Damage that comes while a Manager is reading along."""
    parts = records(r.choice(corpus))
    backend = tosc.InprocBackend()
    backend.write(parts[0])
    with tosc.Manager(backend) as manager:
        manager.read()
        backend.write(mutate(r, corpus))
        try:
            manager.refresh()
        except (tosc.DataError, tosc.SerializationError, tosc.EmptyStoreError):
            pass
        backend.write(b''.join(parts))
        manager.refresh()
        manager.snapshot()


def main(seed, rounds):
    r = random.Random(seed)
    corpus = samples()
    states = 0
    for number in range(rounds):
        data = mutate(r, corpus)
        with open(os.environ.get('FUZZ_FILE', os.devnull), 'wb') as file:
            file.write(data)
        states += attempt(data)
        if number % 10 == 0:
            follow(r, corpus)
    print(f'{rounds} mutations: {states} were states, the others refused')


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]))
