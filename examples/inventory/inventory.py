#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""Objects of one's own classes in a store: they keep their methods, properties and identity.

    tosc-run inventory.py STORE
"""

import datetime
import enum
import sys
from dataclasses import dataclass, field
from decimal import Decimal

import tosc


class State(enum.Enum):
    ORDERED = 'ordered'
    IN_STOCK = 'in stock'


@dataclass
class Item:
    name: str
    price: Decimal
    count: int = 0
    state: State = State.ORDERED
    history: list = field(default_factory=list)

    @property
    def value(self):
        return self.price * self.count

    def receive(self, count):
        self.count += count
        self.state = State.IN_STOCK
        self.history.append((datetime.date(2024, 5, 17), count))


def main(path):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        bolts = Item('bolts', Decimal('0.12'))
        manager.write({'items': [bolts], 'favourite': bolts})  # one object in two places

    with tosc.Manager(tosc.FileBackend(path)) as manager:  # any other process, say
        stock = manager.read()
        item = stock['items'][0]
        with manager.transaction():
            item.receive(500)
            item.price = Decimal('0.11')
        print(isinstance(item, Item), item is stock['favourite'], item.state.value, item.value)
        print(manager.snapshot()['favourite'])


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
