/* Dot products of 16 terms at a time, for up to 4 output channels at many positions. */
#ifndef MPS_DOT_PRODUCTS_H
#define MPS_DOT_PRODUCTS_H

#include "finishing.h"

/* 2 outputs at 3, 6, … positions, `row` bytes apart: sums[position][output] = first + weights *
   codes. The order of the fields is known to `multiply_pair`. */
typedef struct {
    const int8_t *weights[2];
    const int8_t *patches;
    ptrdiff_t row;
    int32_t first[2];
    int terms;
    int32_t *sums, *end; /* rows of MPS_LANES */
} pair;

/* In assembly as a whole, for it takes all registers: six sums in even ones, as the instruction
   wants them, and five pointers; 12 instructions for 96 products. */
static __attribute__((naked, noinline)) void multiply_pair(pair *p) {
    __asm__("push {r4-r11, lr}\n"
            "mov r12, r0\n"
            "2: ldrd r1, r3, [r12]\n"  /* weights */
            "ldrd r5, r9, [r12, #8]\n" /* patches, row */
            "add r7, r5, r9\n"
            "add r11, r9, r9, lsl #1\n"
            "add r9, r9, r7\n"
            "add r11, r11, r5\n"
            "str r11, [r12, #8]\n"
            "ldrd r0, r2, [r12, #16]\n" /* first */
            "mov r4, r0\n"
            "mov r6, r2\n"
            "mov r8, r0\n"
            "mov r10, r2\n"
            "ldrd lr, r11, [r12, #24]\n" /* terms, sums */
            "dlstp.8 lr, lr\n"
            "1: vldrb.8 q0, [r1], #16\n"
            "vldrb.8 q1, [r5], #16\n"
            "vmladava.s8 r0, q0, q1\n"
            "vldrb.8 q2, [r3], #16\n"
            "vmladava.s8 r2, q2, q1\n"
            "vldrb.8 q3, [r7], #16\n"
            "vmladava.s8 r4, q0, q3\n"
            "vldrb.8 q1, [r9], #16\n"
            "vmladava.s8 r6, q2, q3\n"
            "vmladava.s8 r8, q0, q1\n"
            "vmladava.s8 r10, q2, q1\n"
            "letp lr, 1b\n"
            "strd r0, r2, [r11], #16\n"
            "strd r4, r6, [r11], #16\n"
            "strd r8, r10, [r11], #16\n"
            "ldr r1, [r12, #32]\n" /* end */
            "str r11, [r12, #28]\n"
            "cmp r11, r1\n"
            "bne 2b\n"
            "pop {r4-r11, pc}\n");
    (void)p;
}

/* Patches of up to 32 terms are filled up with zeros to 16 or 32 bytes. Their codes stay in
   registers: 4 outputs at 3, 6, … positions, sums[position][output], without base. The weights are
   read as far as patches go. */
#define SHORT 32
typedef struct {
    const int8_t *weights[4];
    const int8_t *patches;
    int32_t *sums, *end;
} four_short;

#define SUM_32(ROW, A, B, C)       \
    "vldrb.8 q6, [" ROW "]\n"      \
    "vldrb.8 q7, [" ROW ", #16]\n" \
    "vmladav.s8 " A ", q0, q6\n"   \
    "vmladav.s8 " B ", q2, q6\n"   \
    "vmladav.s8 " C ", q4, q6\n"   \
    "vmladava.s8 " A ", q1, q7\n"  \
    "vmladava.s8 " B ", q3, q7\n"  \
    "vmladava.s8 " C ", q5, q7\n"
#define SUM_16(ROW, A, B, C)     \
    "vldrb.8 q3, [" ROW "]\n"    \
    "vmladav.s8 " A ", q0, q3\n" \
    "vmladav.s8 " B ", q1, q3\n" \
    "vmladav.s8 " C ", q2, q3\n"
#define CODES_32              \
    "vldrb.8 q0, [r9]\n"      \
    "vldrb.8 q1, [r9, #16]\n" \
    "vldrb.8 q2, [r9, #32]\n" \
    "vldrb.8 q3, [r9, #48]\n" \
    "vldrb.8 q4, [r9, #64]\n" \
    "vldrb.8 q5, [r9, #80]\n" \
    "add r9, r9, #96\n"
#define CODES_16              \
    "vldrb.8 q0, [r9]\n"      \
    "vldrb.8 q1, [r9, #16]\n" \
    "vldrb.8 q2, [r9, #32]\n" \
    "add r9, r9, #48\n"
#define FOUR_SHORT(CODES, SUM)                                                           \
    __asm__("push {r4-r11, lr}\n"                                                        \
            "vpush {d8-d15}\n"                                                           \
            "ldrd r1, r3, [r0]\n"                                                        \
            "ldrd r5, r7, [r0, #8]\n"                                                    \
            "ldrd r9, r11, [r0, #16]\n"                                                  \
            "ldr r12, [r0, #24]\n"                                                       \
            "1:\n" CODES SUM("r1", "r0", "r4", "r8")                                     \
                SUM("r3", "r2", "r6",                                                    \
                    "r10") "strd r0, r2, [r11]\n"                                        \
                           "strd r4, r6, [r11, #16]\n"                                   \
                           "strd r8, r10, [r11, #32]\n" SUM("r5", "r0", "r4", "r8")      \
                               SUM("r7", "r2", "r6", "r10") "strd r0, r2, [r11, #8]\n"   \
                                                            "strd r4, r6, [r11, #24]\n"  \
                                                            "strd r8, r10, [r11, #40]\n" \
                                                            "add r11, r11, #48\n"        \
                                                            "cmp r11, r12\n"             \
                                                            "bne 1b\n"                   \
                                                            "vpop {d8-d15}\n"            \
                                                            "pop {r4-r11, pc}\n");       \
    (void)p

static __attribute__((naked, noinline)) void multiply_16(const four_short *p) {
    FOUR_SHORT(CODES_16, SUM_16);
}

static __attribute__((naked, noinline)) void multiply_32(const four_short *p) {
    FOUR_SHORT(CODES_32, SUM_32);
}

/* The sums of `count` <= 4 channels at one position; see multiply_rows. */
static MPS_APART void multiply_four(const int8_t *weights, ptrdiff_t apart, int count,
                                    const int32_t *base, int terms, const int8_t *x,
                                    int32_t *sums) {
    const int8_t *w1 = count > 1 ? weights + apart : weights, *w2 = count > 2 ? w1 + apart : w1;
    const int8_t *w3 = count > 3 ? w2 + apart : w2;
    int32_t a = base ? base[0] : 0, b = base && count > 1 ? base[1] : 0;
    int32_t c = base && count > 2 ? base[2] : 0, d = base && count > 3 ? base[3] : 0;
    __asm__ volatile("dlstp.8 lr, %[terms]\n"
                     "1: vldrb.8 q0, [%[x]], #16\n"
                     "vldrb.8 q1, [%[w0]], #16\n"
                     "vmladava.s8 %[a], q0, q1\n"
                     "vldrb.8 q2, [%[w1]], #16\n"
                     "vmladava.s8 %[b], q0, q2\n"
                     "vldrb.8 q3, [%[w2]], #16\n"
                     "vmladava.s8 %[c], q0, q3\n"
                     "vldrb.8 q1, [%[w3]], #16\n"
                     "vmladava.s8 %[d], q0, q1\n"
                     "letp lr, 1b"
                     : [a] "+Te"(a), [b] "+Te"(b), [c] "+Te"(c), [d] "+Te"(d), [x] "+r"(x),
                       [w0] "+r"(weights), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3)
                     : [terms] "r"(terms)
                     : "lr", "q0", "q1", "q2", "q3", "memory");
    sums[0] = a;
    if (count > 1)
        sums[1] = b;
    if (count > 2)
        sums[2] = c;
    if (count > 3)
        sums[3] = d;
}

/* The same with weights of 4 bits as they are stored, two to a byte, for whole 32 terms; `apart` is
   that of the bytes, and `x` is that of words. */
static MPS_APART void multiply_nibbles(const uint8_t *weights, ptrdiff_t apart, int count,
                                       const int32_t *base, int terms, const int8_t *x,
                                       int32_t *sums) {
    const uint8_t *w1 = count > 1 ? weights + apart : weights, *w2 = count > 2 ? w1 + apart : w1;
    const uint8_t *w3 = count > 3 ? w2 + apart : w2;
    int32_t a = 0, b = 0, c = 0, d = 0;
#define NIBBLES(W, SUM)                \
    "vldrb.8 q2, [%[" W "]], #16\n"    \
    "vshl.i8 q3, q2, #4\n"             \
    "vshr.s8 q2, q2, #4\n"             \
    "vshr.s8 q3, q3, #4\n"             \
    "vmladava.s8 %[" SUM "], q0, q3\n" \
    "vmladava.s8 %[" SUM "], q1, q2\n"
    __asm__ volatile("dls lr, %[rounds]\n"
                     "1: vld20.8 {q0, q1}, [%[x]]\n"
                     "vld21.8 {q0, q1}, [%[x]]!\n" NIBBLES("w0", "a") NIBBLES("w1", "b")
                         NIBBLES("w2", "c") NIBBLES("w3", "d") "le lr, 1b"
                     : [a] "+Te"(a), [b] "+Te"(b), [c] "+Te"(c), [d] "+Te"(d), [x] "+r"(x),
                       [w0] "+r"(weights), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3)
                     : [rounds] "r"(terms / 32)
                     : "lr", "q0", "q1", "q2", "q3", "memory");
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
    for (int i = 0; i < count && base; i++)
        sums[i] += base[i];
}

/* The sums of `count` <= 4 channels, whose weights are `apart` bytes from each other:
   sums[position][channel] = base + weights * codes, base NULL for none. */
static void multiply_rows(const int8_t *weights, ptrdiff_t apart, int count, const int32_t *base,
                          int terms, const int8_t *patches, ptrdiff_t row, int positions,
                          int32_t *sums) {
    const int threes = positions / 3 * 3;
    pair p;
    if (positions < 3) {
        for (; positions > 0; positions--, patches += row, sums += MPS_LANES)
            multiply_four(weights, apart, count, base, terms, patches, sums);
        return;
    }
    p.row = row, p.terms = terms;
    for (int i = 0; i < count; i += 2, weights += 2 * apart, sums += 2) {
        const int both = i + 1 < count; /* or else the same channel twice */
        p.weights[0] = weights, p.weights[1] = both ? weights + apart : weights;
        p.first[0] = base ? base[i] : 0, p.first[1] = base && both ? base[i + 1] : 0;
        p.patches = patches, p.sums = sums, p.end = sums + threes * MPS_LANES;
        multiply_pair(&p);
        if (threes < positions) { /* the last three, some of them once more */
            p.patches = patches + (positions - 3) * row;
            p.sums = sums + (positions - 3) * MPS_LANES, p.end = p.sums + 3 * MPS_LANES;
            multiply_pair(&p);
        }
    }
}

/* The same for 4 channels, short patches and at least 3 positions, but without base. */
static void multiply_short_rows(const int8_t *weights, int terms, const int8_t *patches, int row,
                                int positions, int32_t *sums) {
    const int threes = positions / 3 * 3;
    four_short p;
    for (int i = 0; i < 4; i++)
        p.weights[i] = weights + i * terms;
    p.patches = patches, p.sums = sums, p.end = sums + threes * MPS_LANES;
    for (int again = threes < positions;; again = 0) {
        (row == SHORT ? multiply_32 : multiply_16)(&p);
        if (!again)
            return;
        p.patches = patches + (positions - 3) * row; /* the last three, some of them once more */
        p.sums = sums + (positions - 3) * MPS_LANES, p.end = p.sums + 3 * MPS_LANES;
    }
}

#endif
