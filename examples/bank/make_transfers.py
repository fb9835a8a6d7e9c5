#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes accounts.csv and transfers.csv: the same bytes each time.

    python3 make_transfers.py [DIRECTORY]

Everybody starts with a few hundred and likes to pay a little more than there is, so that some
of the transfers must be refused.
"""

import random
import sys
from pathlib import Path

ACCOUNTS = 60
TRANSFERS = 5000
NAMES = ('Ada Alan Barbara Claude Dennis Donald Edsger Frances Grace John Ken Leslie Margaret '
         'Niklaus Radia Robin Sophie Tony Whitfield Yukihiro').split()
REASONS = 'rent tea books music repairs bicycle garden lunch tickets shoes'.split()


def cents(number):
    return f'{number // 100}.{number % 100:02d}'


def main(directory):
    # Only random(), whose sequence Python promises to keep.
    rng = random.Random('libtosc')

    def pick(items):
        return items[int(rng.random() * len(items))]

    numbers = [1001 + 7 * i for i in range(ACCOUNTS)]
    with open(directory / 'accounts.csv', 'w', encoding='ascii', newline='\n') as out:
        out.write('account,owner,balance\n')
        for i, number in enumerate(numbers):
            owner = NAMES[i % len(NAMES)] + ' ' + 'ABC'[i // len(NAMES)] + '.'
            out.write(f'{number},{owner},{cents(20000 + int(rng.random() * 60000))}\n')
    with open(directory / 'transfers.csv', 'w', encoding='ascii', newline='\n') as out:
        out.write('number,from,to,amount,reason\n')
        for number in range(TRANSFERS):
            source = pick(numbers)
            target = pick([other for other in numbers if other != source])
            # Mostly small sums; the square keeps the large ones rare.
            amount = 1 + int(rng.random() ** 2 * 50000)
            out.write(f'{number},{source},{target},{cents(amount)},{pick(REASONS)}\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
