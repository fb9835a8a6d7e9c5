#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""A bank whose clerks are processes that share one file.

Each clerk takes a transfer from the file's work queue, seals it (the slow part) and books it.
Now and then a clerk is killed in the middle of this; another one takes over the desk and what
is in hand there. In the end the books are checked against the input in every way.

    tosc-run bank.py [--transfers FILE] [--processes N] [--store PATH] ...

The rules of the bank are in ledger.py, which is plain Python; all that has to do with
sharing is here.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tosc
from ledger import Bank, Entry, Refused, is_sealed, read_accounts, read_transfers, seal

HERE = Path(__file__).parent
PATIENCE = 60  # seconds without any progress


# ---- a clerk: one process ----

def clerk(options, desk):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the head office
    transfers = read_transfers(options.transfers)
    with tosc.Manager(tosc.FileBackend(options.store)) as manager:
        bank = manager.read()
        tries = 0

        @tosc.transactional(manager)
        def take():
            """The transfer in hand at this desk, maybe from a clerk who was killed; or None."""
            nonlocal tries
            tries += 1  # a local variable: not taken back when there is a conflict
            if desk not in bank.in_hand:
                if bank.next == len(transfers):
                    return None
                bank.in_hand[desk] = bank.next
                bank.next += 1
            return bank.in_hand[desk]

        @tosc.transactional(manager)
        def book(transfer, nonce):
            """Moves the money, notes it, and clears the desk: all of it or nothing."""
            nonlocal tries
            tries += 1
            if bank.in_hand.get(desk) != transfer.number:
                return  # a clerk who was killed had come just to the end of it
            try:
                with manager.transaction():  # an inner block: what is refused is taken back
                    bank.move(transfer)
                outcome = 'applied'
            except Refused as reason:
                outcome = str(reason)
            bank.audit.append(Entry(transfer.number, outcome, os.getpid(), nonce, tries - 2))
            del bank.in_hand[desk]

        while (number := take()) is not None:
            transfer = transfers[number]
            book(transfer, seal(transfer, options.effort))
            tries = 0


# ---- the head office: starts, watches and kills clerks ----

class Office:
    def __init__(self, options, manager):
        self.options = options
        self.manager = manager
        self.bank = manager.read()
        self.spawn = multiprocessing.get_context('spawn')
        self.clerks = {}  # desk -> process
        self.killed = 0
        self.interrupted = 0  # of those, how many had a transfer in hand
        self.files = set()    # the store is replaced by a new file when it is compacted

    def hire(self, desk):
        process = self.spawn.Process(target=clerk, args=(self.options, desk), daemon=True)
        process.start()
        self.clerks[desk] = process

    def look(self):
        """What our Manager sees now. Nothing is asked for: changes come by themselves. The
        transaction makes that these figures fit each other."""
        with self.manager.transaction():
            return len(self.bank.audit), dict(self.bank.in_hand)

    def kill(self, desk):
        process = self.clerks[desk]
        process.kill()
        process.join()
        self.manager.refresh()  # asks the store
        _, in_hand = self.look()
        self.killed += 1
        self.interrupted += desk in in_hand
        what = f'with transfer {in_hand[desk]} in hand' if desk in in_hand else 'between two'
        say(f'SIGKILL for clerk {process.pid} at desk {desk}, {what}; a new one takes over')
        self.hire(desk)

    def run(self, total):
        """Until everything is done."""
        first, _ = self.look()
        kills = [first + (total - first) * i // (self.options.kills + 1)
                 for i in range(1, self.options.kills + 1)]
        for desk in range(self.options.processes):
            self.hire(desk)
        shown = moved = time.monotonic()
        last = first
        while any(process.exitcode is None for process in self.clerks.values()):
            time.sleep(0.05)
            now = time.monotonic()
            done, in_hand = self.look()
            self.files.add(os.stat(self.options.store).st_ino)
            moved = now if done != last else moved
            last = done
            if kills and done >= kills[0] and done < total:
                kills.pop(0)
                self.kill(self.killed % self.options.processes)
            if now - shown > 1:
                shown = now
                say(f'{done:5} of {total} done; at the desks: '
                    + ' '.join(str(in_hand.get(desk, '-')) for desk in self.clerks))
            if now - moved > PATIENCE:
                sys.exit(f'nothing has happened for {PATIENCE} s')
            for process in self.clerks.values():
                if process.exitcode:
                    sys.exit(f'clerk {process.pid} ended with {process.exitcode}')


# ---- checking the books ----

def replay(accounts, transfers, audit):
    """The same transfers once more in the order of the audit trail, with a dict and no tosc:
    the balances that there should be, and the numbers of those that were decided otherwise."""
    balances = {number: account.balance for number, account in accounts.items()}
    wrong = []
    for entry in audit:
        _, source, target, amount = transfers[entry.number]
        applied = source in balances and target in balances and balances[source] >= amount
        if applied:
            balances[source] -= amount
            balances[target] += amount
        if applied != (entry.outcome == 'applied'):
            wrong.append(entry.number)
    return balances, wrong


def faults(bank, accounts, transfers, effort):
    """Yields a sentence about each thing that is wrong with the books."""
    times = Counter(entry.number for entry in bank.audit)
    lost = [transfer.number for transfer in transfers if times[transfer.number] == 0]
    twice = [number for number in times if times[number] > 1]
    if lost or twice or len(times) != len(transfers):
        yield f'transfers without an entry: {lost}; with more than one: {twice}'
        return
    if bank.in_hand or bank.next != len(transfers):
        yield f'the queue is not empty: next is {bank.next}, in hand {bank.in_hand}'
    opened = sum(account.balance for account in accounts.values())
    if bank.total() != opened:
        yield f'there is {bank.total()} in the bank, and it should be {opened}'
    balances, wrong = replay(accounts, transfers, bank.audit)
    if wrong:
        yield f'transfers that were decided wrongly: {wrong}'
    for number, account in bank.accounts.items():
        if account.balance != balances[number] or account.balance < 0:
            yield f'account {number} has {account.balance}, and it should be {balances[number]}'
    broken = [entry.number for entry in bank.audit
              if not is_sealed(repr(transfers[entry.number]), entry.seal, effort)]
    if broken:
        yield f'transfers with a wrong seal: {broken}'


# ---- the program ----

def parse():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('--transfers', metavar='FILE', default=HERE / 'transfers.csv', help='what is to be done')
    add('--accounts', metavar='FILE', default=HERE / 'accounts.csv', help='where it begins')
    add('--processes', metavar='N', type=int, default=4, help='how many clerks (4)')
    add('--kills', metavar='N', type=int, default=6, help='how many are killed (6)')
    add('--effort', metavar='BITS', type=int, default=12, help='how hard seals are to make (12)')
    add('--store', metavar='PATH', help='the shared file; one that is there is gone on with, and '
        'it is kept (otherwise a temporary one)')
    options = parser.parse_args()
    if options.processes < 1 or options.kills < 0 or not 0 <= options.effort <= 30:
        parser.error('--processes must be at least 1, --kills at least 0, --effort 0 to 30')
    return options


START = time.monotonic()


def say(text):
    print(f'[{time.monotonic() - START:5.1f} s] {text}', flush=True)


def work(options):
    try:
        accounts = read_accounts(options.accounts)
        transfers = read_transfers(options.transfers)
        digest = hashlib.sha256(Path(options.transfers).read_bytes()).hexdigest()
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        sys.exit(f'cannot use the input: {type(error).__name__}: {error}')
    with tosc.Manager(tosc.FileBackend(options.store)) as manager:
        if manager.read(None) is None:
            manager.write(Bank(digest, accounts))
        office = Office(options, manager)
        if office.bank.source != digest:
            sys.exit(f'{options.store} was begun with another file of transfers')
        say(f'{len(transfers)} transfers between {len(accounts)} accounts, '
            f'{options.processes} clerks, store {options.store}')
        version, start = manager.version, time.monotonic()
        office.run(len(transfers))
        seconds = time.monotonic() - start
        commits = manager.version - version
        bank = manager.snapshot()  # plain Python again

    found = list(faults(bank, accounts, transfers, options.effort))
    for fault in found:
        say(f'WRONG: {fault}')
    if found:
        return 1
    outcomes = Counter(entry.outcome for entry in bank.audit)
    applied = outcomes.pop('applied', 0)
    refused = ', '.join(f'{count} {reason}' for reason, count in outcomes.items()) or 'none'
    say(f'{applied} transfers applied, refused: {refused}; each exactly once')
    say(f'the books balance: {bank.total()} before and after, every account as replayed')
    say(f'{commits} commits in {seconds:.1f} s, {commits / seconds:.0f} a second; '
        f'{sum(entry.retries for entry in bank.audit)} conflicts, all retried')
    say(f'{office.killed} clerks killed, {office.interrupted} of them with a transfer in hand')
    say(f'the store has {os.stat(options.store).st_size / 1024:.0f} KiB, and was compacted at '
        f'least {len(office.files) - 1} times')
    return 0


def main():
    options = parse()
    if options.store:
        return work(options)
    with tempfile.TemporaryDirectory(prefix='tosc-bank-') as directory:
        options.store = os.path.join(directory, 'bank.tosc')
        return work(options)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('interrupted; with --store the next run goes on from here')
