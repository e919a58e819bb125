/* Sums with their base -> codes, on 32-bit registers.

   With MPS_HALF_UP (see rescaling.h) a code is (x * 2^raise * m + 2^(n-1)) / 2^n + zero point, and
   since floors nest, ((the product's upper half) + 2^(n-33) + zero * 2^(n-32)) >> (n - 32). */
#ifndef MPS_FINISHING_H
#define MPS_FINISHING_H

#include "dsp.h"

typedef struct {
    mps_scale scale;
    int32_t added; /* to the upper half */
    int shift;     /* of the upper half; 0: the general way */
} mps_channel;

mps_channel mps_channel_of(const mps_layer *layer, int channel);

/* A result before it is clipped; x has been raised. */
static inline MPS_INLINE int32_t mps_code(const mps_channel *c, uint32_t x) {
    return mps_upper((int32_t)x, c->scale.multiplier, c->added) >> c->shift;
}

static inline int32_t mps_within(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}

/* Where results go, and what a sum's own terms and half of its last bit are together. */
typedef struct {
    const mps_layer *layer;
    const void *addend;
    void *output;
    int64_t constant, mask; /* of the bits that the sum drops */
} mps_ending;

mps_ending mps_ending_of(const mps_layer *layer, const void *addend, void *output);

/* The sum of a result and an addend, as mps_sum says. */
static inline MPS_INLINE int32_t mps_summed(const mps_ending *e, const mps_sum *sum, int32_t code,
                                            int32_t other) {
    const int64_t all = (int64_t)code * sum->multiplier + (int64_t)other * sum->other + e->constant;
    int32_t result = (int32_t)(all >> sum->shift);
    if ((all & e->mask) == 0) /* a half, rounded up */
        result &= ~1;
    return mps_within(result + sum->output_zero, sum->low, sum->high);
}

/* Any layer's result for element `at`: also one with a sum, of another type, or for which halves
   are rounded to even. */
void mps_finish_one(const mps_ending *e, const mps_channel *c, uint32_t x, size_t at);

#endif
