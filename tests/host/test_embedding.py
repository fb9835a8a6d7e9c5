"""The programs of docs/embedding.md and of the manual pages compile, run, and print what is said.

How to compile is given by the Makefile: TOSC_EMBED (compiler and flags) and TOSC_EMBED_LIBS.
"""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest
from harness import SCALE

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / 'docs/embedding.md').read_text()
COMPILE = [*shlex.split(os.environ['TOSC_EMBED']), '-Wall', '-Wextra', '-Werror', '-pthread']
LIBRARIES = shlex.split(os.environ['TOSC_EMBED_LIBS'])
PYTHON = ['-I' + sysconfig.get_path('include')]
PYTHON_LIBRARIES = ['-L' + sysconfig.get_config_var('LIBDIR'),
                    '-lpython' + sysconfig.get_config_var('LDVERSION')]


def blocks(language, opening):
    """{file name: text} of the blocks that begin with their name in a comment."""
    pattern = rf'^```{language}\n({opening} (\S+).*?)^```$'
    return {name: text for text, name in re.findall(pattern, TUTORIAL, re.DOTALL | re.MULTILINE)}


PROGRAMS = blocks('c', r'/\*')
SCRIPTS = blocks('python', '#')


def build(source, program):
    uses_python = '<Python.h>' in source.read_text()
    command = [*COMPILE, *(PYTHON if uses_python else []), str(source), '-o', str(program),
               *LIBRARIES, *(PYTHON_LIBRARIES if uses_python else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 * SCALE, check=False)
    assert done.returncode == 0, f'{shlex.join(command)}\n{done.stderr}'


def run(program, directory):
    done = subprocess.run([program], cwd=directory, capture_output=True, text=True,
                          timeout=60 * SCALE, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promised(name):
    """What the page says that ./name prints, once for each time that it is run."""
    return [''.join(line[4:] for line in text.splitlines(keepends=True))
            for text in re.findall(rf'^    \$ \./{name}\n((?:    [^$\n].*\n)+)', TUTORIAL,
                                   re.MULTILINE)]


def test_every_block_is_a_program_or_a_script():
    assert len(PROGRAMS) == TUTORIAL.count('```c\n') >= 8
    assert len(SCRIPTS) == TUTORIAL.count('```python\n') > 0
    for text in PROGRAMS.values():
        assert 'int\nmain(void)\n' in text


@pytest.mark.parametrize('name', PROGRAMS)
def test_a_program_of_the_tutorial_prints_what_is_said(name, tmp_path):
    (tmp_path / name).write_text(PROGRAMS[name])
    for script, text in SCRIPTS.items():
        (tmp_path / script).write_text(text)
    program = tmp_path / name.removesuffix('.c')
    build(tmp_path / name, program)
    expected = promised(program.name)
    assert expected
    for text in expected:
        assert run(program, tmp_path) == text


# ---- manual pages ----

PAGES = sorted((ROOT / 'man').glob('*.3'))


def displays(page):
    """The literal displays of a page, as text."""
    for text in re.findall(r'^\.Bd -literal.*?\n(.*?)^\.Ed', page.read_text(),
                           re.DOTALL | re.MULTILINE):
        yield text.replace('\\e', '\\').replace('\\-', '-')


MANUAL_PROGRAMS = [(page.name, text) for page in PAGES for text in displays(page)
                   if 'int\nmain(' in text]


@pytest.mark.parametrize('page, text', MANUAL_PROGRAMS, ids=[page for page, _ in MANUAL_PROGRAMS])
def test_a_program_of_a_manual_page_runs(page, text, tmp_path):
    del page
    assert not re.search(r'^\.', text, re.MULTILINE)
    source = tmp_path / 'program.c'
    source.write_text(text.replace('/tmp/runs.tosc', str(tmp_path / 'store')))
    build(source, tmp_path / 'program')
    assert run(tmp_path / 'program', tmp_path) in ('Hello, Ann!\n', 'This is run number 1.\n')


def spaced(text):
    return re.sub(r'\s*([(),*])\s*', r'\1', ' '.join(text.split()))


def declared():
    """{name: 'int tosc_x(int a,char*b)'} of all that the headers declare."""
    found = {}
    for header in [*(ROOT / 'include/tosc').glob('*.h'), ROOT / 'include/tosc/sys/backend.h']:
        text = re.sub(r'/\*.*?\*/', '', header.read_text(), flags=re.DOTALL)
        text = re.sub(r'^#(.*\\\n)*.*\n', '', text, flags=re.MULTILINE)
        for match in re.finditer(r'(?<![\w(*,\s])\s*((?:static inline )?(?:[\w]+[\s*]+)+?'
                                 r'\(?\*?(tosc_\w+)\)?\s*\([^()]*\))(?: [A-Z_]+)?\s*[;{]',
                                 text):
            found[match[2]] = spaced(match[1].replace('static inline ', ''))
    return found


def test_prototypes_in_the_manual_pages_are_those_of_the_headers():
    headers = declared()
    compared = set()
    for page in PAGES:
        synopsis = page.read_text().split('.Sh SYNOPSIS\n')[1].split('.Sh DESCRIPTION')[0]
        for kind, rest in re.findall(r'^\.Ft (.*)\n((?:\.Fn .*\n)|(?:\.Fo (?:.*\n)*?\.Fc\n))',
                                     synopsis, re.MULTILINE):
            words = [quoted or word for quoted, word in re.findall(
                r'"([^"]*)"|(\S+)', re.sub(r'^\.(Fn|Fo|Fa|Fc) ?', '', rest, flags=re.MULTILINE))]
            name, arguments = words[0], words[1:]
            shown = spaced(f'{kind} {name}({", ".join(arguments)})')
            name = name.strip('(*)')
            assert shown == headers[name], page.name
            compared.add(name)
    assert len(compared) > 100
