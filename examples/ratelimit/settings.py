#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""Shows or changes the settings that all ratelimitd of one store follow.

    tosc-run settings.py URI                          shows them
    tosc-run settings.py URI rate=5 burst=50          for everybody
    tosc-run settings.py URI 'crawler-*=0.5,3'        for clients of that name: rate, burst
    tosc-run settings.py URI 'crawler-*='             no longer

URI is that of the daemons' store, such as file:/dev/shm/limits. The daemons follow at once;
one whose policy does not accept the settings keeps those that it has, and says so in its log.
"""

import sys

import tosc


def main(uri, *changes):
    with tosc.Manager(tosc.open_backend(uri)) as manager:
        settings = manager.read()['settings']

        @tosc.transactional(manager)
        def change():
            for name, _, value in (text.partition('=') for text in changes):
                if name in ('rate', 'burst'):
                    settings[name] = float(value) if name == 'rate' else int(value)
                elif value:
                    rate, burst = value.split(',')
                    settings['clients'][name] = [float(rate), int(burst)]
                else:
                    settings['clients'].pop(name, None)

        try:
            change()
        except ValueError as error:
            sys.exit(f'{error}; nothing was changed')
        for name in ('rate', 'burst'):
            print(f'{name}={settings[name]}')
        for name, (rate, burst) in settings['clients'].items():
            print(f'{name}={rate},{burst}')


if __name__ == '__main__':
    if len(sys.argv) < 2 or not all('=' in text for text in sys.argv[2:]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
