/* Time every step of a run on the first sample of a file: see usage. Built with -DMPS_STEP_TIMES,
   which makes network.c call network_step_done after each of its steps. */
#ifdef MPS_STEP_TIMES
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "border.h"
#include "network.h"

#define MOST_RUNS 1000

static const char USAGE[] =
    "usage: step-times FILE N\n"
    "  FILE  float32 of all inputs of one sample, in the machine's order of bytes\n"
    "  N     runs, 1 to 1000, after a tenth as many to warm up\n"
    "Prints a line for each step, its number and the median of its nanoseconds; then one line: 0,\n"
    "nanoseconds of reading the clock, median nanoseconds of a whole run, and N.\n";

static float values[NETWORK_LARGEST_INPUT];
static unsigned char codes[NETWORK_ENTRY_BYTES];
static long long times[NETWORK_STEPS][MOST_RUNS], whole[MOST_RUNS], empty[MOST_RUNS];
static long long last;
static int current;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

void network_step_done(int step) {
    const long long time = now();
    times[step - 1][current] = time - last;
    last = now(); /* what storing took counts for no step */
}

static int compare(const void *a, const void *b) {
    const long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static long long median(long long *of, int runs) {
    qsort(of, (size_t)runs, sizeof *of, compare);
    return of[runs / 2];
}

static size_t bytes_of(int entry) {
    return mps_bytes_of(network_entries[entry].type, network_entries[entry].count);
}

static void run_once(void) {
    size_t at = 0;
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++) {
        memcpy(network_entry(entry), codes + at, bytes_of(entry));
        at += bytes_of(entry);
    }
    last = now();
    network_run();
}

int main(int argc, char **argv) {
    char *end = NULL;
    const long runs = argc == 3 ? strtol(argv[2], &end, 10) : 0;
    FILE *file;
    size_t at = 0;
    if (argc != 3 || *end || runs < 1 || runs > MOST_RUNS) {
        fputs(USAGE, stderr);
        return 2;
    }
    file = fopen(argv[1], "rb");
    for (int input = 0; input < NETWORK_INPUTS; input++) {
        const size_t count = network_input_counts[input];
        if (file == NULL || fread(values, sizeof values[0], count, file) != count) {
            fputs("step-times: error: cannot read a whole sample\n", stderr);
            return 2;
        }
        for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
            if (network_entries[entry].input == input)
                network_quantize(entry, values);
    }
    fclose(file);
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++) {
        memcpy(codes + at, network_entry(entry), bytes_of(entry));
        at += bytes_of(entry);
    }
    for (long run = 0; run < runs / 10 + 1; run++)
        run_once();
    for (current = 0; current < runs; current++) {
        const long long start = now();
        run_once();
        whole[current] = now() - start;
        last = now();
        empty[current] = now() - last; /* what reading the clock takes */
    }
    for (int step = 0; step < NETWORK_STEPS; step++)
        printf("%d %lld\n", step + 1, median(times[step], (int)runs));
    printf("0 %lld %lld %ld\n", median(empty, (int)runs), median(whole, (int)runs), runs);
    return fflush(stdout) == 0 ? 0 : 2;
}
#else
typedef int network_without_step_times;
#endif
