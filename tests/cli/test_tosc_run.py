"""tosc-run is python3: what a script can see of its interpreter is the same under both.

Each test runs the same command line under tosc-run and under the python3 that libtosc was
configured for, and compares standard output, the last line of standard error, and how the
process ended. What is meant to differ (sys.executable, --version) is tested after that.
"""
# SPDX-License-Identifier: Apache-2.0
import collections
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import zipfile

import pytest

TOSC_RUN = os.environ.get('TOSC_RUN') or sys.executable
PYTHON = os.environ.get('TOSC_PYTHON') or sys._base_executable
SECONDS = 120

Result = collections.namedtuple('Result', 'status out last_line')


def environment(**changes):
    """The tester's environment without what changes Python's behaviour; None removes."""
    kept = ('PYTHONMALLOC', 'PYTHONDONTWRITEBYTECODE')
    env = {key: value for key, value in os.environ.items()
           if key in kept or not key.startswith(('PYTHON', 'VIRTUAL_ENV', 'PYTEST'))}
    for key, value in changes.items():
        env.pop(key, None)
        if value is not None:
            env[key] = value
    return env


def run(program, *args, stdin=b'', env=None, **options):
    ended = subprocess.run([program, *args], input=stdin, capture_output=True, check=False,
                           timeout=SECONDS, env=environment(**(env or {})), **options)
    name = os.fsencode(program)
    lines = ended.stderr.replace(name, b'PROGRAM').strip().splitlines()
    return Result(ended.returncode, ended.stdout, lines[-1] if lines else b'')


def same(*args, **options):
    """Runs it under both and returns what both gave."""
    expected = run(PYTHON, *args, **options)
    assert run(TOSC_RUN, *args, **options) == expected
    return expected


def say(expression, *args, program=TOSC_RUN, **options):
    """What `print(expression)` says in a process of its own."""
    ended = run(program, *args, '-c', f'import os, site, sys; print({expression})', **options)
    assert ended.status == 0, ended
    return ended.out.decode(errors='surrogateescape').rstrip('\n')


@pytest.fixture
def script(tmp_path):
    def write(text, name='script.py'):
        path = tmp_path / name
        path.write_text(text)
        return str(path)
    return write


# ---- what is run ----

SEEN = 'import sys; print(__name__, sys.argv, sys.path[0], sys.orig_argv[1:], __doc__)'


def test_script_with_arguments(script):
    assert same(script(SEEN), 'a', '-V', '--help', '').status == 0


def test_script_by_relative_path(script, tmp_path):
    script(SEEN)
    assert same('script.py', cwd=tmp_path).status == 0
    assert same('./script.py', cwd=tmp_path).status == 0


def test_command(tmp_path):
    assert same('-c', SEEN, 'a', '-V', cwd=tmp_path).status == 0


def test_command_glued_to_its_option():
    assert same('-Bcprint(1)').out == b'1\n'


def test_module(script, tmp_path):
    script(SEEN, name='seen.py')
    assert same('-m', 'seen', 'a', '-h', cwd=tmp_path).status == 0


def test_module_of_the_standard_library():
    assert same('-m', 'json.tool', stdin=b'{"a": [1]}').status == 0


def test_package_with_main(script, tmp_path):
    (tmp_path / 'pack').mkdir()
    script('', name='pack/__init__.py')
    script(SEEN, name='pack/__main__.py')
    assert same('-m', 'pack', 'x', cwd=tmp_path).status == 0


def test_standard_input_named_by_a_dash():
    assert same('-', 'a', 'b', stdin=SEEN.encode()).status == 0


def test_standard_input_by_default():
    assert same(stdin=SEEN.encode()).status == 0


def test_empty_standard_input():
    assert same(stdin=b'') == Result(0, b'', b'')


def test_directory_with_main(script, tmp_path):
    (tmp_path / 'app').mkdir()
    script(SEEN, name='app/__main__.py')
    assert same(str(tmp_path / 'app'), 'x').status == 0


def test_zip_with_main(tmp_path):
    path = tmp_path / 'app.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('__main__.py', SEEN + '\nimport helper')
        archive.writestr('helper.py', 'print(__name__)')
    assert same(str(path), 'x').status == 0


def test_skipped_first_line(script):
    assert same('-x', script('nonsense here\nprint(1)')).out == b'1\n'


def test_script_that_names_tosc_run_as_its_interpreter(script):
    path = script(f'#!{TOSC_RUN}\nimport sys, tosc\nprint(sys.argv[1:], sys.executable)')
    os.chmod(path, 0o700)
    assert run(path, 'a').out.decode() == f"['a'] {TOSC_RUN}\n"


def test_interactive_on_a_pipe():
    assert same('-i', '-q', stdin=b'x = 6\nprint(x * 7)\n').out == b'42\n'


def test_interactive_after_a_command():
    assert same('-i', '-c', 'x = 6', stdin=b'print(x * 7)\n').out == b'42\n'


def test_interactive_after_an_exception(script):
    assert same('-i', script('x = 6\n1/0'), stdin=b'print(x)\n').out == b'6\n'


def test_interactive_by_environment():
    same('-c', 'x = 6', stdin=b'print(x)\n', env={'PYTHONINSPECT': '1'})
    inspect = 'import os; os.environ["PYTHONINSPECT"] = "1"; x = 6'
    same('-c', inspect, stdin=b'print(x)\n')


def test_start_up_file_of_an_interactive_session(script):
    start = script('print("started")')
    assert same('-i', '-q', stdin=b'print(1)\n', env={'PYTHONSTARTUP': start}).out \
        == b'started\n1\n'


# ---- how it ends ----

@pytest.mark.parametrize('value', ['', '0', '3', '255', '256', '-1', 'True', 'None', '"text"',
                                   '[1, 2]', '2**80', '1.5'])
def test_exit_status(value):
    same('-c', f'import sys; sys.exit({value})')


@pytest.mark.parametrize('code', [
    '1/0',
    'def f(:',
    '  indented = 1',
    'import no_such_module',
    'raise SystemExit(7)',
    'raise KeyboardInterrupt',
    'class E(BaseException): pass\nraise E("mine")',
    'raise ExceptionGroup("several", [ValueError(1)])',
    'def f(): f()\nf()',
    'import os; os._exit(9)',
    'import atexit; atexit.register(print, "last"); raise SystemExit(4)',
    'import sys; sys.excepthook = lambda *a: print("hook"); 1/0',
    'import threading; threading.Thread(target=lambda: 1/0).start()',
    'import sys; sys.stdout.write("no newline")',
    'import warnings; warnings.warn("beware")',
])
def test_end_of_a_command(code):
    same('-c', code)


@pytest.mark.parametrize('args', [
    ['/no/such/script.py'], ['/'], ['-m', 'no_such_module'], ['-m', 'json'], ['-c'], ['-m'],
    ['-Z'], ['--no-such-option'], ['-VZ'], ['-X'], ['-W'], ['--check-hash-based-pycs', 'x'],
    ['-m', 'no.such.module'],
])
def test_bad_command_line(args):
    assert same(*args).status != 0


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL', 'SIGUSR1',
                                  'SIGPIPE', 'SIGQUIT', 'SIGALRM'])
def test_death_by_signal(name):
    same('-c', f'import os, signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(0.1);'
               ' print("alive")')


def test_abort():
    assert same('-c', 'import os, resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0)); os.abort()',
                env={'ASAN_OPTIONS': None}).status == -signal.SIGABRT


@pytest.mark.parametrize('program', [PYTHON, TOSC_RUN])
def test_interrupt_from_outside(program):
    code = ('import atexit, time; atexit.register(print, "tidy"); print("up", flush=True)\n'
            'time.sleep(60)')
    with subprocess.Popen([program, '-c', code], stdout=subprocess.PIPE, env=environment(),
                          stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b'up\n'
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=SECONDS)
    assert (child.returncode, out) == (-signal.SIGINT, b'tidy\n')
    assert err.splitlines()[-1] == b'KeyboardInterrupt'


def test_shell_sees_130_after_an_interrupt():
    shell = 'trap : INT; "$0" -c "import os; os.kill(os.getpid(), 2)" 2>/dev/null; echo $?'
    for program in PYTHON, TOSC_RUN:
        ended = subprocess.run(['bash', '-c', shell, program], capture_output=True, check=False,
                               env=environment(), timeout=SECONDS)
        assert ended.stdout == b'130\n'


@pytest.mark.parametrize('redirection', ['>&-', '<&-', '2>&-', '>&- 2>&-', '<&- >&- 2>&-',
                                         '>/dev/full', '2>/dev/full', '| true'])
def test_closed_and_full_streams(redirection):
    shell = f'"$0" -c "import sys; print(1, sys.stdin is None, sys.stderr is None)" {redirection}'
    results = [subprocess.run(['bash', '-c', shell + '; echo "${PIPESTATUS[0]}"', program],
                              capture_output=True, check=False, env=environment(),
                              timeout=SECONDS)
               for program in (PYTHON, TOSC_RUN)]
    assert results[0].stdout == results[1].stdout
    assert bool(results[0].stderr) == bool(results[1].stderr)


def test_reader_that_goes_away():
    shell = '"$0" -c "for i in range(100000): print(i)" | head -n 1; echo "${PIPESTATUS[0]}"'
    results = [subprocess.run(['bash', '-c', shell, program], capture_output=True, check=False,
                              env=environment(), timeout=SECONDS).stdout
               for program in (PYTHON, TOSC_RUN)]
    assert results[0] == results[1]


# ---- options and environment ----

FLAGS = ('import sys; print(sys.flags, sys.warnoptions, sys._xoptions, __debug__,'
         ' sys.dont_write_bytecode, sys.argv, sys.orig_argv[1:], sys.stdout.encoding,'
         ' sys.stdout.errors, sys.getfilesystemencoding(), sys.path)')


@pytest.mark.parametrize('options', [
    [], ['-I'], ['-E'], ['-s'], ['-S'], ['-IS'], ['-O'], ['-OO'], ['-B'], ['-u'], ['-P'], ['-q'],
    ['-b'], ['-bb'], ['-d'], ['-R'], ['-X', 'dev'], ['-X', 'utf8'], ['-Xutf8=0'],
    ['-X', 'frozen_modules=off'], ['-X', 'int_max_str_digits=0'], ['-X', 'mine=1', '-Xother'],
    ['-W', 'error'], ['-Wignore', '-W', 'once::DeprecationWarning'], ['-IBOWerror', '-Xdev'],
    ['--check-hash-based-pycs', 'always'], ['-X', 'faulthandler'], ['-X', 'tracemalloc=2'],
], ids=' '.join)
def test_options(options):
    assert same(*options, '-c', FLAGS, 'x', '-I').status == 0


def test_warnings_as_errors():
    assert same('-W', 'error', '-c', 'import warnings; warnings.warn("beware")').status == 1


@pytest.mark.parametrize('variables', [
    {'PYTHONPATH': '/tmp:relative'}, {'PYTHONHASHSEED': '0'}, {'PYTHONWARNINGS': 'error'},
    {'PYTHONOPTIMIZE': '2'}, {'PYTHONUNBUFFERED': '1'}, {'PYTHONIOENCODING': 'latin-1:replace'},
    {'PYTHONUTF8': '1'}, {'PYTHONSAFEPATH': '1'}, {'PYTHONNOUSERSITE': '1'},
    {'PYTHONDEVMODE': '1'}, {'PYTHONHOME': '/usr'}, {'PYTHONHOME': '/usr:/usr'},
    {'PYTHONHOME': '/no/such'}, {'PYTHONPLATLIBDIR': 'lib'}, {'LC_ALL': 'C'},
    {'LC_ALL': 'POSIX', 'PYTHONCOERCECLOCALE': '0'}, {'LC_ALL': 'C.UTF-8'},
    {'PYTHONHASHSEED': 'nonsense'}, {'HOME': '/nowhere'}, {'PATH': ''}, {'PATH': None},
], ids=lambda v: ' '.join(f'{key}={value}' for key, value in v.items()))
def test_environment(variables):
    for options in [], ['-I'], ['-E']:
        same(*options, '-c', FLAGS + '; print(hash("a") if sys.flags.hash_randomization == 0'
             ' else 0)', env=variables)


PLACES = ('import site, sys, sysconfig, os; print(sys.prefix, sys.exec_prefix, sys.base_prefix,'
          ' sys.base_exec_prefix, sys.path, sys.platlibdir, site.PREFIXES, os.__file__,'
          ' site.ENABLE_USER_SITE, site.USER_SITE, sysconfig.get_paths(), sys._base_executable)')


def test_the_standard_library_is_where_python3_has_it():
    expected = re.sub(rb' \S+$', b'', same_places(PYTHON).rstrip())
    assert re.sub(rb' \S+$', b'', same_places(TOSC_RUN).rstrip()) == expected


def same_places(program, *options, **keywords):
    ended = run(program, *options, '-c', PLACES, **keywords)
    assert ended.status == 0, ended
    return ended.out


def test_wherever_the_program_lies(tmp_path):
    """Also where a directory lib/python3.x beside it looks like a Python of its own."""
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    for prefix in tmp_path / 'usr', tmp_path / 'usr' / 'local':
        (prefix / 'bin').mkdir(parents=True)
        (prefix / 'lib' / version / 'lib-dynload').mkdir(parents=True)
        (prefix / 'lib' / version / 'os.py').write_text('raise SystemExit("wrong library")')
        os.symlink(TOSC_RUN, prefix / 'bin' / 'tosc-run')
        assert same_places(str(prefix / 'bin' / 'tosc-run')) == same_places(TOSC_RUN)


def test_arguments_that_are_no_utf8(tmp_path):
    code = 'import sys; print(ascii(sys.argv))'
    for variables in {}, {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX', 'PYTHONUTF8': '0'}:
        assert same('-c', code, b'\xff\xfea', 'ä', env=variables).status == 0
    path = os.fsencode(tmp_path) + b'/\xff.py'
    with open(path, 'wb') as file:
        file.write(b'import sys; print(ascii(sys.argv), ascii(__file__))')
    assert same(path, b'\x80').status == 0


# ---- sys.executable, and processes that a script starts ----

def test_executable_by_absolute_path():
    assert say('sys.executable') == TOSC_RUN


def test_executable_by_relative_path():
    directory, name = os.path.split(TOSC_RUN)
    assert say('sys.executable', program=f'./{name}', cwd=directory) == TOSC_RUN
    above, parent = os.path.split(directory)
    assert say('sys.executable', program=f'{parent}/{name}', cwd=above) == TOSC_RUN


def test_executable_through_a_link(tmp_path):
    link = tmp_path / 'other-name'
    link.symlink_to(TOSC_RUN)
    assert say('sys.executable', program=str(link)) == str(link)


@pytest.mark.parametrize('entries', ['{}', '/no/such:{}', ':/no/such', '/no/such::', '.',
                                     '/usr/bin:{}'])
def test_executable_by_the_path(entries, tmp_path):
    (tmp_path / 'tosc-linked').symlink_to(TOSC_RUN)
    shell = 'PATH=$1; exec tosc-linked -c "import sys; print(sys.executable)"'
    ended = subprocess.run(['/bin/bash', '-c', shell, 'bash', entries.format(tmp_path)],
                           cwd=tmp_path, capture_output=True, check=True, timeout=SECONDS,
                           env=environment())
    assert ended.stdout.decode().strip() == str(tmp_path / 'tosc-linked')


@pytest.mark.parametrize('name', ['', 'python3', '/usr/bin/python3', 'no-such', './x', '-sh'])
def test_executable_under_a_false_name(name):
    ended = subprocess.run([name, '-c', 'import sys; print(sys.executable, sys.prefix)'],
                           executable=TOSC_RUN, capture_output=True, check=True,
                           env=environment(), timeout=SECONDS)
    expected = f'{os.path.realpath(TOSC_RUN)} {say("sys.prefix")}'
    assert ended.stdout.decode().strip() == expected


def test_executable_in_a_directory_that_is_no_utf8(tmp_path):
    directory = os.fsencode(tmp_path) + b'/\xe4'
    os.mkdir(directory)
    os.symlink(TOSC_RUN, directory + b'/tosc-run')
    ended = run(directory + b'/tosc-run', '-c',
                'import os, sys; sys.stdout.buffer.write(os.fsencode(sys.executable))')
    assert ended == Result(0, directory + b'/tosc-run', b'')


def test_subprocess_has_tosc():
    code = ('import subprocess, sys; print(subprocess.run([sys.executable, "-I", "-c",'
            ' "import tosc; print(tosc.__name__)"], capture_output=True).stdout)')
    assert run(TOSC_RUN, '-c', code).out == b"b'tosc\\n'\n"


PROCESSES = '''
import concurrent.futures, multiprocessing, sys

def work(number):
    import tosc
    return number, tosc.__name__, sys.executable, sys.prefix, sys.flags.dev_mode

if __name__ == '__main__':
    method = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(2, method) as pool:
        results = list(pool.map(work, range(4)))
    assert [result[0] for result in results] == list(range(4))
    assert len({result[1:] for result in results}) == 1
    print(*results[0][1:], multiprocessing.active_children())
    process = method.Process(target=sys.exit, args=(5,))
    process.start()
    process.join()
    print(process.exitcode)
'''


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
@pytest.mark.parametrize('options', [[], ['-I', '-X', 'dev', '-W', 'error']], ids=' '.join)
def test_multiprocessing(script, tmp_path, method, options):
    (tmp_path / 'link').symlink_to(TOSC_RUN)
    path = script(PROCESSES)
    for program in TOSC_RUN, str(tmp_path / 'link'):
        ended = run(program, *options, path, method, cwd='/')
        assert ended.out.decode() == \
            f'tosc {program} {sys.base_prefix} {bool(options)} []\n5\n', ended


# ---- virtual environments ----

@pytest.fixture(scope='module', params=[[], ['--system-site-packages']], ids=' '.join)
def venv(request, tmp_path_factory):
    """An environment that holds a module, a .pth file, and a script that lists its sys.path."""
    path = tmp_path_factory.mktemp('environments') / 'my env'
    subprocess.run([PYTHON, '-m', 'venv', '--without-pip', *request.param, path], check=True,
                   env=environment(), timeout=SECONDS)
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    packages = path / 'lib' / version / 'site-packages'
    (packages / 'in_venv.py').write_text('here = True')
    (packages / 'more.pth').write_text('/usr/share\nimport sys; sys.times = 1 + getattr(sys,'
                                       ' "times", 0)\n')
    return str(path)


@pytest.mark.parametrize('options', [[], ['-I'], ['-s'], ['-S'], ['-E'], ['-X', 'dev']],
                         ids=' '.join)
def test_virtual_env_is_what_its_python_makes_of_it(venv, options):
    variables = {'VIRTUAL_ENV': venv}
    expected = same_places(f'{venv}/bin/python3', *options, env=variables)
    assert same_places(TOSC_RUN, *options, env=variables) == expected
    assert say('sys.executable', *options, env=variables) == TOSC_RUN


def test_packages_of_the_virtual_env_are_found(venv):
    variables = {'VIRTUAL_ENV': venv}
    seen = 'sys.prefix, __import__("in_venv").here, sys.times'
    assert say(seen, env=variables) == say(seen, program=f'{venv}/bin/python3')
    assert say('__import__("tosc").__name__', env=variables) == 'tosc'


def test_link_in_a_virtual_env(venv):
    link = os.path.join(venv, 'bin', 'tosc-linked')
    if not os.path.lexists(link):
        os.symlink(TOSC_RUN, link)
    expected = same_places(f'{venv}/bin/python3')
    assert same_places(link) == expected
    assert same_places(link, env={'VIRTUAL_ENV': '/no/such'}) == expected
    assert say('sys.executable', program=link) == link


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_multiprocessing_in_a_virtual_env(venv, script, method):
    ended = run(TOSC_RUN, script(PROCESSES), method, env={'VIRTUAL_ENV': venv})
    assert ended.out.decode() == f'tosc {TOSC_RUN} {venv} False []\n5\n', ended


@pytest.mark.parametrize('value', ['/no/such', '/tmp', 'relative', '/etc/passwd'])
def test_virtual_env_that_is_none_is_ignored_with_a_word(value):
    ended = run(TOSC_RUN, '-c', PLACES, env={'VIRTUAL_ENV': value})
    assert ended.out == same_places(TOSC_RUN)
    assert value.encode() in ended.last_line and b'VIRTUAL_ENV is ignored' in ended.last_line


def test_empty_virtual_env_is_none():
    assert run(TOSC_RUN, '-c', '', env={'VIRTUAL_ENV': ''}) == Result(0, b'', b'')


def test_virtual_env_of_another_python_is_ignored_with_a_word(tmp_path):
    (tmp_path / 'pyvenv.cfg').write_text('home = /usr/bin\nversion = 3.7.1\n')
    (tmp_path / 'lib' / 'python3.7' / 'site-packages').mkdir(parents=True)
    ended = run(TOSC_RUN, '-c', 'import sys; print(sys.prefix)', env={'VIRTUAL_ENV': str(tmp_path)})
    assert ended.out.decode() == sys.base_prefix + '\n'
    assert b'is not a virtual environment of Python' in ended.last_line


def test_environments_that_it_makes_are_those_that_python3_makes(tmp_path):
    for program, name in (PYTHON, 'a'), (TOSC_RUN, 'b'):
        ended = run(program, '-m', 'venv', '--without-pip', str(tmp_path / name))
        assert ended == Result(0, b'', b'')
    made = {name: {entry: os.path.realpath(tmp_path / name / 'bin' / entry)
                   for entry in os.listdir(tmp_path / name / 'bin') if entry[:6] == 'python'}
            for name in 'ab'}
    assert made['a'] == made['b']


# ---- itself ----

def test_the_module_is_built_in():
    assert say('"tosc" in sys.builtin_module_names, __import__("tosc").__spec__.origin',
               '-I') == 'True built-in'


def test_a_file_of_that_name_does_not_hide_it(script, tmp_path):
    script('raise SystemExit("wrong one")', name='tosc.py')
    assert run(TOSC_RUN, '-c', 'import tosc', cwd=tmp_path) == Result(0, b'', b'')


@pytest.mark.parametrize('options', [['-V'], ['--version'], ['-bV'], ['-X', 'dev', '-V'],
                                     ['-V', 'script.py'], ['-V', '-c', 'x'], ['-Wx', '-VV'],
                                     ['--check-hash-based-pycs', 'never', '-V'], ['-V', '--']],
                         ids=' '.join)
def test_version_names_both(options):
    expected = run(PYTHON, *options)
    ended = run(TOSC_RUN, *options)
    ours, _, pythons = ended.out.partition(b'\n')
    assert re.fullmatch(rb'libtosc \d+\.\d+\.\d+\S*', ours)
    assert Result(ended.status, pythons, ended.last_line) == expected


@pytest.mark.parametrize('options', [['-h'], ['--help'], ['-?'], ['-Vh'], ['-V', '--help']],
                         ids=' '.join)
def test_help_comes_before_pythons_own(options):
    expected = run(PYTHON, *options)
    ended = run(TOSC_RUN, *options)
    ours, _, pythons = ended.out.partition(b'\n\n')
    assert ours.startswith(b'tosc-run (libtosc ') and b'tosc-run(1)' in ours
    assert pythons.split(b'\n', 1)[1] == expected.out.split(b'\n', 1)[1]
    assert (ended.status, ended.last_line) == (0, b'')


def test_options_of_the_script_are_the_scripts(script):
    for args in [script(SEEN), '-V'], ['-c', SEEN, '--version'], ['-', '-h'], ['--', '-V']:
        same(*args, stdin=SEEN.encode())


# ---- at a terminal ----

class Terminal:
    """An interactive session on a pseudo-terminal."""

    def __init__(self, program):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(program, [program, '-q', '-I'], environment(TERM='dumb'))
        self.text = b''

    def expect(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, (text, self.text)
            self.text += os.read(self.fd, 4096)
        self.text = self.text.partition(text)[2]

    def send(self, text):
        os.write(self.fd, text)

    def status(self):
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:  # EIO: the other side is closed
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize('program', [PYTHON, TOSC_RUN])
def test_session_at_a_terminal(program):
    session = Terminal(program)
    session.expect(b'>>> ')
    session.send(b'print(6 * 7)\n')
    session.expect(b'\n42')
    session.expect(b'>>> ')
    session.send(b'import time; print("sl" + "eep"); time.sleep(100)\n')
    session.expect(b'\nsleep')
    session.send(b'\x03')
    session.expect(b'KeyboardInterrupt')
    session.expect(b'>>> ')
    session.send(b'raise SystemExit(5)\n')
    assert session.status() == 5


@pytest.mark.parametrize('program', [PYTHON, TOSC_RUN])
def test_end_of_file_at_a_terminal_ends_the_session(program):
    session = Terminal(program)
    session.expect(b'>>> ')
    session.send(b'\x04')
    assert session.status() == 0
