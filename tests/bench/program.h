// What every program of the bench says: that it is ready, or why it cannot be.
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static inline void require(bool sound, const char *what)
{
    if (!sound) {
        perror(what);
        exit(1);
    }
}

static inline void require_usage(bool sound, const char *usage)
{
    if (!sound) {
        fprintf(stderr, "usage: %s\n", usage);
        exit(2);
    }
}

static inline void say_ready(void)
{
    puts("ready");
    fflush(stdout);
}
