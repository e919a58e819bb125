/* Answers a host over the UART, a line for a line, for `mpsearch device run --serial`.

   A line is TEXT*CCCC: CCCC is the CRC-16 (CCITT, from 0xffff) of TEXT in hexadecimal digits.
     hello      -> hello VERSION DIGEST CLOCK     CLOCK: ticks a second
     sync N     -> sync N                         all that was asked before is answered
     x I N HEX  -> ok                             input I from element N on, as float32 in memory
     run        -> ran COUNT READING STACK        COUNT: runs since the start; READING: ticks of
     last       -> the same once more             1000 readings of the clock; STACK: bytes
     y N        -> y N V V ...                    the output's integers from N on
     s N        -> s N T T ...                    ticks of the steps from N on
   What is none of these, or no sample in order, is answered by: no WHY */
#include "border.h"
#include "digest.h"
#include "firmware.h"
#include "network.h"

#define VERSION 1
#define PART 32 /* elements in a line */
#define SHOWN 8 /* numbers in a line */
#define READINGS 1000

static char line[8 * PART + 40];
static uint16_t sum; /* of the line that is being sent */
static uint64_t ticks[NETWORK_STEPS], last, reading;
static size_t stack, runs;
/* what is expected next: this input, from this element on, or once more the part before it */
static int input = NETWORK_INPUTS;
static size_t element, part_before;

static uint16_t crc(uint16_t value, char c) {
    value = (uint16_t)(value ^ (unsigned char)c << 8);
    for (int bit = 0; bit < 8; bit++)
        value = (uint16_t)(value & 0x8000 ? value << 1 ^ 0x1021 : value << 1);
    return value;
}

static void send(const char *text) {
    for (; *text; text++) {
        sum = crc(sum, *text);
        uart_put(*text);
    }
}

static void send_number(const char *sign, uint64_t number) {
    char digits[21] = {0};
    int at = 20;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    send(sign);
    send(digits + at);
}

static void end(void) {
    const uint16_t value = sum;
    uart_put('*');
    for (int shift = 12; shift >= 0; shift -= 4)
        uart_put("0123456789abcdef"[value >> shift & 15]);
    uart_put('\n');
    sum = 0xffff;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Read a line: 1 where it is whole and its checksum is right, which is cut off. */
static int receive(void) {
    size_t length = 0;
    uint16_t value = 0xffff;
    for (int c; (c = uart_get()) != '\n'; length++)
        if (length < sizeof line)
            line[length] = (char)c;
    if (length < 5 || length > sizeof line || line[length - 5] != '*')
        return 0;
    for (size_t i = 0; i < length - 5; i++)
        value = crc(value, line[i]);
    for (size_t i = length - 4; i < length; i++, value = (uint16_t)(value << 4))
        if (digit(line[i]) != value >> 12)
            return 0;
    line[length - 5] = 0;
    return 1;
}

/* The number behind a space; -1 where there is none. `at` moves behind it. */
static long number(const char **at) {
    const char *c = *at;
    long value = 0;
    if (*c++ != ' ' || digit(*c) < 0 || digit(*c) > 9)
        return -1;
    for (; *c >= '0' && *c <= '9' && value < 100000000; c++)
        value = 10 * value + (*c - '0');
    *at = c;
    return value;
}

/* How many values in hexadecimal digits were read into `values`; -1: these are none. */
static int read_values(const char *at, float *values) {
    int count = 0;
    for (; *at; count++) {
        unsigned char bytes[4];
        if (count == PART)
            return -1;
        for (int i = 0; i < 4; i++, at += 2) {
            if (digit(at[0]) < 0 || digit(at[1]) < 0)
                return -1;
            bytes[i] = (unsigned char)(digit(at[0]) << 4 | digit(at[1]));
        }
        memcpy(&values[count], bytes, sizeof bytes);
    }
    return count;
}

static int is_whole(void) {
    return input < NETWORK_INPUTS && element == network_input_counts[input];
}

/* Every command: NULL where it was done and answered, else why not. */
static const char *take(const char *at) {
    float values[PART];
    const long which = number(&at), from = number(&at);
    const int count = which < 0 || from < 0 || *at != ' ' ? -1 : read_values(at + 1, values);
    if (count <= 0)
        return "form";
    if (from == 0 && (which == 0 || (which == input + 1 && is_whole()))) {
        input = (int)which;
        element = part_before = 0;
    }
    if (input == NETWORK_INPUTS || which != input)
        return "order";
    /* else it came once more, because its answer was lost */
    if ((size_t)from != part_before || (size_t)from + (size_t)count != element) {
        if ((size_t)from != element || element + (size_t)count > network_input_counts[input])
            return "order";
        for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
            if (network_entries[entry].input == input)
                network_quantize_part(entry, element, (size_t)count, values);
        part_before = element;
        element += (size_t)count;
    }
    send("ok");
    return NULL;
}

static const char *say_run(void) {
    send_number("ran ", runs);
    send_number(" ", reading);
    send_number(" ", stack);
    return NULL;
}

static const char *run(void) {
    if (input != NETWORK_INPUTS - 1 || !is_whole())
        return "order";
    input = NETWORK_INPUTS; /* a run reuses the memory of the sample */
    last = clock_ticks();
    for (int i = 0; i < READINGS; i++)
        (void)clock_ticks();
    reading = clock_ticks() - last;
    stack_paint();
    last = clock_ticks();
    network_run();
    stack = stack_depth();
    runs++;
    return say_run();
}

void network_step_done(int step) {
    ticks[step - 1] = clock_ticks() - last;
    last = clock_ticks(); /* what storing took counts for no step */
}

static const char *say_outputs(const char *at) {
    const long from = number(&at);
    if (from < 0 || *at)
        return "form";
    send_number("y ", (uint64_t)from);
    for (size_t i = (size_t)from; i < NETWORK_OUTPUTS && i < (size_t)from + SHOWN; i++) {
        const int32_t code = mps_get(network_output(), network_result.type, i);
        send_number(code < 0 ? " -" : " ", code < 0 ? -(uint64_t)code : (uint64_t)code);
    }
    return NULL;
}

static const char *say_steps(const char *at) {
    const long from = number(&at);
    if (from < 0 || *at)
        return "form";
    send_number("s ", (uint64_t)from);
    for (size_t i = (size_t)from; i < NETWORK_STEPS && i < (size_t)from + SHOWN; i++)
        send_number(" ", ticks[i]);
    return NULL;
}

static const char *say_sync(const char *at) {
    const long which = number(&at);
    if (which < 0 || *at)
        return "form";
    send_number("sync ", (uint64_t)which);
    return NULL;
}

static const char *say_hello(void) {
    send_number("hello ", VERSION);
    send(" " NETWORK_DIGEST);
    send_number(" ", BOARD_CLOCK_HZ);
    return NULL;
}

static const char *answer(void) {
    if (strcmp(line, "hello") == 0)
        return say_hello();
    if (strcmp(line, "run") == 0)
        return run();
    if (strcmp(line, "last") == 0)
        return say_run();
    if (strncmp(line, "sync", 4) == 0)
        return say_sync(line + 4);
    switch (line[0]) {
    case 'x':
        return take(line + 1);
    case 'y':
        return say_outputs(line + 1);
    case 's':
        return say_steps(line + 1);
    default:
        return "form";
    }
}

int main(void) {
    uart_start();
    clock_start();
    sum = 0xffff;
    say_hello(); /* a host that is waiting for something else sees that this is a new start */
    end();
    for (;;) {
        const char *why = receive() ? answer() : "sum";
        if (why != NULL) {
            send("no ");
            send(why);
        }
        end();
    }
}
