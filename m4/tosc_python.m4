dnl SPDX-License-Identifier: Apache-2.0
dnl
dnl TOSC_FIND_PYTHON
dnl
dnl Finds the Python that is embedded: headers and library through pkg-config's python3-embed,
dnl and from it the interpreter of the same installation. A machine may well have two Pythons,
dnl and the first along PATH may be the other one, so PATH is not asked.
dnl Sets PYTHON, PYTHON_VERSION, PYTHON_CFLAGS, PYTHON_LIBS; defines TOSC_PYTHON, PYTHON_PREFIX.
AC_DEFUN([TOSC_FIND_PYTHON], [
    AC_ARG_VAR([PYTHON], [the interpreter that belongs to pkg-config's python3-embed])
    PKG_CHECK_MODULES([PYTHON], [python3-embed >= 3.11], [], [AC_MSG_ERROR(m4_normalize([
        the files for embedding Python 3.11 or newer are missing (python3-embed.pc):
        apt-get install python3-dev]))])
    PYTHON_VERSION=`$PKG_CONFIG --modversion python3-embed`
    AC_SUBST([PYTHON_VERSION])

    AC_MSG_CHECKING([for the interpreter of the embedded Python])
    AS_IF([test -z "$PYTHON"],
          [PYTHON=`$PKG_CONFIG --variable=exec_prefix python3-embed`/bin/python$PYTHON_VERSION])
    AS_IF([test ! -x "$PYTHON"], [AC_MSG_ERROR(m4_normalize([
        $PYTHON, to which python3-embed.pc leads, is no program: install it,
        or name the interpreter with PYTHON=/path/to/python3]))])
    AC_MSG_RESULT([$PYTHON])

    AC_MSG_CHECKING([whether it fits the headers])
    tosc_found=`"$PYTHON" -I -S -c 'import sys; print(sys.version_info.major, sys.version_info.minor, sep=".")'`
    tosc_include=`"$PYTHON" -I -S -c 'import sysconfig; print(sysconfig.get_path("include"))'`
    tosc_prefix=`"$PYTHON" -I -S -c 'import sys; print(sys.base_prefix)'`
    AS_IF([test "$tosc_found" != "$PYTHON_VERSION"], [AC_MSG_ERROR(m4_normalize([
        $PYTHON is Python $tosc_found but python3-embed.pc is of $PYTHON_VERSION: set PYTHON or
        PKG_CONFIG_PATH so that both are of one installation]))])
    AS_CASE([" $PYTHON_CFLAGS "], [*" -I$tosc_include "*], [], [AC_MSG_ERROR(m4_normalize([
        $PYTHON has its headers in $tosc_include but python3-embed.pc says $PYTHON_CFLAGS: set
        PYTHON or PKG_CONFIG_PATH so that both are of one installation]))])
    AC_MSG_RESULT([yes])

    AC_DEFINE_UNQUOTED([TOSC_PYTHON], ["$PYTHON"], [the interpreter of the embedded Python])
    AC_DEFINE_UNQUOTED([PYTHON_PREFIX], ["$tosc_prefix"], [where its standard library lies])

    tosc_save_CFLAGS=$CFLAGS
    tosc_save_LIBS=$LIBS
    CFLAGS="$CFLAGS $PYTHON_CFLAGS"
    LIBS="$PYTHON_LIBS $LIBS"
    AC_MSG_CHECKING([whether a program with it links])
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <Python.h>]], [[Py_Initialize();]])],
                   [AC_MSG_RESULT([yes])],
                   [AC_MSG_ERROR(m4_normalize([no program can be linked with $PYTHON_LIBS:
                    is libpython there? (apt-get install python3-dev)]))])
    CFLAGS=$tosc_save_CFLAGS
    LIBS=$tosc_save_LIBS
])
