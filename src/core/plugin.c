/*
 * For backends outside the library: plugins, which are shared objects that register the
 * schemes of their backends, and how they leave a sentence about a fault.
 *
 * A plugin is never unloaded: the operations of its backends must outlive them, and nobody
 * counts these.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <tosc/backend.h>

#include "core/error.h"

/* A path without a slash is searched for in the library path by dlopen(). */
int
tosc_backend_load_plugin(const char *path)
{
    int (*entry)(void) = NULL;
    void *plugin;
    void *symbol;

    if (path == NULL || path[0] == '\0') {
        return tosc__fail(TOSC_EINVAL, "the path of the plugin is empty");
    }
    plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        return tosc__fail_path(TOSC_ESYSTEM, path, "cannot load the plugin: %s",
                               dlerror());
    }
    symbol = dlsym(plugin, "tosc_backend_plugin");
    if (symbol == NULL) {
        dlclose(plugin);
        return tosc__fail_path(TOSC_EINVAL, path,
                               "%s is no backend plugin: it has no function "
                               "tosc_backend_plugin",
                               path);
    }
    memcpy(&entry, &symbol, sizeof(entry)); /* ISO C knows no cast for this */
    return entry();
}

int
tosc_backend_fail(int status, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return tosc__fail(status, "%s", text);
}

int
tosc_backend_fail_errno(int error, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return tosc__fail_errno(error, NULL, "%s", text);
}
