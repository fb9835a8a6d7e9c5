"""The example programs in C do what their READMEs say, also when they are killed.

The Makefile gives the directory of the built programs by TOSC_EXAMPLES.
"""
# SPDX-License-Identifier: Apache-2.0
import http.client
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from harness import SCALE, wait_until

import tosc

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / 'examples'
PROGRAMS = Path(os.environ['TOSC_EXAMPLES'])
ENVIRONMENT = {**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'}


@pytest.fixture
def start():
    """Starts programs that are killed at the end, however the test ends."""
    started = []

    def start(*args, **options):
        options = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE,
                   'stderr': subprocess.PIPE, 'text': True, 'env': ENVIRONMENT, **options}
        process = subprocess.Popen([str(arg) for arg in args], **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


def finish(process, status=0, given=None):
    """What it prints to its end."""
    out, err = process.communicate(given, timeout=60 * SCALE)
    assert process.returncode == status, out + err
    return err if status else out


def script(name, *args, status=0):
    done = subprocess.run([sys.executable, SOURCES / name, *map(str, args)], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=60 * SCALE, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


# ---- the rate limiter ----

class Daemon:
    """A ratelimitd; its log goes to a file, so that it never waits for us."""

    def __init__(self, start, directory, store, policy):
        number = len(list(directory.glob('log*')))
        self.log = directory / f'log{number}'
        with self.log.open('w') as log:
            self.process = start(PROGRAMS / 'ratelimit/ratelimitd', '-p', 0,
                                 f'file:{store}?durable=0', policy, stderr=log)
        line = self.process.stdout.readline()
        assert line.startswith('listening on '), self.log.read_text()
        self.place = line.split()[-1]

    def get(self, path):
        """(status, body, headers)"""
        try:
            with urllib.request.urlopen(f'http://{self.place}{path}', timeout=30) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers

    def logs(self, text, times=1):
        wait_until(lambda: self.log.read_text().count(text) >= times, 20,
                   f'{times} x {text!r} in the log')

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60 * SCALE) == 0, self.log.read_text()
        assert self.log.read_text().endswith(' stopped\n')


@pytest.fixture
def policy(tmp_path):
    """A copy of the shipped one, to be changed."""
    copy = tmp_path / 'policy.py'
    copy.write_text((SOURCES / 'ratelimit/policy.py').read_text())
    return copy


@pytest.fixture
def limiter(start, tmp_path, policy):
    """Starts daemons that share one store."""
    return lambda: Daemon(start, tmp_path, tmp_path / 'store', policy)


def settings(tmp_path, *changes, status=0):
    return script('ratelimit/settings.py', f'file:{tmp_path}/store', *changes, status=status)


def load(start, daemons, *options):
    """Starts the load generator."""
    return start(PROGRAMS / 'ratelimit/ratelimit-load', *options,
                 *[daemon.place for daemon in daemons])


def counts(out):
    """The numbers in its first line, by name."""
    return {name: int(count) for count, name in re.findall(r'(\d+) (\w+)', out.splitlines()[0])}


def slowly(daemon, tmp_path):
    """As good as no refill, so that it does not matter how long a test takes."""
    settings(tmp_path, 'rate=0.001')
    daemon.logs('new settings are in force')


def test_the_limiter_grants_until_the_burst_is_used_up(limiter, tmp_path):
    daemon = limiter()
    slowly(daemon, tmp_path)
    answers = [daemon.get('/allow/ann') for _ in range(25)]
    assert [status for status, _, _ in answers] == [200] * 20 + [429] * 5
    _, body, headers = answers[-1]
    assert body == 'refused\n' and 900 < int(headers['Retry-After']) <= 1000
    assert daemon.get('/allow/bob')[:2] == (200, 'granted\n')
    assert json.loads(daemon.get('/status')[1])['granted'] == 21
    daemon.stop()


def test_the_limiter_grants_again_after_some_time(limiter, tmp_path):
    daemon = limiter()
    settings(tmp_path, 'rate=20', 'burst=1')
    daemon.logs('new settings are in force')
    assert daemon.get('/allow/ann')[0] == 200
    wait_until(lambda: daemon.get('/allow/ann')[0] == 200, 20, 'another one')
    daemon.stop()


def test_the_limiter_answers_what_is_no_question(limiter):
    daemon = limiter()
    for path, status in [('/', 404), ('/allow/', 404), ('/allow/a%20b', 404),
                         ('/allow/' + 'x' * 65, 404), ('/allow/ann?really=1', 200)]:
        assert daemon.get(path)[0] == status, path
    host, port = daemon.place.split(':')
    for request, status in [(b'POST /allow/ann HTTP/1.1\r\n\r\n', 405),
                            (b'GET\r\n\r\n', 405),
                            (b'GET /allow/ann\r\n\r\n', 400),
                            (b'GET /allow/ann HTTP/1.1\r\nContent-Length: 5\r\n\r\n', 413),
                            (b'GET /' + b'x' * 5000 + b' HTTP/1.1\r\n\r\n', 431)]:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.connect()
        connection.sock.sendall(request)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        assert answer.status == status and answer.headers['Connection'] == 'close', request
        answer.close()
        connection.close()
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.connect()  # several questions sent ahead, in pieces
    questions = b'GET /allow/eve HTTP/1.1\r\nHost: x\r\n\r\n' * 300
    for at in range(0, len(questions), 1000):
        connection.sock.sendall(questions[at:at + 1000])
    answers = b''
    while answers.count(b'HTTP/1.1 ') < 300 or not answers.endswith(b'ed\n'):
        answers += connection.sock.recv(65536)
    assert answers.count(b'granted\n') + answers.count(b'refused\n') == 300
    connection.close()
    daemon.stop()


@pytest.mark.seconds(120)
def test_no_more_is_granted_by_all_together_though_one_is_killed(limiter, start, tmp_path):
    daemons = [limiter() for _ in range(3)]
    # As good as no refill: what is granted is the burst, exactly.
    settings(tmp_path, 'rate=0.001', 'burst=400')
    for daemon in daemons:
        daemon.logs('new settings are in force')
    run = load(start, daemons, '-r', 0.001, '-b', 400, '-k', 3, '-c', 24, '-n', 40000)
    wait_until(lambda: json.loads(daemons[0].get('/status')[1])['granted'] > 200, 30, 'a part')
    daemons[1].process.kill()
    out = finish(run)
    assert out.count(': right\n') == 3, out
    seen = counts(out)
    stored = json.loads(daemons[0].get('/status')[1])
    assert stored['granted'] == 1200
    # What the killed one had stored but not answered.
    assert 1200 - seen['lost'] <= seen['granted'] <= 1200
    assert seen['answers'] + seen['lost'] == 40000 and seen['lost'] <= 24
    assert set(stored['clients']) == {'client-0', 'client-1', 'client-2'}
    daemons[0].stop()
    daemons[2].stop()


def test_connections_beyond_the_limit_of_descriptors_wait_for_their_turn(limiter, start):
    daemon = limiter()
    pid = daemon.process.pid
    most = len(os.listdir(f'/proc/{pid}/fd')) + 10
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    run = load(start, [daemon], '-r', 10, '-b', 20, '-c', 15, '-n', 3000)
    seen = counts(finish(run))
    assert seen['answers'] == 3000 and seen['lost'] == 0
    assert 'accept: Too many open files' in daemon.log.read_text()
    daemon.stop()


def test_the_load_generator_finds_a_limiter_that_grants_too_much(limiter, start, tmp_path):
    daemon = limiter()
    settings(tmp_path, 'burst=50')
    daemon.logs('new settings are in force')
    run = load(start, [daemon], '-r', 0.001, '-b', 10, '-k', 1, '-c', 4, '-n', 200)
    assert 'WRONG' in run.communicate(timeout=60 * SCALE)[0]
    assert run.returncode == 1
    daemon.stop()


def test_settings_in_the_store_change_limits_at_once(limiter, tmp_path):
    daemons = [limiter(), limiter()]
    settings(tmp_path, 'vip-*=0.01,3')
    for daemon in daemons:
        daemon.logs('1 exceptions')
    granted = [daemons[n % 2].get('/allow/vip-1')[0] for n in range(6)]
    assert sorted(granted) == [200] * 3 + [429] * 3
    out = settings(tmp_path, 'vip-*=', 'rate=7')
    assert out == 'rate=7.0\nburst=20\n'
    for daemon in daemons:
        daemon.logs('policy: 7.0/s, 20 at once, 0 exceptions')
        daemon.stop()


def test_settings_that_the_policy_refuses_change_nothing(limiter, tmp_path):
    daemon = limiter()
    settings(tmp_path, 'rate=-1')
    daemon.logs('the policy does not take the new settings')
    daemon.logs('ValueError: -1.0 is no rate or burst')
    assert daemon.get('/allow/ann')[0] == 200
    assert 'nothing was changed' in settings(tmp_path, 'rate=5', 'burst=many', status=1)
    assert 'rate=-1.0\n' in settings(tmp_path)
    daemon.stop()


def test_only_changes_of_the_settings_are_told(limiter, tmp_path):
    daemon = limiter()
    for number in range(50):
        daemon.get(f'/allow/client-{number}')
    settings(tmp_path, 'rate=3')
    daemon.logs('new settings are in force')
    assert daemon.log.read_text().count('new settings') == 1
    daemon.stop()


def test_a_policy_is_changed_while_the_limiter_runs(limiter, policy):
    daemon = limiter()
    policy.write_text(policy.read_text().replace('return rate, burst', 'return 0.01, 2'))
    daemon.logs('policy.py is in force', 2)  # without a signal
    assert [daemon.get('/allow/ann')[0] for _ in range(3)] == [200, 200, 429]
    daemon.process.send_signal(signal.SIGHUP)
    daemon.logs('policy.py is in force', 3)
    daemon.stop()


@pytest.mark.parametrize('broken, said', [
    ('def limits(client:\n', 'SyntaxError'),
    ('raise OSError("no such luck")\n', 'OSError: no such luck'),
    ('import sys\nsys.exit("enough")\n', 'enough'),
    ('x = 1\n', 'configure'),
    ('def configure(settings):\n    1 / 0\ndef limits(client):\n    pass\n',
     'ZeroDivisionError'),
], ids=['syntax', 'raises', 'exits', 'lacks functions', 'refuses settings'])
def test_a_broken_policy_is_logged_and_the_old_one_goes_on(limiter, tmp_path, policy, broken,
                                                           said):
    daemon = limiter()
    slowly(daemon, tmp_path)
    policy.write_text(broken)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.logs('the policy cannot be used')
    assert said in daemon.log.read_text()
    statuses = [daemon.get('/allow/ann')[0] for _ in range(22)]
    assert statuses == [200] * 20 + [429] * 2
    daemon.stop()


@pytest.mark.parametrize('line, said', [
    ('1 / 0', 'ZeroDivisionError'),
    ('return "much"', 'limits() has failed'),
    ('return 5, 0', 'limits() has failed'),
    ('import sys; sys.exit()', 'limits() has failed'),
    ('while True: pass', 'KeyboardInterrupt'),
])
def test_a_policy_that_fails_for_one_client_fails_for_nobody_else(limiter, policy, line, said):
    policy.write_text(policy.read_text().replace(
        '    for pattern, allowed', f'    if client == "bad":\n        {line}\n'
                                    '    for pattern, allowed'))
    daemon = limiter()
    for _ in range(2):
        assert daemon.get('/allow/bad')[0] == 429
        assert daemon.get('/allow/good')[0] == 200
    assert said in daemon.log.read_text()
    assert daemon.log.read_text().count('limits() has failed') == 1
    daemon.stop()


def test_a_policy_that_closes_the_store_ends_the_limiter(limiter, policy):
    daemon = limiter()
    policy.write_text('import tosc\ntosc.shared("ratelimit").close()\n')
    daemon.logs('the settings cannot be watched any more')
    assert daemon.process.wait(30 * SCALE) == 1
    assert daemon.log.read_text().endswith(' stopped\n')


@pytest.mark.parametrize('text', ['1 / 0', 'def limits(client): return 1, 1'])
def test_the_limiter_does_not_start_with_a_broken_policy(start, tmp_path, policy, text):
    policy.write_text(text)
    process = start(PROGRAMS / 'ratelimit/ratelimitd', '-p', 0, 'inproc:x', policy)
    assert 'the policy cannot be used' in finish(process, 1)
    process = start(PROGRAMS / 'ratelimit/ratelimitd', '-p', 0, 'file:/nonexistent/x', policy)
    assert '/nonexistent' in finish(process, 1)
    assert 'usage:' in finish(start(PROGRAMS / 'ratelimit/ratelimitd', '-p', 'x', 'a', 'b'), 2)


# ---- the log processor ----

LINE = re.compile(r'"[A-Z]+ ([^ ?"]{1,127})[^"]+" (\d+) (\S+) ([0-9.]+)')


def truth(lines):
    """What logstat has to find, the plain way."""
    found = {'lines': len(lines), 'malformed': 0, 'bytes': 0}
    statuses, paths, times = Counter(), Counter(), []
    for line in lines:
        match = LINE.search(line)
        if match is None:
            found['malformed'] += 1
            continue
        paths[match[1]] += 1
        statuses[match[2]] += 1
        found['bytes'] += 0 if match[3] == '-' else int(match[3])
        times.append(float(match[4]) * 1e6)
    return {**found, 'statuses': statuses, 'paths': paths, 'last': lines[-10:]}, sorted(times)


def stored(path):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        return manager.snapshot() if manager.read(None) is not None else None


def same_as_true(data, lines):
    expected, times = truth(lines)
    expected['last'] = [line[:159] for line in expected['last']]
    assert {name: data[name] for name in expected} == expected
    assert sum(data['bins'].values()) == len(times)
    for percent, us in data['percentiles_us'].items():
        true = times[max(0, -(-len(times) * int(percent) // 100) - 1)]
        assert abs(us - true) <= 0.016 * true + 1, percent


def make_log(path, *options):
    script('logstat/make_log.py', *options, path)
    return path.read_text().splitlines()


def logstat(start, tmp_path, *options, log='log', **more):
    return start(PROGRAMS / 'logstat/logstat', *options, f'file:{tmp_path}/store',
                 log if log == '-' else tmp_path / log, **more)


def test_the_generator_makes_the_same_log_each_time(tmp_path):
    first = make_log(tmp_path / 'a', '--lines', 2000)
    assert make_log(tmp_path / 'b', '--lines', 2000) == first
    assert make_log(tmp_path / 'c', '--lines', 2000, '--seed', 2) != first
    assert 0 < truth(first)[0]['malformed'] < 10


def test_statistics_are_true(start, tmp_path):
    lines = make_log(tmp_path / 'log', '--lines', 30000)
    finish(logstat(start, tmp_path, '-1'))
    data = stored(tmp_path / 'store')
    same_as_true(data, lines)
    finish(logstat(start, tmp_path, '-1'))  # nothing is counted twice
    assert stored(tmp_path / 'store') == data


def test_statistics_of_standard_input_are_true(start, tmp_path):
    lines = make_log(tmp_path / 'log', '--lines', 12000)
    text = (tmp_path / 'log').read_text()
    finish(logstat(start, tmp_path, log='-', stdin=subprocess.PIPE), given=text[:-1])
    same_as_true(stored(tmp_path / 'store'), lines)
    finish(logstat(start, tmp_path, log='-', stdin=subprocess.PIPE), given=text)
    same_as_true(stored(tmp_path / 'store'), lines + lines)


def test_odd_lines_do_no_harm(start, tmp_path):
    lines = ['', ' ', '"', '"GET / HTTP/1.1" 200 5 0.1', '"GET /a?b=c HTTP/1.1" 200 - 1',
             '"GET /x HTTP/1.1" 999 5 0.1', '"GET / HTTP/1.1" 200 5 -1',
             '"GET / HTTP/1.1" 200 5 nan', '"GET /' + 'y' * 300 + ' HTTP/1.1" 200 5 0.1']
    raw = '\n'.join(lines).encode() + b'\n\xff\xfe "GET /\xe9 HTTP/1.1" 200 1 0.5\n'
    raw += b'z' * 200000 + b'\n' + b'unfinished'
    (tmp_path / 'log').write_bytes(raw)
    finish(logstat(start, tmp_path, '-1'))
    data = stored(tmp_path / 'store')
    assert data['paths'] == {'/': 1, '/a': 1, '/?': 1, '/' + 'y' * 126: 1}  # cut
    assert data['lines'] == len(lines) + 1 + 4  # a line that is too long counts in pieces
    assert data['malformed'] == data['lines'] - 4
    assert data['position']['offset'] == len(raw) - len(b'unfinished')


@pytest.mark.seconds(120)
def test_each_line_is_counted_once_though_logstat_is_killed(start, tmp_path):
    lines = make_log(tmp_path / 'whole', '--lines', 20000)
    choose = random.Random(3)
    written = 0
    with open(tmp_path / 'log', 'w', encoding='ascii') as log:
        process = logstat(start, tmp_path, '-i', 1)
        while written < len(lines):
            more = choose.randrange(1, 900)
            text = ''.join(line + '\n' for line in lines[written:written + more])
            cut = choose.randrange(len(text))
            log.write(text[:cut])
            log.flush()
            time.sleep(choose.random() * 0.02)
            log.write(text[cut:])
            log.flush()
            written += more
            if choose.random() < 0.5:
                time.sleep(choose.random() * 0.2)
                process.kill()
                process.communicate()
                assert process.returncode == -signal.SIGKILL
                process = logstat(start, tmp_path, '-i', 1)
    process.kill()
    finish(logstat(start, tmp_path, '-1'))
    same_as_true(stored(tmp_path / 'store'), lines)


def test_two_on_one_log_count_each_line_once(start, tmp_path):
    make_log(tmp_path / 'log', '--lines', 3000)
    pair = [logstat(start, tmp_path, '-i', 1) for _ in range(2)]
    for seed in range(2, 12):
        lines = make_log(tmp_path / 'log', '--lines', 500, '--seed', seed)
    wait_until(lambda: (stored(tmp_path / 'store') or {}).get('lines') == 8000, 30, 'all lines')
    for process in pair:
        process.send_signal(signal.SIGINT)
        finish(process)
    same_as_true(stored(tmp_path / 'store'), lines)


def test_a_log_that_is_rotated_is_read_to_its_end(start, tmp_path):
    log, store = tmp_path / 'log', tmp_path / 'store'
    lines = make_log(log, '--lines', 1000)
    process = logstat(start, tmp_path, '-i', 5)
    wait_until(lambda: (stored(store) or {}).get('lines') == 1000, 30, 'the first lines')
    lines = make_log(log, '--lines', 300, '--seed', 2)
    log.rename(tmp_path / 'log.1')
    lines += make_log(log, '--lines', 200, '--seed', 3)
    wait_until(lambda: stored(store)['lines'] == 1500, 30, 'lines of both')
    process.kill()  # and now while nobody looks
    process.wait()
    lines = lines[:1300] + make_log(log, '--lines', 100, '--seed', 4)
    log.rename(tmp_path / 'log.1')
    lines += make_log(log, '--lines', 50, '--seed', 5)
    finish(logstat(start, tmp_path, '-1'))
    same_as_true(stored(store), lines)
    log.write_text('')  # truncated in place
    finish(logstat(start, tmp_path, '-1'))
    lines += make_log(log, '--lines', 10, '--seed', 6)
    finish(logstat(start, tmp_path, '-1'))
    same_as_true(stored(store), lines)


def test_logstat_says_what_is_wrong(start, tmp_path):
    assert 'log: No such file' in finish(logstat(start, tmp_path), 1)
    assert 'usage:' in finish(start(PROGRAMS / 'logstat/logstat', 'file:x'), 2)
    process = start(PROGRAMS / 'logstat/logstat', 'nowhere:x', '-')
    assert 'logstat: nowhere:x: ' in finish(process, 1)


def test_the_picture_shows_the_statistics(start, tmp_path):
    uri = f'file:{tmp_path}/store'
    assert 'nothing is stored' in script('logstat/top.py', '--once', uri, status=1)
    lines = make_log(tmp_path / 'log', '--lines', 5000)
    finish(logstat(start, tmp_path, '-1'))
    expected, _ = truth(lines)
    out = script('logstat/top.py', '--once', uri)
    assert f'{tmp_path}/log: 5000 lines, {expected["malformed"]} not understood' in out
    assert f'200 {expected["statuses"]["200"]}, ' in out
    path, count = max(expected['paths'].items(), key=lambda entry: entry[1])
    assert re.search(rf'^ *{count} +[0-9.]+ %  {path}$', out, re.MULTILINE)
    assert out.endswith('  ' + lines[-1][:100] + '\n\n')
    assert '\x1b' not in out


def test_the_picture_follows_the_log(start, tmp_path):
    (tmp_path / 'log').touch()
    process = logstat(start, tmp_path, '-i', 5)
    picture = start(sys.executable, SOURCES / 'logstat/top.py', '--every', 0.01,
                    f'file:{tmp_path}/store')
    for seed, total in [(1, 700), (2, 1400), (3, 2100)]:
        make_log(tmp_path / 'log', '--lines', 700, '--seed', seed)
        for line in picture.stdout:
            if f' {total} lines' in line:
                break
        else:
            pytest.fail(picture.stderr.read())
    picture.send_signal(signal.SIGINT)
    assert picture.wait(30 * SCALE) == 0
    process.send_signal(signal.SIGTERM)
    finish(process)
