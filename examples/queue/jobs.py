#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""A queue of shell commands that any number of workers work off.

    tosc-run jobs.py STORE put 'sleep 1; date'     adds a job
    tosc-run jobs.py STORE work                    does jobs until there are no more
    tosc-run jobs.py STORE list                    shows all of them

A job whose worker was killed is done by the next one that looks.
"""

import os
import subprocess
import sys

import tosc


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(path, command, *arguments):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        manager.try_write([], None)  # None: only if there is nothing yet
        jobs = manager.read()

        @tosc.transactional(manager)
        def put(shell):
            jobs.append({'shell': shell, 'worker': None, 'status': None})

        @tosc.transactional(manager)
        def take():
            for job in jobs:
                if job['status'] is None and not (job['worker'] and alive(job['worker'])):
                    job['worker'] = os.getpid()
                    return job
            return None

        if command == 'put':
            put(*arguments)
        elif command == 'work':
            while job := take():
                status = subprocess.call(job['shell'], shell=True)
                tosc.transactional(manager)(job.update)(status=status)
        elif command == 'list':
            for job in manager.snapshot():
                print(job['status'], job['worker'], job['shell'], sep='\t')


if __name__ == '__main__':
    if [len(sys.argv), *sys.argv[2:3]] not in ([4, 'put'], [3, 'work'], [3, 'list']):
        sys.exit(__doc__)
    main(*sys.argv[1:])
