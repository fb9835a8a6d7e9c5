# SPDX-License-Identifier: Apache-2.0
"""Taking turns, and figures: what the works in bench.py have in common.

A work is measured by contenders that take turns over several rounds, so that other load on the
machine hits all of them. The first one is the floor; every figure is also given as a multiple
of the floor's median.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Setting:
    """Where and how long to measure."""

    def __init__(self, shm, disk, quick, rounds):
        self.shm = Path(tempfile.mkdtemp(prefix='tosc-bench-', dir=shm))
        self.disk = Path(tempfile.mkdtemp(prefix='tosc-bench-', dir=disk))
        self.quick = quick
        self.rounds = rounds or (3 if quick else 7)
        self.floor = self.shm / 'floor'
        subprocess.run([os.environ.get('CC', 'cc'), '-std=gnu11', '-D_GNU_SOURCE', '-O2',
                        str(HERE / 'floor.c'), '-o', str(self.floor)], check=True)
        self.names = 0

    def amount(self, full, quick):
        return quick if self.quick else full

    def path(self, kind='shm'):
        """A new name on a tmpfs, or on the disk."""
        self.names += 1
        return str((self.shm if kind == 'shm' else self.disk) / f'{self.names}')

    def clear(self):
        for directory in (self.shm, self.disk):
            for entry in directory.iterdir():
                if entry != self.floor:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def remove(self):
        shutil.rmtree(self.shm)
        shutil.rmtree(self.disk)

    def floor_numbers(self, *args):
        out = subprocess.run([self.floor, *map(str, args)], check=True, capture_output=True)
        return [int(line) for line in out.stdout.split()]


# ---- samples: functions without arguments that return a list of nanoseconds ----

def statement(text, number, repeat=10, **names):
    """What one execution of a short statement takes; each sample is a mean of `number`."""
    unroll = 10
    timer = timeit.Timer('\n'.join([text] * unroll), globals=names)

    def sample():
        return [seconds * 1e9 / (number * unroll)
                for seconds in timer.repeat(repeat, number)]
    return sample


def calls(function, count, prepare=None):
    """What each call function(i) takes."""
    state = [0]

    def sample():
        clock, taken = time.perf_counter_ns, []
        for i in range(state[0], state[0] + count):
            if prepare is not None:
                prepare(i)
            start = clock()
            function(i)
            taken.append(clock() - start)
        state[0] += count
        return taken
    return sample


def child(*args):
    """Runs processes.py with the arguments; the JSON that it prints."""
    out = subprocess.run([sys.executable, HERE / 'processes.py', *map(str, args)], check=True,
                         stdout=subprocess.PIPE)
    return json.loads(out.stdout)


# ---- figures ----

def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def take_turns(contenders, rounds):
    """{label: samples}. One more round before the first warms everything up."""
    samples = {label: [] for label, _ in contenders}
    for turn in range(-1, rounds):
        for label, sample in contenders:
            taken = sample()
            if turn >= 0:
                samples[label] += taken
    return samples


def row(work, label, samples, floor, larger_is_better=False, **more):
    middle = quantile(samples, 0.5)
    ratio = None if not floor else middle / floor
    return {'work': work, 'what': label, 'median': middle, 'p99': quantile(samples, 0.99),
            'max': max(samples), 'min': min(samples), 'ratio': ratio, 'count': len(samples),
            'rate': larger_is_better, **more}


def rows(work, contenders, rounds, goal=None, **more):
    """The rows of a table; the goal is for the second contender."""
    samples = take_turns(contenders, rounds)
    labels = [label for label, _ in contenders]
    floor = quantile(samples[labels[0]], 0.5)
    return [row(work, label, samples[label], floor, goal=goal if i == 1 else None, first=i == 0,
                **more) for i, label in enumerate(labels)]


def pretty(ns):
    for limit, unit, scale in ((1e3, 'ns', 1), (1e6, 'µs', 1e3), (1e9, 'ms', 1e6)):
        if abs(ns) < limit:
            return f'{ns / scale:.3g} {unit}'
    return f'{ns / 1e9:.3g} s'


def cells(entry):
    """What the columns of the table hold."""
    if entry.get('unit'):
        figures = [f"{entry['median']:.4g} {entry['unit']}", '', '']
    elif entry['rate']:
        figures = [f"{entry['median']:,.0f}/s", '', '']
    else:
        figures = [pretty(entry[name]) for name in ('median', 'p99', 'max')]
    ratio = '' if entry['ratio'] is None else f"{entry['ratio']:.2f} x"
    return [entry['work'], entry['what'], *figures, ratio, entry.get('goal') or '',
            entry.get('note') or '']


COLUMNS = ['work', 'what', 'median', 'p99', 'max', 'to floor', 'goal', '']


def table_line(texts):
    work, what, median, p99, most, ratio, *rest = texts
    return (f'{work:<4} {what:<41} {median:>10} {p99:>10} {most:>10} {ratio:>9}  '
            + ' '.join(rest)).rstrip()


def long_table(entries):
    yield '| ' + ' | '.join(COLUMNS[:6]) + ' | |'
    yield '|---|---|--:|--:|--:|--:|---|'
    for entry in entries:
        *columns, _, note = cells(entry)
        yield '| ' + ' | '.join([*columns, note]) + ' |'


def short_table(entries):
    """One line for each floor and what is compared with it."""
    yield '| work | floor | tosc | to floor | sqlite3 |'
    yield '|---|--:|--:|--:|--:|'
    groups = []
    for entry in entries:
        if entry['first']:
            groups.append([])
        groups[-1].append(entry)
    for floor, tosc, *others in groups:
        peer = next((entry for entry in others if entry['what'].startswith('sqlite3')), None)
        name = (floor if tosc['what'] == 'tosc' else tosc)['what'].partition(': ')[2]
        yield '| ' + ' | '.join([
            f"{floor['work']}: {name}", cells(floor)[2], cells(tosc)[2], cells(tosc)[5],
            cells(peer)[2] if peer else '']) + ' |'


TABLES = {'figures': long_table, 'figures in short': short_table}


def update(path, entries, machine):
    """Puts the table between the marks of a Markdown file."""
    text = Path(path).read_text(encoding='utf-8')
    found = re.search('(<!-- (figures|figures in short) -->\n).*?(<!-- end of figures -->)', text,
                      re.DOTALL)
    if found is None:
        raise ValueError(f'{path} has no <!-- figures --> and <!-- end of figures -->')
    lines = [f'Measured on {machine}.', '', *TABLES[found[2]](entries), '']
    Path(path).write_text(text[:found.start()] + found[1] + '\n'.join(lines) + found[3]
                          + text[found.end():], encoding='utf-8')
