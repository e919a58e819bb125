/* Runs the samples of check/input.f32 where semihosting is answered, and prints over the UART for
   each: its output's integers; `# ticks N`, of a run; `# stack N`, its bytes in use. Before them
   `# clock N M`: N ticks of reading the clock M times. With -DMPS_STEP_TIMES also `# step I N`. */
#include "border.h"
#include "firmware.h"
#include "network.h"

#define CHUNK 64
#define READINGS 1000

static void print(const char *name, uint64_t number) {
    uart_text("# ");
    uart_text(name);
    uart_text(" ");
    uart_number(number);
    uart_text("\n");
}

void fault(void) {
    uart_text("# fault\n");
    semihost_exit(1);
}

/* 1: a sample was read and quantized, without a buffer that holds it whole. 0: the file ended. */
static int read_sample(int file) {
    float values[CHUNK];
    for (int input = 0; input < NETWORK_INPUTS; input++) {
        const size_t count = network_input_counts[input];
        for (size_t at = 0, part; at < count; at += part) {
            part = count - at < CHUNK ? count - at : CHUNK;
            if (semihost_read(file, values, part * sizeof *values) != part * sizeof *values)
                return 0;
            for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
                if (network_entries[entry].input == input)
                    network_quantize_part(entry, at, part, values);
        }
    }
    return 1;
}

static void print_output(void) {
    for (int i = 0; i < NETWORK_OUTPUTS; i++) {
        const int32_t code = mps_get(network_output(), network_result.type, (size_t)i);
        uart_text(i ? " " : "");
        uart_text(code < 0 ? "-" : "");
        uart_number(code < 0 ? -(uint64_t)code : (uint64_t)code);
    }
    uart_text("\n");
}

#ifdef MPS_STEP_TIMES
static uint64_t last, steps[NETWORK_STEPS];

void network_step_done(int step) {
    const uint64_t now = clock_ticks();
    steps[step - 1] = now - last;
    last = clock_ticks(); /* what storing took counts for no step */
}

static void print_steps(void) {
    for (int step = 0; step < NETWORK_STEPS; step++)
        print("step", steps[step]);
}
#else
static uint64_t last;

static void print_steps(void) {}
#endif

int main(void) {
    const int file = semihost_open("check/input.f32");
    uart_start();
    clock_start();
    last = clock_ticks();
    for (int i = 0; i < READINGS; i++)
        (void)clock_ticks();
    print("clock", clock_ticks() - last);
    while (read_sample(file)) {
        uint64_t start, ticks;
        stack_paint();
        start = last = clock_ticks();
        network_run();
        ticks = clock_ticks() - start;
        print_output();
        print_steps();
        print("ticks", ticks);
        print("stack", stack_depth());
    }
    return 0;
}
