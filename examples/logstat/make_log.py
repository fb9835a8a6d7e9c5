#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the access log of a web server that does not exist, the same one every time.

    python3 make_log.py [--lines N] [--seed N] [--per-second N] [FILE]

Adds the lines to FILE, or prints them; with --per-second as slowly as that. They are in the
"combined" format of Apache and nginx without the last two columns, and with the time that
the answer took, in seconds, at the end. Some lines are damaged, as in every real log.
"""

import argparse
import datetime
import math
import random
import sys
import time

PAGES = ['/', '/news', '/search', '/login', '/logout', '/static/site.css', '/static/logo.svg',
         '/feed.xml', '/cart', '/admin']
ITEMS = [f'/items/{number}' for number in range(1, 200)]
STATUSES = [200] * 88 + [304] * 5 + [404] * 4 + [302, 403, 500]


def lines(count, seed):
    choose = random.Random(seed)
    clock = datetime.datetime(2024, 3, 1, tzinfo=datetime.timezone.utc)
    for number in range(count):
        clock += datetime.timedelta(seconds=choose.expovariate(20))
        path = choose.choice(PAGES if choose.random() < 0.7 else ITEMS)
        status = choose.choice(STATUSES)
        size = 0 if status == 304 else int(choose.lognormvariate(8, 1.5))
        seconds = choose.lognormvariate(math.log(0.02), 1.0) * (5 if path == '/search' else 1)
        line = (f'192.0.2.{choose.randrange(1, 255)} - - [{clock:%d/%b/%Y:%H:%M:%S %z}] '
                f'"GET {path} HTTP/1.1" {status} {size or "-"} {seconds:.6f}')
        yield line[:choose.randrange(len(line))] if number % 997 == 996 else line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lines', type=int, default=10000, metavar='N')
    parser.add_argument('--seed', type=int, default=1, metavar='N')
    parser.add_argument('--per-second', type=float, metavar='N')
    parser.add_argument('file', nargs='?', metavar='FILE')
    args = parser.parse_args()
    with open(args.file or sys.stdout.fileno(), 'a', encoding='ascii',
              closefd=bool(args.file)) as out:
        for line in lines(args.lines, args.seed):
            out.write(line + '\n')
            if args.per_second:
                out.flush()
                time.sleep(1 / args.per_second)


if __name__ == '__main__':
    main()
