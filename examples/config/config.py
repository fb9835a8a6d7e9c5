#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""A service whose configuration is changed while it runs.

    tosc-run config.py serve STORE                    in one terminal
    tosc-run config.py set STORE greeting '"Salve"'   in another: any key, any Python literal
    tosc-run config.py set STORE pause 0.2
    tosc-run config.py set STORE stop True

The service never asks for changes: its configuration is a dict that is up to date.
"""

import ast
import sys
import time

import tosc

DEFAULTS = {'greeting': 'Hello', 'pause': 1.0, 'stop': False}


def serve(manager):
    config = manager.read(None)
    if config is None:
        manager.try_write(DEFAULTS, None)  # None: only if there is still nothing
        config = manager.read()
    while not config['stop']:
        print(config['greeting'], flush=True)
        time.sleep(config['pause'])
    print('stopped')


def change(manager, key, value):
    config = manager.read(None)
    if config is None:
        sys.exit('there is no configuration yet: start the service first')

    @tosc.transactional(manager)
    def store():
        config[key] = value

    store()


def main(command, path, *arguments):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        if command == 'serve':
            serve(manager)
        else:
            key, literal = arguments
            change(manager, key, ast.literal_eval(literal))


if __name__ == '__main__':
    if (sys.argv[1:2], len(sys.argv)) not in ((['serve'], 3), (['set'], 5)):
        sys.exit(__doc__)
    main(*sys.argv[1:])
