# SPDX-License-Identifier: Apache-2.0
"""The policy of ratelimitd: how much each client may do.

The daemon calls configure(settings) at the start, and whenever the settings in the store have
changed; and limits(client) for each request. It loads this file again when it has changed, or
on SIGHUP; if that fails, the policy that was loaded before stays in force.
"""

import fnmatch

import daemon       # the program that runs this
import tosc

rate, burst, special = 10, 20, {}


def configure(settings):
    """Take over the settings; if they are not valid, raise and leave all as it is."""
    global rate, burst, special
    wanted = [positive(settings['rate']), positive(settings['burst'])]
    clients = {pattern: (positive(r), positive(b))
               for pattern, (r, b) in settings['clients'].items()}
    (rate, burst), special = wanted, clients
    version = tosc.shared('ratelimit').version
    daemon.log(f'{rate}/s, {burst} at once, {len(special)} exceptions (version {version})')


def positive(number):
    if not number > 0:
        raise ValueError(f'{number} is no rate or burst')
    return number


def limits(client):
    """(requests a second, requests at once)"""
    for pattern, allowed in special.items():
        if fnmatch.fnmatchcase(client, pattern):
            return allowed
    return rate, burst
