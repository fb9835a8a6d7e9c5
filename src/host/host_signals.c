/*
 * The program's signal dispositions, which Python must not leave changed.
 *
 * At its end Python gives the signals for which scripts have set functions the default
 * action, which ends the program: they get the action back that they had when Python was
 * started. The same for those that Python ignores if it is asked to install its handlers.
 * What the program has changed itself meanwhile, or a script has set to be ignored, is
 * left alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "config.h"

#include "host/life.h"

#include <signal.h>

static struct sigaction at_start[NSIG];
static struct sigaction at_end[NSIG]; /* before Python has ended */

static void
note(struct sigaction *actions)
{
    for (int number = 1; number < NSIG; number++) {
        if (sigaction(number, NULL, &actions[number]) < 0) {
            actions[number].sa_handler = SIG_ERR;
        }
    }
}

void
signals_note_start(void)
{
    note(at_start);
}

void
signals_note_end(void)
{
    note(at_end);
}

static bool
is_changed_by_python(int number, bool installed)
{
    struct sigaction now;
    if (at_start[number].sa_handler == SIG_ERR || sigaction(number, NULL, &now) < 0) {
        return false;
    }
    if (now.sa_handler == SIG_DFL && at_end[number].sa_handler != SIG_DFL) {
        return true;
    }
    return installed && (number == SIGPIPE || number == SIGXFSZ)
           && now.sa_handler == SIG_IGN;
}

void
signals_restore(bool installed)
{
    for (int number = 1; number < NSIG; number++) {
        if (is_changed_by_python(number, installed)) {
            sigaction(number, &at_start[number], NULL);
        }
    }
}
