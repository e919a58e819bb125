/* Layers one after the other: each with its own memory, whose surroundings must stay as they are.
 */
#include "kernels.h"
#include "mps3_an547.h"

typedef enum { CONVOLVE_PATCHES, CONVOLVE_DEPTHWISE, MULTIPLY_PATCHES } kernel;

typedef struct {
    kernel kernel;
    const void *step;
    const unsigned char *input, *addend, *expected; /* addend: NULL for none */
    size_t input_size, scratch_size, output_size, addend_size;
    int in_place; /* the output is the addend's memory */
} layer_case;

#include "cases.h"

#define GUARD 64
#define LARGEST 65536

static uint32_t input[LARGEST / 4], scratch[LARGEST / 4], addend[LARGEST / 4], output[LARGEST / 4];

static unsigned char *guarded(uint32_t *memory, const unsigned char *content, size_t size) {
    unsigned char *bytes = (unsigned char *)memory;
    memset(bytes, 0xa5, size + 2 * GUARD);
    if (content)
        memcpy(bytes + GUARD, content, size);
    return bytes + GUARD;
}

static int spoiled(const unsigned char *bytes, size_t size) {
    for (int i = 1; i <= GUARD; i++)
        if (bytes[-i] != 0xa5 || bytes[size + (size_t)i - 1] != 0xa5)
            return 1;
    return 0;
}

static void run(const layer_case *c, void *work, const void *in, const void *more, void *out) {
    switch (c->kernel) {
    case CONVOLVE_PATCHES:
        mps_convolve_patches(c->step, work, in, more, out);
        break;
    case CONVOLVE_DEPTHWISE:
        mps_convolve_depthwise(c->step, work, in, more, out);
        break;
    case MULTIPLY_PATCHES:
        mps_multiply_patches(c->step, work, in, more, out);
        break;
    }
}

int main(void) {
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const layer_case *c = &cases[i];
        unsigned char *in = guarded(input, c->input, c->input_size);
        unsigned char *work = guarded(scratch, NULL, c->scratch_size);
        unsigned char *more = c->addend ? guarded(addend, c->addend, c->addend_size) : NULL;
        unsigned char *out = c->in_place ? more : guarded(output, NULL, c->output_size);
        run(c, work, in, more, out);
        if (memcmp(out, c->expected, c->output_size) || memcmp(in, c->input, c->input_size) ||
            spoiled(in, c->input_size) || spoiled(work, c->scratch_size) ||
            spoiled(out, c->output_size)) {
            say_number((int64_t)i);
            say(memcmp(out, c->expected, c->output_size) ? " is wrong\n" : " wrote elsewhere\n");
            wrong++;
        }
    }
    say_number((int64_t)(sizeof cases / sizeof *cases));
    say(" cases\n");
    return wrong > 0;
}
