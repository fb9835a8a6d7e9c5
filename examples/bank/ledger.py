# SPDX-License-Identifier: Apache-2.0
"""A bank's books: plain Python that knows nothing of processes, files or transactions."""

import csv
import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple


class Refused(Exception):
    """The books do not allow it."""


class Transfer(NamedTuple):
    number: int
    source: str
    target: str
    amount: Decimal


@dataclass
class Account:
    owner: str
    balance: Decimal


class Entry(NamedTuple):
    """One line of the audit trail."""

    number: int   # of the transfer
    outcome: str  # 'applied' or why it was refused
    clerk: int    # process that did it
    seal: int     # see seal()
    retries: int  # conflicts that it met


@dataclass
class Bank:
    source: str                                   # digest of the file that is being worked on
    accounts: dict = field(default_factory=dict)  # account number -> Account
    next: int = 0                                 # the first transfer that nobody has begun
    in_hand: dict = field(default_factory=dict)   # desk -> transfer that is being worked on
    audit: list = field(default_factory=list)     # an Entry for each transfer that is done

    def move(self, transfer):
        """Moves the money and looks whether that was right afterwards: the caller takes
        everything back if it was not."""
        for number in (transfer.source, transfer.target):
            if number not in self.accounts:
                raise Refused(f'no account {number}')
        source = self.accounts[transfer.source]
        source.balance -= transfer.amount
        self.accounts[transfer.target].balance += transfer.amount
        if source.balance < 0:
            raise Refused('no cover')

    def total(self):
        return sum(account.balance for account in self.accounts.values())


def seal(transfer, effort):
    """The smallest number that makes the transfer's digest begin with `effort` zero bits.

    Slow to find and quick to check, it stands for what takes time in a real bank.
    """
    text = repr(transfer)
    nonce = 0
    while not is_sealed(text, nonce, effort):
        nonce += 1
    return nonce


def is_sealed(text, nonce, effort):
    digest = hashlib.sha256(f'{text} {nonce}'.encode()).digest()
    return int.from_bytes(digest[:4], 'big') >> (32 - effort) == 0


def read_accounts(path):
    with open(path, encoding='utf-8', newline='') as lines:
        return {row['account']: Account(row['owner'], Decimal(row['balance']))
                for row in csv.DictReader(lines)}


def read_transfers(path):
    with open(path, encoding='utf-8', newline='') as lines:
        transfers = [Transfer(int(row['number']), row['from'], row['to'], Decimal(row['amount']))
                     for row in csv.DictReader(lines)]
    if not transfers:
        raise ValueError(f'{path} has no transfers')
    for place, transfer in enumerate(transfers):
        if transfer.number != place or transfer.amount <= 0:
            raise ValueError(f'{path}, transfer {place}: numbers must count from 0, amounts be > 0')
    return transfers
