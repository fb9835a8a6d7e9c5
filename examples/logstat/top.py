#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""Shows what logstat publishes, live.

    tosc-run top.py [--once] [--every SECONDS] STORE-URI

In a terminal the screen is drawn anew after each change; else, and with --once, the new
picture is printed below the one before.
"""

import argparse
import signal
import sys
import time

import tosc


def percent(part, whole):
    return f'{100 * part / whole:5.1f} %' if whole else '    - '


def milliseconds(us):
    return '-' if us is None else f'{us / 1000:.1f} ms'


def picture(data, rate):
    """The lines to show. One state of the store, however many reads: see main()."""
    lines, paths = data['lines'], data['paths']
    yield (f'{data["log"]}: {lines} lines{rate}, {data["malformed"]} not understood, '
           f'{data["bytes"] / 1e6:.1f} MB sent')
    times = data['percentiles_us']
    yield 'time to answer: ' + ', '.join(
        f'{name} % within {milliseconds(times.get(str(name)))}' for name in (50, 90, 99))
    yield 'statuses: ' + ', '.join(
        f'{status} {count}' for status, count in sorted(data['statuses'].items()))
    for path, count in sorted(paths.items(), key=lambda entry: (-entry[1], entry[0]))[:10]:
        yield f'{count:9} {percent(count, lines)}  {path}'
    yield 'last:'
    for line in data['last']:
        yield f'  {line[:100]}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--once', action='store_true', help='print it and end')
    parser.add_argument('--every', type=float, default=1.0, metavar='SECONDS')
    parser.add_argument('uri', metavar='STORE-URI')
    args = parser.parse_args()
    live = sys.stdout.isatty() and not args.once
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with tosc.Manager(tosc.open_backend(args.uri)) as manager:
        version, before, since = None, None, None
        while True:
            data = manager.read(None)
            with manager.transaction():
                if data is not None and manager.version != version:
                    now = time.monotonic()
                    rate = '' if before is None else (
                        f' ({(data["lines"] - before) / (now - since):.0f}/s)')
                    version, before, since = manager.version, data['lines'], now
                    print('\x1b[H\x1b[2J' if live else '', end='')
                    print(*picture(data, rate), '', sep='\n', flush=True)
            if args.once:
                return None if data is not None else f'nothing is stored in {args.uri} yet'
            time.sleep(args.every)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        pass
