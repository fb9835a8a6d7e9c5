/*
 * Running scripts, and what becomes of their exceptions.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tosc/tosc.h>

#include "support.h"

/* ---- files, modules, strings ---- */

START_TEST(file_runs_as_with_python3)
{
    const char *const argv[] = {"one", "two", NULL};
    const char *path =
        script("main.py", "import sys, beside\n"
                          "result = [__name__, __file__, sys.argv, beside.x]\n"
                          "def later():\n"
                          "    import beside2\n"
                          "    return beside2.y\n");
    script("beside.py", "x = 5\n");
    script("beside2.py", "y = 6\n");
    host_start();
    ok(tosc_host_run_file(path, argv));
    char *wanted = NULL;
    must(asprintf(&wanted, "['__main__', '%s', ['%s', 'one', 'two'], 5]", path, path)
         > 0);
    char *result = python_text("result");
    ck_assert_str_eq(result, wanted);
    free(result);
    free(wanted);
    ck_assert_int_eq(python_int("later()"), 6); /* its directory is still searched */
    ck_assert(python_true("__import__('sys').modules['__main__'].__dict__ is globals()"));
    host_stop();
}
END_TEST

START_TEST(relative_path_is_taken_from_the_working_directory)
{
    script("main.py", "import sys; a = sys.argv; f = __file__; p = sys.path[0]\n");
    ck_assert_int_eq(chdir(directory()), 0);
    host_start();
    ok(tosc_host_run_file("main.py", NULL));
    ck_assert(python_true("a == ['main.py']"));
    ck_assert(python_true("f == p + '/main.py' and f[0] == '/'"));
    host_stop();
}
END_TEST

START_TEST(each_file_has_a_fresh_main)
{
    const char *one = script("one.py", "mine = 1\n");
    mkdir(path_in("other"), 0700);
    const char *two = script("other/two.py", "import sys; path = list(sys.path)\n"
                                             "names = set(globals())\n");
    host_start();
    ok(tosc_host_run_file(one, NULL));
    python("import sys; before = len(sys.path)");
    const int64_t before = python_int("before");
    ok(tosc_host_run_file(two, NULL));
    ck_assert(python_true("'mine' not in names and 'sys' in names"));
    ck_assert_int_eq(python_int("len(path)"), before);
    char *first = python_text("path[0]");
    ck_assert(strstr(first, "/other") != NULL);
    free(first);
    host_stop();
}
END_TEST

START_TEST(directory_and_zip_with_a_main_run)
{
    char *text = NULL;
    host_start();
    mkdir(path_in("app"), 0700);
    script("app/__main__.py",
           "import part; import sys; got = (part.x, sys.path[0], __name__)\n");
    script("app/part.py", "x = 3\n");
    ok(tosc_host_run_file(path_in("app"), NULL));
    ck_assert(
        python_true("got[0] == 3 and got[1].endswith('/app') and got[2] == '__main__'"));
    must(asprintf(&text,
                  "import zipfile\n"
                  "z = zipfile.ZipFile('%s', 'w')\n"
                  "z.writestr('__main__.py', 'import zipped; got = zipped.x')\n"
                  "z.writestr('zipped.py', 'x = 4')\n"
                  "z.close()\n",
                  path_in("app.zip"))
         > 0);
    python(text);
    free(text);
    ok(tosc_host_run_file(path_in("app.zip"), NULL));
    ck_assert_int_eq(python_int("got"), 4);
    mkdir(path_in("empty"), 0700);
    fails(TOSC_ENOTFOUND, tosc_host_run_file(path_in("empty"), NULL));
    told("__main__.py");
    host_stop();
}
END_TEST

START_TEST(module_runs_as_with_dash_m)
{
    const char *const path[] = {directory(), NULL};
    const char *const argv[] = {"x", NULL};
    const tosc_host_options options = {.search_path = path,
                                       .executable = tosc_run_path()};
    script("tool.py",
           "import sys; got = (__name__, sys.argv[1:], __spec__.name, __file__)\n");
    mkdir(path_in("package"), 0700);
    script("package/__init__.py", "");
    script("package/__main__.py", "from . import inner; got = inner.z, __package__\n");
    script("package/inner.py", "z = 9\n");
    mkdir(path_in("bare"), 0700);
    script("bare/__init__.py", "");
    script("broken.py", "import not_to_be_found\n");
    ok(tosc_host_start(&options));
    ok(tosc_host_run_module("tool", argv));
    ck_assert(python_true(
        "got[:3] == ('__main__', ['x'], 'tool') and got[3].endswith('/tool.py')"));
    ok(tosc_host_run_module("package", NULL));
    ck_assert(python_true("got == (9, 'package')"));
    ok(tosc_host_run_module("package.inner", NULL));
    ck_assert_int_eq(python_int("z"), 9);
    fails(TOSC_ENOTFOUND, tosc_host_run_module("no_such_module", NULL));
    told("no_such_module");
    fails(TOSC_ENOTFOUND, tosc_host_run_module("no_such.module", NULL));
    fails(TOSC_ENOTFOUND, tosc_host_run_module("bare", NULL));
    fails(TOSC_ENOTFOUND, tosc_host_run_module("sys", NULL));
    fails(TOSC_EPYTHON, tosc_host_run_module("broken", NULL));
    told_type("ModuleNotFoundError");
    host_stop();
}
END_TEST

START_TEST(strings_share_main_and_are_named_in_tracebacks)
{
    host_start();
    python("x = 1");
    python("x += 1\ndef f():\n    return undefined_name\n");
    ck_assert_int_eq(python_int("  x"), 2);
    fails(TOSC_EPYTHON, tosc_host_run_string("f()", "console"));
    told_traceback("File \"console\", line 1");
    told_traceback("File \"test\", line 3, in f");
    told_type("NameError");
    ok(tosc_host_run_string("", NULL));
    ok(tosc_host_run_string("# nothing\n", NULL));
    host_stop();
}
END_TEST

START_TEST(expression_gives_its_value)
{
    tosc_value *value = NULL;
    int64_t number = 0;
    host_start();
    ok(tosc_host_eval("\n 6 * 7", &value));
    ok(tosc_get_int64(value, tosc_self(), &number));
    ck_assert_int_eq(number, 42);
    tosc_value_unref(value);
    value = NULL;
    fails(TOSC_EPYTHON, tosc_host_eval("x = 1", &value));
    told_type("SyntaxError");
    fails(TOSC_EPYTHON, tosc_host_eval("", &value));
    fails(TOSC_EPYTHON, tosc_host_eval("[].pop()", &value));
    told_type("IndexError");
    ck_assert_ptr_null(value);
    host_stop();
}
END_TEST

START_TEST(file_that_is_not_there_is_the_systems_fault)
{
    host_start();
    fails(TOSC_ESYSTEM, tosc_host_run_file(path_in("nothing.py"), NULL));
    ck_assert_int_eq(tosc_error_errno(), ENOENT);
    ck_assert_str_eq(tosc_error_path(), path_in("nothing.py"));
    told("nothing.py");
    host_stop();
}
END_TEST

/* ---- finding and calling ---- */

START_TEST(functions_are_found_and_called)
{
    tosc_value *function = NULL;
    tosc_value *result = NULL;
    tosc_value *values[2];
    tosc_value *named = NULL;
    int64_t number = 0;
    const char *path =
        script("main.py", "class A:\n"
                          "    class B:\n"
                          "        @staticmethod\n"
                          "        def f(a, b=10, *rest, c=0): return a + b + c\n"
                          "def g(): return None\n"
                          "plain = 3\n");
    host_start();
    ok(tosc_host_run_file(path, NULL));
    ok(tosc_host_find("__main__:A.B.f", &function));
    ok(tosc_value_new_int64(1, &values[0]));
    ok(tosc_value_new_int64(2, &values[1]));
    ok(tosc_call(function, &(tosc_arguments){.values = values, .count = 2}, &result));
    ok(tosc_get_int64(result, tosc_self(), &number));
    ck_assert_int_eq(number, 3);
    result = tosc_value_unref(result);
    ok(tosc_value_new_dict(&named));
    ok(tosc_set_int64(named, tosc_key("c"), 100));
    ok(tosc_call(function,
                 &(tosc_arguments){.values = values, .count = 1, .named = named},
                 &result));
    ok(tosc_get_int64(result, tosc_self(), &number));
    ck_assert_int_eq(number, 111);
    result = tosc_value_unref(result);
    ok(tosc_call(function, &(tosc_arguments){.values = values, .count = 1}, NULL));
    ok(tosc_host_call("__main__:g", NULL, &result));
    ck_assert_int_eq(tosc_type_of(result, tosc_self()), TOSC_NULL);
    result = tosc_value_unref(result);
    ok(tosc_host_call("math:factorial", &(tosc_arguments){.values = values, .count = 1},
                      &result));
    result = tosc_value_unref(result);
    /* one that is there, but wrong */
    fails(TOSC_ETYPE, tosc_host_call("__main__:plain", NULL, &result));
    fails(TOSC_EPYTHON, tosc_call(function, NULL, &result));
    told_type("TypeError");
    fails(TOSC_ETYPE,
          tosc_call(function,
                    &(tosc_arguments){.values = values, .count = 1, .named = values[0]},
                    &result));
    fails(TOSC_ENOTFOUND, tosc_host_call("__main__:nothing", NULL, &result));
    told("nothing");
    fails(TOSC_ENOTFOUND, tosc_host_call("nowhere:f", NULL, &result));
    told("nowhere");
    fails(TOSC_ENOTFOUND, tosc_host_find("__main__:A.nothing.f", &result));
    ok(tosc_call_method(named, "keys", NULL, &result));
    result = tosc_value_unref(result);
    fails(TOSC_ENOTFOUND, tosc_call_method(named, "nothing", NULL, &result));
    ck_assert_ptr_null(result);
    /* the function outlives its script */
    ok(tosc_host_run_file(script("other.py", "pass\n"), NULL));
    ok(tosc_call(function, &(tosc_arguments){.values = values, .count = 2}, NULL));
    tosc_value_unref(function);
    fails(TOSC_EINVAL, tosc_call(function, NULL, NULL));
    tosc_value_unref(values[0]);
    tosc_value_unref(values[1]);
    tosc_value_unref(named);
    host_stop();
}
END_TEST

START_TEST(many_arguments_arrive)
{
    tosc_value *values[50];
    tosc_value *result = NULL;
    int64_t sum = 0;
    host_start();
    for (int i = 0; i < 50; i++) {
        ok(tosc_value_new_int64(i, &values[i]));
    }
    python("def add(*numbers): return sum(numbers)");
    ok(tosc_host_call("__main__:add", &(tosc_arguments){.values = values, .count = 50},
                      &result));
    ok(tosc_get_int64(result, tosc_self(), &sum));
    ck_assert_int_eq(sum, 1225);
    values[7] = tosc_value_unref(values[7]);
    fails(TOSC_EINVAL,
          tosc_host_call("__main__:add", &(tosc_arguments){.values = values, .count = 50},
                         &result));
    host_stop();
}
END_TEST

/* ---- exceptions ---- */

START_TEST(exception_has_type_message_and_traceback)
{
    const char *path = script("policy.py", "class Refused(Exception): pass\n"
                                           "def decide(n):\n"
                                           "    raise Refused(f'no: {n}')\n"
                                           "if __name__ == '__main__':\n"
                                           "    decide(3)\n");
    const char *const search[] = {directory(), NULL};
    const tosc_host_options options = {.search_path = search,
                                       .executable = tosc_run_path()};
    ok(tosc_host_start(&options));
    fails(TOSC_EPYTHON, tosc_host_run_file(path, NULL));
    ck_assert_str_eq(tosc_error_message(), "no: 3");
    told_type("Refused");
    told_traceback("Traceback (most recent call last):");
    told_traceback("policy.py\", line 3, in decide\n    raise Refused(f'no: {n}')\n");
    told_traceback("Refused: no: 3\n");
    ck_assert_ptr_null(strstr(tosc_error_traceback(), "runpy"));
    fails(TOSC_EPYTHON, tosc_host_run_string("import policy; policy.decide(4)", NULL));
    told_type("policy.Refused");
    fails(TOSC_EPYTHON, tosc_host_run_string("{}['key']", NULL));
    ck_assert_str_eq(tosc_error_message(), "KeyError: 'key'");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise ValueError", NULL));
    ck_assert_str_eq(tosc_error_message(), "ValueError");
    fails(TOSC_EPYTHON,
          tosc_host_run_string("try:\n    1/0\n"
                               "except Exception as e:\n"
                               "    raise OSError(5, 'bad', '/x/y') from e\n",
                               NULL));
    ck_assert_int_eq(tosc_error_errno(), 5);
    ck_assert_str_eq(tosc_error_path(), "/x/y");
    told_traceback("ZeroDivisionError");
    told_traceback("direct cause");
    host_stop();
}
END_TEST

START_TEST(syntax_errors_show_the_line)
{
    const char *path = script("bad.py", "x = 1\nif x\n    y\n");
    host_start();
    fails(TOSC_EPYTHON, tosc_host_run_file(path, NULL));
    told_type("SyntaxError");
    told("bad.py, line 2");
    told_traceback("    if x\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("  x = 1", NULL));
    told_type("IndentationError");
    script("null.py", "");
    FILE *file = fopen(path_in("null.py"), "we");
    fwrite("x = 1\0y = 2\n", 1, 12, file);
    fclose(file);
    fails(TOSC_EPYTHON, tosc_host_run_file(path_in("null.py"), NULL));
    told("null bytes");
    fails(TOSC_EPYTHON,
          tosc_host_run_file(script("enc.py", "# coding: no-such\n"), NULL));
    told_type("SyntaxError");
    ok(tosc_host_run_file(script("latin.py", "# coding: latin-1\nx = '\344'\n"), NULL));
    ck_assert(python_true("x == chr(0xe4)"));
    ok(tosc_host_run_file(script("bom.py", "\357\273\277x = 8\n"), NULL));
    ck_assert_int_eq(python_int("x"), 8);
    host_stop();
}
END_TEST

static void
exits(int exit_status, const char *source)
{
    fails(TOSC_EEXIT, tosc_host_run_string(source, NULL));
    ck_assert_int_eq(tosc_error_exit_status(), exit_status);
    told_type("SystemExit");
}

START_TEST(system_exit_is_a_status)
{
    tosc_value *value = NULL;
    host_start();
    ok(tosc_host_run_string("raise ValueError", NULL) == TOSC_EPYTHON ? 0 : -1);
    python("import sys; sys.exit()");
    python("sys.exit(0)");
    python("sys.exit(None)");
    python("raise SystemExit");
    python("sys.exit(False)");
    python("exit()" /* site's */);
    told_type("ValueError"); /* success leaves the last fault alone */
    exits(3, "sys.exit(3)");
    told("exit status 3");
    exits(255, "sys.exit(-1)");
    exits(1, "sys.exit(True)");
    exits(1, "sys.exit(257)");
    exits(255, "sys.exit(10**30)");
    exits(1, "sys.exit('give up')");
    ck_assert_str_eq(tosc_error_message(), "give up");
    exits(1, "sys.exit((1, 2))");
    exits(1, "sys.exit(1.5)");
    python("sys.exit(256)"); /* what is left of it is 0 */
    fails(TOSC_EEXIT, tosc_host_eval("sys.exit(0)", &value));
    ck_assert_int_eq(tosc_error_exit_status(), 0);
    ok(tosc_host_run_file(script("well.py", "import sys\nsys.exit(0)\n"), NULL));
    fails(TOSC_EEXIT,
          tosc_host_run_file(script("ill.py", "import sys\nsys.exit(4)\n"), NULL));
    ck_assert_int_eq(tosc_error_exit_status(), 4);
    told_traceback("ill.py\", line 2");
    fails(TOSC_EPYTHON, tosc_host_run_string("1/0", NULL));
    ck_assert_int_eq(tosc_error_exit_status(), 0);
    host_stop();
}
END_TEST

START_TEST(keyboard_interrupt_is_a_status)
{
    host_start();
    fails(TOSC_EINTR, tosc_host_run_string("raise KeyboardInterrupt", NULL));
    told_type("KeyboardInterrupt");
    told_traceback("KeyboardInterrupt");
    host_stop();
}
END_TEST

START_TEST(exceptions_that_cannot_be_shown_are_told_nevertheless)
{
    host_start();
    python("class Mute(Exception):\n"
           "    def __str__(self): raise RuntimeError('no text')\n"
           "class Odd(Exception):\n"
           "    def __str__(self): return 5\n"
           "class Null(Exception):\n"
           "    def __str__(self): return 'a\\0b'\n"
           "class Meta(type):\n"
           "    def __getattribute__(cls, name): raise RuntimeError(name)\n"
           "class Hidden(Exception, metaclass=Meta): pass\n"
           "class Surrogate(Exception): pass\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Mute()", NULL));
    told("Mute");
    told_traceback("Mute");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Odd()", NULL));
    told("Odd");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Null()", NULL));
    ck_assert_str_eq(tosc_error_message(), "a");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Hidden()", NULL));
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Surrogate('\\udcff\\ud800')", NULL));
    told("\\udcff");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Surrogate('\\udcff')", NULL));
    ck_assert_str_eq(tosc_error_message(), "\377");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise Surrogate('\u00e4' * 5000)", NULL));
    ck_assert_uint_eq(strlen(tosc_error_message()), 1000);
    python("raise_in_del = type('D', (), {'__del__': lambda self: 1/0})\n"
           "import sys; sys.unraisablehook = lambda u: None\n"
           "raise_in_del()\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("def f(): f()\nf()", NULL));
    told_type("RecursionError");
    fails(TOSC_ENOMEM, tosc_host_run_string("raise MemoryError('much')", NULL));
    told_type("MemoryError");
    told_traceback("MemoryError");
    if (!sanitized()) { /* these take it for a fault of ours */
        fails(TOSC_ENOMEM, tosc_host_run_string("x = b'x' * (1 << 60)", NULL));
    }
    fails(TOSC_EPYTHON,
          tosc_host_run_string("raise ExceptionGroup('g', [ValueError(1)])", NULL));
    told_traceback("ValueError");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise BaseException('base')", NULL));
    told_type("BaseException");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise 5", NULL));
    told_type("TypeError");
    python("sys.modules['traceback'] = None");
    fails(TOSC_EPYTHON, tosc_host_run_string("raise ValueError('still')", NULL));
    ck_assert_str_eq(tosc_error_message(), "still");
    told_type("ValueError");
    python("sys.stdout = None; sys.stderr = 3");
    fails(TOSC_EPYTHON,
          tosc_host_run_string("del sys.stdout; raise ValueError('still')", NULL));
    host_stop();
}
END_TEST

START_TEST(exceptions_of_the_module_are_their_codes)
{
    static const struct {
        const char *raise;
        int status;
        const char *type;
    } cases[] = {
        {"tosc.TransactionError('x')", TOSC_ECONFLICT, "tosc.TransactionError"},
        {"tosc.TransactionRetryError('x')", TOSC_ERETRY, "tosc.TransactionRetryError"},
        {"tosc.TransactionTimeoutError('x')", TOSC_ETIMEDOUT,
         "tosc.TransactionTimeoutError"},
        {"tosc.SerializationError('x')", TOSC_ESERIALIZE, "tosc.SerializationError"},
        {"tosc.DataError('x')", TOSC_ECORRUPT, "tosc.DataError"},
        {"tosc.UnknownOutcomeError('x')", TOSC_EUNKNOWN, "tosc.UnknownOutcomeError"},
        {"tosc.ClosedError('x')", TOSC_ECLOSED, "tosc.ClosedError"},
        {"tosc.EmptyStoreError('x')", TOSC_ENOTFOUND, "tosc.EmptyStoreError"},
        {"tosc.StorageError('x')", TOSC_ESYSTEM, "tosc.StorageError"},
        {"tosc.Error('x')", TOSC_EPYTHON, "tosc.Error"},
    };
    host_start();
    python("import tosc");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = NULL;
        must(asprintf(&text, "raise %s", cases[i].raise) > 0);
        fails(cases[i].status, tosc_host_run_string(text, NULL));
        ck_assert_str_eq(tosc_error_message(), "x");
        told_type(cases[i].type);
        told_traceback(cases[i].type);
        free(text);
    }
    fails(TOSC_ESYSTEM,
          tosc_host_run_string("raise tosc.StorageError(28, 'full', '/a/b')", NULL));
    ck_assert_int_eq(tosc_error_errno(), ENOSPC);
    ck_assert_str_eq(tosc_error_path(), "/a/b");
    fails(TOSC_ENOTFOUND,
          tosc_host_run_string("tosc.Manager(tosc.InprocBackend()).read()", NULL));
    host_stop();
}
END_TEST

START_TEST(later_faults_replace_what_python_told)
{
    tosc_backend *backend = NULL;
    host_start();
    fails(TOSC_EPYTHON, tosc_host_run_string("1/0", NULL));
    told_type("ZeroDivisionError");
    fails(TOSC_EINVAL, tosc_backend_file_new("", NULL, &backend));
    ck_assert_str_eq(tosc_error_type(), "");
    ck_assert_str_eq(tosc_error_traceback(), "");
    host_stop();
}
END_TEST

static void *
see_nothing(void *arg)
{
    (void)arg;
    must(strcmp(tosc_error_type(), "") == 0);
    must(tosc_host_run_string("raise KeyError(1)", NULL) == TOSC_EPYTHON);
    must(strcmp(tosc_error_type(), "KeyError") == 0);
    return NULL;
}

START_TEST(faults_are_each_threads_own)
{
    host_start();
    fails(TOSC_EPYTHON, tosc_host_run_string("1/0", NULL));
    in_threads(4, see_nothing, NULL);
    told_type("ZeroDivisionError");
    host_stop();
}
END_TEST

START_TEST(exception_keeps_nothing_alive)
{
    host_start();
    python("import gc\n"
           "ended = 0\n"
           "class Big:\n"
           "    def __del__(self):\n"
           "        global ended\n"
           "        ended += 1\n"
           "def f():\n"
           "    big = Big()\n"
           "    1/0\n");
    fails(TOSC_EPYTHON, tosc_host_run_string("f()", NULL));
    ck_assert_int_eq(python_int("ended"), 1);
    host_stop();
}
END_TEST

/* ---- interrupting ---- */

static void *
run_for_ever(void *arg)
{
    must(tosc_host_run_string(arg, NULL) == TOSC_EINTR);
    must(strcmp(tosc_error_type(), "KeyboardInterrupt") == 0);
    must(tosc_host_run_string("sum(range(100000))", NULL) == 0); /* only that run */
    return NULL;
}

START_TEST(interrupt_ends_all_runs)
{
    pthread_t threads[4];
    host_start();
    python("running = 0");
    for (int i = 0; i < 4; i++) {
        must(pthread_create(&threads[i], NULL, run_for_ever,
                            "running += 1\nwhile True: pass\n")
             == 0);
    }
    while (python_int("running") < 4) {
        sleep_us(1000);
    }
    ok(tosc_host_interrupt());
    for (int i = 0; i < 4; i++) {
        must(pthread_join(threads[i], NULL) == 0);
    }
    python("sum(range(100000))");
    ok(tosc_host_interrupt()); /* nothing runs */
    python("sum(range(100000))");
    host_stop();
}
END_TEST

START_TEST(interrupt_that_came_too_late_is_taken_back)
{
    pthread_t thread;
    host_start();
    python("running = 0");
    must(pthread_create(&thread, NULL, run_for_ever,
                        "import time\n"
                        "running += 1\n"
                        "try:\n"
                        "    while True: time.sleep(0.01)\n"
                        "except KeyboardInterrupt:\n"
                        "    running += 1\n"
                        "    while True: pass\n")
         == 0);
    while (python_int("running") < 1) {
        sleep_us(1000);
    }
    ok(tosc_host_interrupt());
    while (python_int("running") < 2) { /* it may catch the first */
        sleep_us(1000);
    }
    ok(tosc_host_interrupt());
    must(pthread_join(thread, NULL) == 0);
    host_stop();
}
END_TEST

static void *
interrupt_often(void *arg)
{
    while (!__atomic_load_n((bool *)arg, __ATOMIC_SEQ_CST)) {
        must(tosc_host_interrupt() == 0);
        sleep_us(1000);
    }
    return NULL;
}

/* In a thread that has only just been made, KeyboardInterrupt would leave its maker waiting. */
START_TEST(interrupts_meet_scripts_and_not_the_threads_that_these_start)
{
    pthread_t thread;
    bool enough = false;
    host_start();
    must(pthread_create(&thread, NULL, interrupt_often, &enough) == 0);
    for (int i = 0; i < 300; i++) {
        fails(TOSC_EINTR, tosc_host_run_string("import threading\n"
                                               "while True:\n"
                                               "    t = threading.Thread(target=len, "
                                               "args=('',))\n"
                                               "    t.start()\n"
                                               "    t.join()\n",
                                               NULL));
    }
    __atomic_store_n(&enough, true, __ATOMIC_SEQ_CST);
    must(pthread_join(thread, NULL) == 0);
    host_stop();
}
END_TEST

/* ---- many ---- */

START_TEST(thousand_scripts_leave_nothing_behind)
{
    const char *path = script("many.py", "import json, tosc\n"
                                         "class C:\n"
                                         "    def f(self): return C\n"
                                         "data = [C() for i in range(1000)]\n"
                                         "def g(): return data, g\n"
                                         "text = json.dumps(list(range(1000)))\n"
                                         "m = tosc.Manager(tosc.InprocBackend())\n"
                                         "m.write({'data': list(range(100))})\n");
    const char *failing = script("failing.py", "data = ['x' * 1000] * 100\n"
                                               "def f(): return f\n"
                                               "raise ValueError(data)\n");
    host_start();
    int64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        must(tosc_host_run_file(path, NULL) == 0);
        must(tosc_host_run_file(failing, NULL) == TOSC_EPYTHON);
        if (i == 300) {
            before = resident_bytes();
        }
    }
    ck_assert_msg(sanitized() || resident_bytes() - before < 4 << 20,
                  "grown by %ld bytes", (long)(resident_bytes() - before));
    python("import sys");
    ck_assert_int_lt(python_int("len(sys.path)"), 12);
    ck_assert_int_lt(python_int("len(sys.modules)"), 300);
    host_stop();
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("run");
    TCase *running = tcase_create("running");
    TCase *failing = tcase_create("failing");
    TCase *rest = tcase_create("the rest");

    tcase_set_timeout(running, 20);
    tcase_add_checked_fixture(running, directory_make, directory_remove);
    tcase_add_test(running, file_runs_as_with_python3);
    tcase_add_test(running, relative_path_is_taken_from_the_working_directory);
    tcase_add_test(running, each_file_has_a_fresh_main);
    tcase_add_test(running, directory_and_zip_with_a_main_run);
    tcase_add_test(running, module_runs_as_with_dash_m);
    tcase_add_test(running, strings_share_main_and_are_named_in_tracebacks);
    tcase_add_test(running, expression_gives_its_value);
    tcase_add_test(running, file_that_is_not_there_is_the_systems_fault);
    tcase_add_test(running, functions_are_found_and_called);
    tcase_add_test(running, many_arguments_arrive);
    suite_add_tcase(suite, running);
    tcase_set_timeout(failing, 20);
    tcase_add_checked_fixture(failing, directory_make, directory_remove);
    tcase_add_test(failing, exception_has_type_message_and_traceback);
    tcase_add_test(failing, syntax_errors_show_the_line);
    tcase_add_test(failing, system_exit_is_a_status);
    tcase_add_test(failing, keyboard_interrupt_is_a_status);
    tcase_add_test(failing, exceptions_that_cannot_be_shown_are_told_nevertheless);
    tcase_add_test(failing, exceptions_of_the_module_are_their_codes);
    tcase_add_test(failing, later_faults_replace_what_python_told);
    tcase_add_test(failing, faults_are_each_threads_own);
    tcase_add_test(failing, exception_keeps_nothing_alive);
    suite_add_tcase(suite, failing);
    tcase_set_timeout(rest, 120);
    tcase_add_checked_fixture(rest, directory_make, directory_remove);
    tcase_add_test(rest, interrupt_ends_all_runs);
    tcase_add_test(rest, interrupt_that_came_too_late_is_taken_back);
    tcase_add_test(rest, interrupts_meet_scripts_and_not_the_threads_that_these_start);
    tcase_add_test(rest, thousand_scripts_leave_nothing_behind);
    suite_add_tcase(suite, rest);
    return run_suite(suite);
}
