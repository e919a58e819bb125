/* Run a program COUNT times and print one JSON line for each run. It times from fork to wait4 with
   one clock and no shell between; it stays small, because Linux counts the memory that a process
   has before exec into its peak. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_TEXT 1500 /* bytes of standard error that are passed on */

static volatile pid_t child;
static volatile sig_atomic_t late;

/* The program has a group of its own: what it started dies with it. */
static void on_alarm(int signal) {
    (void)signal;
    late = 1;
    if (child > 0)
        kill(-child, SIGKILL);
}

static void on_end(int signal) {
    (void)signal;
    if (child > 0)
        kill(-child, SIGKILL);
    _exit(1);
}

static void handle(int signal, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, NULL);
}

static void set_alarm(long seconds) {
    struct itimerval timer;
    memset(&timer, 0, sizeof timer);
    timer.it_value.tv_sec = seconds;
    setitimer(ITIMER_REAL, &timer, NULL);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static long long nanoseconds(struct timeval t) {
    return (long long)t.tv_sec * 1000000000 + (long long)t.tv_usec * 1000;
}

static int fail(const char *what) {
    fprintf(stderr, "launcher: %s: %s\n", what, strerror(errno));
    return 1;
}

static void print_text(int file) {
    char text[MOST_TEXT];
    const ssize_t count = pread(file, text, sizeof text, 0);
    for (ssize_t i = 0; i < count; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else
            putchar(c < 32 ? ' ' : c > 126 ? '?' : c);
    }
}

static void become(char **program, int out, int err) {
    setpgid(0, 0);
    dup2(out, 1);
    dup2(err, 2);
    execvp(program[0], program);
    dprintf(2, "cannot start %s: %s", program[0], strerror(errno));
    _exit(127);
}

/* 1: the run was good; 0: it was not, there is no point in another one; -1: no run. */
static int run(char **program, long seconds, int out, int err) {
    struct rusage used;
    int status;
    const long long started = now();
    const pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0)
        become(program, out, err);
    child = pid;
    setpgid(pid, pid);
    set_alarm(seconds);
    while (wait4(pid, &status, 0, &used) < 0)
        if (errno != EINTR)
            return -1;
    const long long ended = now();
    set_alarm(0);
    child = 0;
    printf("{\"event\": \"run\", \"spawned_ns\": %lld, \"wall_ns\": %lld, \"cpu_ns\": %lld, "
           "\"peak_kb\": %ld, \"exit\": %d, \"signal\": %d, \"timed_out\": %s, \"stderr\": \"",
           started, ended - started, nanoseconds(used.ru_utime) + nanoseconds(used.ru_stime),
           used.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0, late ? "true" : "false");
    print_text(err);
    printf("\"}\n");
    fflush(stdout);
    return !late && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    static const int ends[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM};
    if (argc < 5) {
        fputs("usage: launcher OUTPUT SECONDS COUNT PROGRAM [ARGUMENT...]\n", stderr);
        return 2;
    }
    const long seconds = strtol(argv[2], NULL, 10), count = strtol(argv[3], NULL, 10);
    const int out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int err = open("stderr", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0)
        return fail(argv[1]);
    if (err < 0)
        return fail("stderr");
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        handle(ends[i], on_end);
    handle(SIGALRM, on_alarm);
    for (long i = 0; i < count; i++) {
        if (ftruncate(err, 0))
            return fail("stderr");
        const int good = run(argv + 4, seconds, out, err);
        if (good < 0)
            return fail("cannot run");
        if (!good)
            break;
    }
    return 0;
}
