/* What a layer adds to its results, 4 channels at a time: (a * multiplier + b * other + offset) /
   2^shift, half to even, with products of 16 and 31 bits. They are kept in two parts of 32 bits:
   value = upper * 2^18 + lower. */
#ifndef MPS_ADDING_H
#define MPS_ADDING_H

#include "helium.h"

/* The constants of a sum; both parts of products, of the offset, and of their sums fit 32 bits. */
#define MPS_PART 18
typedef struct {
    int vectors; /* 0: one after the other, in 64 bits */
    int32_t upper, lower, half, shift;
} mps_parts;

static inline mps_parts mps_parts_of(const mps_sum *sum) {
    const int64_t offset = (int64_t)((uint64_t)(int64_t)sum->offset << sum->raise);
    const int64_t upper = offset >> MPS_PART;
    mps_parts parts = {0, 0, 0, 0, 0};
    if (sum->shift <= MPS_PART || sum->shift > MPS_PART + 30 || sum->addend_type == MPS_I32 ||
        upper != mps_clip(upper, -(1 << 29), 1 << 29))
        return parts;
    parts.vectors = 1;
    parts.upper = (int32_t)upper;
    parts.lower = (int32_t)(offset & ((1 << MPS_PART) - 1));
    parts.shift = sum->shift - MPS_PART;
    parts.half = (1 << (parts.shift - 1)) - 1;
    return parts;
}

/* a * multiplier + b * other + offset, / 2^shift, half to even, for 17-bit integers. */
static inline MPS_INLINE int32x4_t mps_add_parts(const mps_sum *sum, const mps_parts *parts,
                                                 int32x4_t a, int32x4_t b) {
    const int32x4_t mask = vdupq_n_s32((1 << MPS_PART) - 1);
    int32x4_t upper = vqdmulhq_n_s32(vshlq_n_s32(a, 31 - MPS_PART), sum->multiplier);
    int32x4_t lower = vandq_s32(vmulq_n_s32(a, sum->multiplier), mask);
    upper = vaddq_s32(upper, vqdmulhq_n_s32(vshlq_n_s32(b, 31 - MPS_PART), sum->other));
    lower = vaddq_s32(lower, vandq_s32(vmulq_n_s32(b, sum->other), mask));
    upper = vaddq_n_s32(upper, parts->upper), lower = vaddq_n_s32(lower, parts->lower);
    upper = vaddq_s32(upper, vshrq_n_s32(lower, MPS_PART)), lower = vandq_s32(lower, mask);
    /* + 2^(shift - 1) - 1, and one more where the quotient is odd */
    lower = vaddq_s32(lower, mask);
    lower = vaddq_s32(lower, vandq_s32(vshlq_r_s32(upper, -parts->shift), vdupq_n_s32(1)));
    upper = vaddq_s32(vaddq_n_s32(upper, parts->half), vshrq_n_s32(lower, MPS_PART));
    return vshlq_r_s32(upper, -parts->shift);
}

/* Rows of 4 sums of products -> what is stored, for a layer that rounds half up. The order of the
   fields is known to the functions below. */
typedef struct {
    int32_t base[4], multiplier[4], shift[4]; /* of the channels, as mps_factors has them */
    int32_t low[4], high[4];                  /* of the layer - its zero point */
    int32_t lowest[4], highest[4];            /* of the sum */
    const int32_t *sums;
    const void *addend;
    void *output;
    size_t stride; /* elements from one row to the next */
    int32_t multiplier_of_sum, other;
    int32_t upper, lower; /* offset, and zero point * multiplier */
    int32_t shift_left;   /* -shift of the upper part */
    int32_t zero, one, raise;
    int rows;
} mps_adding;

#define MPS_ADD_ROWS(LOAD, NEXT, STORE, BEYOND)                                     \
    __asm__("push {r4-r11, lr}\n"                                                   \
            "vpush {d8-d15}\n"                                                      \
            "ldrd r1, r2, [r0, #112]\n"   /* sums, addend */                        \
            "ldrd r3, r4, [r0, #120]\n"   /* output, stride */                      \
            "ldrd r5, r6, [r0, #128]\n"   /* multiplier_of_sum, other */            \
            "ldrd r7, r8, [r0, #136]\n"   /* upper, lower */                        \
            "ldrd r9, r10, [r0, #144]\n"  /* shift_left, zero */                    \
            "ldrd r11, r12, [r0, #152]\n" /* one, raise */                          \
            "ldr lr, [r0, #160]\n"                                                  \
            "vmov.i32 q4, #0x3ffff\n"                                               \
            "vdup.32 q5, r11\n"                                                     \
            "vldrw.32 q6, [r0, #16]\n"                                              \
            "vldrw.32 q7, [r0, #32]\n"                                              \
            "dls lr, lr\n"                                                          \
            "1: vldrw.32 q0, [r1], #16\n"                                           \
            "vldrw.32 q1, [r0]\n"                                                   \
            "vadd.i32 q0, q0, q1\n"                                                 \
            "vshl.s32 q0, r12\n"                                                    \
            "vqdmulh.s32 q0, q0, q6\n"                                              \
            "vrshl.s32 q0, q0, q7\n"                                                \
            "vldrw.32 q1, [r0, #48]\n"                                              \
            "vldrw.32 q2, [r0, #64]\n"                                              \
            "vmax.s32 q0, q0, q1\n"                                                 \
            "vmin.s32 q0, q0, q2\n" LOAD " q1, [r2]\n"                              \
            "add r2, r2, r4" NEXT "\n"                                              \
            "vmul.i32 q2, q0, r5\n" /* the lower part of a, and the upper one */    \
            "vshl.i32 q0, q0, #13\n"                                                \
            "vand q2, q2, q4\n"                                                     \
            "vqdmulh.s32 q0, q0, r5\n"                                              \
            "vmul.i32 q3, q1, r6\n" /* of b */                                      \
            "vshl.i32 q1, q1, #13\n"                                                \
            "vand q3, q3, q4\n"                                                     \
            "vqdmulh.s32 q1, q1, r6\n"                                              \
            "vadd.i32 q2, q2, q3\n"                                                 \
            "vadd.i32 q0, q0, q1\n"                                                 \
            "vadd.i32 q2, q2, r8\n"                                                 \
            "vadd.i32 q0, q0, r7\n"                                                 \
            "vshr.s32 q1, q2, #18\n" /* carry */                                    \
            "vand q2, q2, q4\n"                                                     \
            "vadd.i32 q0, q0, q1\n"                                                 \
            "vmov q1, q0\n"                                                         \
            "vshl.s32 q1, r9\n"                                                     \
            "vand q1, q1, q5\n"                                                     \
            "vadd.i32 q2, q2, q1\n" /* 0: half, or nothing, above an even number */ \
            "vpt.i32 eq, q2, zr\n"                                                  \
            "vsubt.i32 q0, q0, r11\n"                                               \
            "vrshl.s32 q0, r9\n"                                                    \
            "vldrw.32 q1, [r0, #80]\n"                                              \
            "vadd.i32 q0, q0, r10\n"                                                \
            "vldrw.32 q2, [r0, #96]\n"                                              \
            "vmax.s32 q0, q0, q1\n"                                                 \
            "vmin.s32 q0, q0, q2\n" STORE " q0, [r3]\n"                             \
            "add r3, r3, r4" BEYOND "\n"                                            \
            "le lr, 1b\n"                                                           \
            "vpop {d8-d15}\n"                                                       \
            "pop {r4-r11, pc}\n");                                                  \
    (void)rows

static __attribute__((naked, noinline)) void mps_add_bytes_to_bytes(const mps_adding *rows) {
    MPS_ADD_ROWS("vldrb.u32", "", "vstrb.32", "");
}

static __attribute__((naked, noinline)) void mps_add_shorts_to_bytes(const mps_adding *rows) {
    MPS_ADD_ROWS("vldrh.s32", ", lsl #1", "vstrb.32", "");
}

static __attribute__((naked, noinline)) void mps_add_bytes_to_shorts(const mps_adding *rows) {
    MPS_ADD_ROWS("vldrb.u32", "", "vstrh.32", ", lsl #1");
}

static __attribute__((naked, noinline)) void mps_add_shorts_to_shorts(const mps_adding *rows) {
    MPS_ADD_ROWS("vldrh.s32", ", lsl #1", "vstrh.32", ", lsl #1");
}

typedef void (*mps_row_adder)(const mps_adding *);

/* What adds these types; NULL where they are others. */
static inline mps_row_adder mps_row_adder_of(const mps_sum *sum) {
    const int bytes = sum->output_type == MPS_U8;
    if (!bytes && sum->output_type != MPS_I16)
        return NULL;
    if (sum->addend_type == MPS_U8)
        return bytes ? mps_add_bytes_to_bytes : mps_add_bytes_to_shorts;
    if (sum->addend_type == MPS_I16)
        return bytes ? mps_add_shorts_to_bytes : mps_add_shorts_to_shorts;
    return NULL;
}

/* The parts that all channels share. Half an odd number and half an even one are told apart. */
static inline void mps_prepare_adding(const mps_layer *layer, const mps_parts *parts,
                                      mps_adding *to) {
    const mps_sum *sum = layer->sum;
    const int64_t offset = ((int64_t)parts->upper << MPS_PART) + parts->lower +
                           (int64_t)layer->output_zero * sum->multiplier;
    for (int i = 0; i < 4; i++) {
        to->low[i] = layer->low - layer->output_zero;
        to->high[i] = layer->high - layer->output_zero;
        to->lowest[i] = sum->low, to->highest[i] = sum->high;
    }
    to->multiplier_of_sum = sum->multiplier, to->other = sum->other;
    to->upper = (int32_t)(offset >> MPS_PART);
    to->lower = (int32_t)(offset & ((1 << MPS_PART) - 1));
    to->shift_left = -parts->shift, to->zero = sum->output_zero, to->one = 1;
    to->raise = layer->raise;
}

#endif
