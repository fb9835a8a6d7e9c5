dnl SPDX-License-Identifier: Apache-2.0
dnl
dnl TOSC_FLAGS
dnl
dnl WARN_CFLAGS: the warnings that our code is free of, as far as the compiler knows them; they
dnl are errors with --enable-werror only, as tomorrow's compilers warn of more.
AC_DEFUN([TOSC_FLAGS], [
    AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [take warnings for errors])],
                  [], [enable_werror=no])
    WARN_CFLAGS=
    m4_foreach_w([tosc_flag], [-Wall -Wextra -Wshadow -Wstrict-prototypes
        -Wmissing-prototypes -Wpointer-arith -Wvla
        -Wno-unused-parameter -Wno-missing-field-initializers -Wno-cast-function-type],
        [TOSC_TRY_FLAG([WARN_CFLAGS], tosc_flag)])
    AS_IF([test "$enable_werror" = yes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
    AC_SUBST([WARN_CFLAGS])
])

dnl TOSC_TRY_FLAG(variable, flag): adds the flag if the compiler takes it.
AC_DEFUN([TOSC_TRY_FLAG], [
    AC_MSG_CHECKING([whether $CC knows $2])
    tosc_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS -Werror $2"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM], [AC_MSG_RESULT([yes]); $1="$$1 $2"],
                      [AC_MSG_RESULT([no])])
    CFLAGS=$tosc_save_CFLAGS
])

dnl TOSC_SANITIZERS
dnl
dnl Kept in variables of their own, so that configure's own tests run without them.
AC_DEFUN([TOSC_SANITIZERS], [
    AC_ARG_ENABLE([sanitizers], [AS_HELP_STRING([--enable-sanitizers@<:@=LIST@:>@],
                  [build with sanitizers (address,undefined)])], [], [enable_sanitizers=no])
    AS_CASE([$enable_sanitizers],
            [no], [SANITIZER_CFLAGS=],
            [yes], [SANITIZER_CFLAGS=-fsanitize=address,undefined],
            [SANITIZER_CFLAGS=-fsanitize=$enable_sanitizers])
    AS_IF([test -n "$SANITIZER_CFLAGS"], [
        SANITIZER_CFLAGS="$SANITIZER_CFLAGS -fno-omit-frame-pointer"
        tosc_save_CFLAGS=$CFLAGS
        CFLAGS="$CFLAGS $SANITIZER_CFLAGS"
        AC_LINK_IFELSE([AC_LANG_PROGRAM], [],
                       [AC_MSG_ERROR([$CC cannot build with $SANITIZER_CFLAGS])])
        CFLAGS=$tosc_save_CFLAGS
    ])
    AC_SUBST([SANITIZER_CFLAGS])
    AM_CONDITIONAL([SANITIZERS], [test -n "$SANITIZER_CFLAGS"])
    AM_CONDITIONAL([THREAD_SANITIZER], [test "$enable_sanitizers" = thread])
])
