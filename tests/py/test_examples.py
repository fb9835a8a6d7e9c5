"""The shipped examples do what their first lines say."""
# SPDX-License-Identifier: Apache-2.0
import csv
import datetime
import hmac
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import SCALE, wait_until

import tosc

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'examples'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
ENVIRONMENT = {**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'}


def start(script, *args, **options):
    return subprocess.Popen([sys.executable, EXAMPLES / script, *map(str, args)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **options)


def finish(process, status=0, given=None):
    """What it prints to its end."""
    try:
        out, err = process.communicate(given, timeout=60 * SCALE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == status, out + err
    return err if status else out


def read_until(process, line):
    """Its output up to that line."""
    for got in process.stdout:
        if got == line:
            return
    raise AssertionError(f'it ended without {line!r}: {process.stderr.read()}')


def run(script, *args, status=0):
    return finish(start(script, *args), status)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'store'


# ---- the bank ----

@pytest.fixture(scope='module')
def few_transfers(tmp_path_factory):
    """The first 300 of the shipped ones."""
    few = tmp_path_factory.mktemp('bank') / 'few.csv'
    lines = (EXAMPLES / 'bank/transfers.csv').read_text().splitlines(keepends=True)
    few.write_text(''.join(lines[:301]))
    return few


def bank(few, *args, status=0):
    return run('bank/bank.py', '--transfers', few, '--effort', 6, *args, status=status)


def test_the_shipped_input_is_what_the_script_beside_it_makes(tmp_path):
    run('bank/make_transfers.py', tmp_path)
    for name in ('accounts.csv', 'transfers.csv'):
        assert (tmp_path / name).read_bytes() == (EXAMPLES / 'bank' / name).read_bytes()


@pytest.mark.seconds(120)
def test_the_bank_balances_though_clerks_are_killed(few_transfers):
    out = run('bank/bank.py', '--transfers', few_transfers, '--kills', 4, '--processes', 3,
              '--effort', 11)
    assert 'each exactly once' in out
    assert 'the books balance: 32695.88 before and after' in out
    assert 1 <= len(re.findall('SIGKILL for clerk', out)) <= 4  # the last may come too late
    assert int(re.search(r'(\d+) transfers applied', out)[1]) > 200


def test_a_single_clerk_decides_as_a_plain_loop_does(few_transfers, path):
    bank(few_transfers, '--kills', 0, '--processes', 1, '--store', path)
    with open(EXAMPLES / 'bank/accounts.csv', encoding='utf-8') as lines:
        balance = {row['account']: int(row['balance'].replace('.', ''))
                   for row in csv.DictReader(lines)}
    with open(few_transfers, encoding='utf-8') as lines:
        for row in csv.DictReader(lines):
            cents = int(row['amount'].replace('.', ''))
            if balance[row['from']] >= cents:
                balance[row['from']] -= cents
                balance[row['to']] += cents
    sys.path.insert(0, str(EXAMPLES / 'bank'))
    try:
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            accounts = manager.snapshot().accounts
    finally:
        sys.path.remove(str(EXAMPLES / 'bank'))
    assert {number: int(account.balance * 100) for number, account in accounts.items()} == balance


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_a_bank_that_was_interrupted_goes_on(few_transfers, path, number):
    args = ['--transfers', few_transfers, '--effort', 9, '--kills', 0, '--store', path]
    process = start('bank/bank.py', *args, start_new_session=True)
    wait_until(lambda: path.exists() and path.stat().st_size > 8000, 60, 'some transfers')
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60 * SCALE)
    assert number == signal.SIGKILL or 'interrupted; with --store' in err
    assert 'each exactly once' in run('bank/bank.py', *args)


def test_wrong_books_are_found(few_transfers, path):
    bank(few_transfers, '--kills', 0, '--store', path)
    code = '''
import sys, tosc
with tosc.Manager(tosc.FileBackend(sys.argv[1])) as manager:
    manager.read().accounts['1001'].balance += 1
'''
    subprocess.run([sys.executable, '-c', code, path], cwd=EXAMPLES / 'bank', env=ENVIRONMENT,
                   check=True, timeout=30 * SCALE)
    process = start('bank/bank.py', '--transfers', few_transfers, '--effort', 6, '--store', path)
    out, _ = process.communicate(timeout=60 * SCALE)
    assert process.returncode == 1
    assert 'WRONG: there is 32696.88 in the bank, and it should be 32695.88' in out
    assert 'WRONG: account 1001 has' in out


@pytest.mark.parametrize('text', ['', 'number,from\n1,2\n', 'number,from,to,amount\n0,1,2,x\n',
                                  'number,from,to,amount\n0,1,2,-1\n', 'number\n0\n'])
def test_the_bank_says_what_is_wrong_with_its_input(tmp_path, text):
    (tmp_path / 'bad.csv').write_text(text)
    assert 'cannot use the input' in bank(tmp_path / 'bad.csv', status=1)


def test_the_bank_refuses_accounts_that_it_does_not_have(tmp_path):
    (tmp_path / 'few.csv').write_text('number,from,to,amount\n0,1001,1,5\n1,1001,1008,5\n')
    out = bank(tmp_path / 'few.csv', '--kills', 0)
    assert '1 transfers applied, refused: 1 no account 1;' in out


# ---- the small ones ----

def test_config_reaches_the_running_service(path):
    service = start('config/config.py', 'serve', path)
    assert service.stdout.readline() == 'Hello\n'
    run('config/config.py', 'set', path, 'pause', 0.01)
    run('config/config.py', 'set', path, 'greeting', "'Salve'")
    read_until(service, 'Salve\n')
    run('config/config.py', 'set', path, 'stop', True)
    assert finish(service).endswith('stopped\n')


def test_config_needs_a_service(path):
    assert 'start the service first' in run('config/config.py', 'set', path, 'a', 1, status=1)


def test_queue_does_each_job_once(path, tmp_path):
    for number in range(6):
        run('queue/jobs.py', path, 'put', f'echo {number} >> {tmp_path}/log; exit {number}')
    workers = [start('queue/jobs.py', path, 'work') for _ in range(3)]
    for worker in workers:
        finish(worker)
    assert sorted((tmp_path / 'log').read_text().split()) == list('012345')
    lines = [line.split('\t') for line in run('queue/jobs.py', path, 'list').splitlines()]
    assert [line[0] for line in lines] == list('012345')


def test_queue_job_of_a_killed_worker_is_done(path, tmp_path):
    run('queue/jobs.py', path, 'put', f'echo x >> {tmp_path}/log; test -e {tmp_path}/go || sleep 60')
    worker = start('queue/jobs.py', path, 'work', start_new_session=True)
    wait_until((tmp_path / 'log').exists, 30, 'the job')
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    (tmp_path / 'go').touch()
    run('queue/jobs.py', path, 'work')
    assert (tmp_path / 'log').read_text() == 'x\nx\n'
    assert run('queue/jobs.py', path, 'list').startswith('0\t')


def test_chat_shows_what_the_other_says(path):
    ann, bob = start('chat/chat.py', path, 'ann'), None
    wait_until(path.exists, 30, 'the chat')
    bob = start('chat/chat.py', path, 'bob')
    assert ann.stdout.readline() == 'bob: (is here)\n'
    ann.stdin.write('hello\n')
    ann.stdin.flush()
    read_until(bob, 'ann: hello\n')
    time.sleep(0.1)
    assert 'ann:' not in finish(bob)
    assert ann.stdout.readline() == 'bob: (has left)\n'
    assert finish(ann) == ''


def test_inventory_keeps_objects_of_its_own_class(path):
    out = run('inventory/inventory.py', path).splitlines()
    assert out[0] == 'True True in stock 55.00'
    assert out[1].startswith("Item(name='bolts', price=Decimal('0.11'), count=500,")


def test_sqlite_backend_counts_its_runs(path):
    for number in (1, 2, 3):
        assert run('sqlite_backend/sqlite_backend.py', path) == f'run number {number}\n'


@pytest.mark.parametrize('script', ['config/config.py', 'queue/jobs.py', 'chat/chat.py',
                                    'inventory/inventory.py'])
def test_usage_is_shown_without_arguments(script):
    assert 'tosc-run' in run(script, status=1)


# ---- what the pages say ----

def test_the_first_example_of_the_readme_prints_what_it_says(tmp_path):
    text = (ROOT / 'README.md').read_text()
    script = re.search('```python\n(.*?)```', text, re.DOTALL)[1]
    assert '/tmp/visits.tosc' in script
    (tmp_path / 'visits.py').write_text(script.replace('/tmp/visits.tosc', str(tmp_path / 'v')))
    printed = re.search(r'\$ build/tosc-run visits.py\n    (.*)\n', text)[1]
    assert run(tmp_path / 'visits.py') == printed + '\n'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_and_code_of_the_pages_are_sound(page):
    text = page.read_text()
    for link in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (page.parent / link).exists(), link
    for code in re.findall('```python\n(.*?)```', text, re.DOTALL):
        compile(code, page.name, 'exec')


def test_the_benchmark_runs(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n')
    out = run('../bench/bench.py', '--quick', '--rounds', 1, '--only', 'W2,W3i,W10,W11', '--shm',
              tmp_path, '--disk', tmp_path, '--json', tmp_path / 'json', '--update', page)
    assert 'FAILED' not in out
    assert {row['work'] for row in json.loads((tmp_path / 'json').read_text())['rows']} == {
        'W2', 'W3i', 'W10', 'W11'}
    text = page.read_text()
    assert text.startswith('before\n<!-- figures -->\nMeasured on ')
    assert '| W11 | tosc: 100 threads' in text and 'old' not in text
    assert text.endswith('|\n<!-- end of figures -->\nafter\n')


class Described:
    pass


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


class Names(pickle.Unpickler):
    """Shows persistent ids as docs/records.md says they are made."""

    def persistent_load(self, pid):
        return f'extra {-1 - pid}' if pid < 0 else f'object {pid // 8} kind {pid % 8}'


def records(data, key):
    """Takes records apart by docs/records.md alone: (letter, segments) of each."""
    chain = None
    while data:
        header, data = data[:32], data[32:]
        size = int.from_bytes(header[8:16], 'little')
        assert header[:4] == b'TSC1' and header[5] == (key is not None) and not any(header[6:8])
        if key is not None:
            if header[4:5] == b'B':
                chain, data = data[:32], data[32:]
            mac, data = data[:32], data[32:]
            assert mac == hmac.digest(key, header + chain + data[:size], 'sha256')
            chain = chain if header[4:5] == b'B' else mac
        body, data = data[:size], data[size:]
        at, numbers = 0, []
        for _ in range(3):  # oid counter, suspects, number of garbage
            number, at = varint(body, at)
            numbers.append(number)
        for _ in range(numbers[2]):
            _, at = varint(body, at)
        count, at = varint(body, at)
        segments = []
        for _ in range(count):
            sizes = []
            for _ in range(2):
                number, at = varint(body, at)
                sizes.append(number)
            parts = []
            for number in sizes:
                parts.append(Names(io.BytesIO(body[at:at + number])).load() if number else None)
                at += number
            segments.append(tuple(parts))
        assert at == len(body)
        yield chr(header[4]), segments


@pytest.mark.parametrize('key', [None, b'k' * 32])
def test_records_are_laid_out_as_described(key):
    backend = tosc.InprocBackend()
    with tosc.Manager(backend, key=key) as manager:
        manager.write({'list': [1], 'date': datetime.date(2024, 5, 17)})
        data = manager.read()
        data['list'].append(2)
        data['list'][0] = data['set'] = {3}
        del data['date']
        data['set'].add(4)
        data['any'] = Described()
        del data['list'][1:]
        _, stored = backend.read()
    assert list(records(stored, key)) == [
        ('B', [([datetime.date(2024, 5, 17)],
                [8, 'object 1 kind 0', ['object 2 kind 1'],
                 8, 'object 2 kind 1', {'list': 'object 3 kind 0', 'date': 'extra 0'},
                 8, 'object 3 kind 0', [1]])]),
        ('C', [(None, [5, 'object 3 kind 0', 1, 1, [2]])]),
        ('C', [(None, [4, 'object 3 kind 0', 0, 'object 4 kind 2', 8, 'object 4 kind 2', {3}])]),
        ('C', [(None, [1, 'object 2 kind 1', 'set', 'object 5 kind 2',
                       8, 'object 5 kind 2', {3}])]),
        ('C', [(None, [2, 'object 2 kind 1', 'date'])]),
        ('C', [(None, [6, 'object 5 kind 2', {4}])]),
        ('C', [([Described], [1, 'object 2 kind 1', 'any', 'object 6 kind 4',
                              8, 'object 6 kind 4', 'extra 0', {}])]),
        ('C', [(None, [5, 'object 3 kind 0', 1, 2, None])]),
    ]
