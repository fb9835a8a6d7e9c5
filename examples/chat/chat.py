#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""A chat between terminals: each runs `tosc-run chat.py STORE NAME`.

What is typed is appended to a shared list; a thread shows what the others have appended.
End with Ctrl-D.
"""

import sys
import threading

import tosc

LAST = 100  # lines that are kept


def show(manager, backend, name, seen):
    """Prints what others say, as it comes."""
    chat = manager.read()
    while True:
        with manager.transaction():  # count and lines fit each other
            new = chat['count'] - seen
            lines = chat['lines'][-new:] if new else []
            seen = chat['count']
        for who, text in lines:
            if who != name:
                print(f'{who}: {text}', flush=True)
        backend.target_wait()
        manager.refresh()


def main(path, name):
    backend = tosc.FileBackend(path)
    with tosc.Manager(backend) as manager:
        manager.try_write({'count': 0, 'lines': []}, None)  # None: only if nothing is there
        chat = manager.read()

        @tosc.transactional(manager)
        def say(text):
            chat['lines'].append((name, text))
            chat['count'] += 1
            del chat['lines'][:-LAST]

        # From here on nothing is missed, whenever the thread gets to run.
        arguments = manager, backend, name, chat['count']
        threading.Thread(target=show, args=arguments, daemon=True).start()
        say('(is here)')
        for line in sys.stdin:
            say(line.rstrip('\n'))
        say('(has left)')


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
