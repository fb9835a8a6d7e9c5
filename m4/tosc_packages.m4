dnl SPDX-License-Identifier: Apache-2.0
dnl
dnl TOSC_FIND_RADOS
dnl
dnl Ceph's librados, for CephBackend; it has no .pc file. Sets RADOS_LIBS; defines HAVE_RADOS.
AC_DEFUN([TOSC_FIND_RADOS], [
    AC_ARG_WITH([rados], [AS_HELP_STRING([--with-rados@<:@=yes|no|auto@:>@],
                [CephBackend, with librados (auto: where it is there)])],
                [], [with_rados=auto])
    AS_CASE([$with_rados], [yes|no|auto], [],
            [AC_MSG_ERROR([--with-rados takes yes, no or auto, not '$with_rados'])])
    RADOS_LIBS=
    have_rados=no
    AS_IF([test "$with_rados" != no], [
        AC_CHECK_HEADER([rados/librados.h],
            [AC_CHECK_LIB([rados], [rados_create2], [have_rados=yes])])
    ])
    AS_IF([test "$with_rados$have_rados" = yesno], [AC_MSG_ERROR(m4_normalize([
        --with-rados was given but librados or its header is missing:
        apt-get install librados-dev]))])
    AS_IF([test "$have_rados" = yes], [
        RADOS_LIBS=-lrados
        AC_DEFINE([HAVE_RADOS], [1], [build CephBackend])
    ])
    AC_SUBST([RADOS_LIBS])
    AM_CONDITIONAL([HAVE_RADOS], [test "$have_rados" = yes])
])

dnl TOSC_FIND_TEST_PACKAGES
dnl
dnl What only tests and examples need; without it all else is built.
AC_DEFUN([TOSC_FIND_TEST_PACKAGES], [
    dnl Unit tests; `make check` says what is missing.
    PKG_CHECK_MODULES([CHECK], [check >= 0.15], [have_check=yes], [have_check=no])
    AM_CONDITIONAL([HAVE_CHECK], [test "$have_check" = yes])
])
