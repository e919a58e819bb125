/* Sums of products for two output channels and one or two positions at a time.

   Codes are bytes as they lie in an image or a patch; the zero point's part is in `base`. Weights
   of 8, 4 or 2 bits are read where they are stored: words in turn for both channels, a word having
   one, two or four times four terms. Byte i of it holds terms i, i + 4, i + 8, i + 12 from its
   lowest bits up, so that a mask leaves four weights times 2^(8 - bits) beside each other, as their
   four codes lie. What does not fill words, other widths, and a last single channel are unpacked to
   such words of bytes before. */
#ifndef MPS_PAIRS_H
#define MPS_PAIRS_H

#include "dsp.h"

/* Sums of channels a and b at positions 0 and 1, and what is read next. */
typedef struct {
    uint32_t a0, a1, b0, b1;
    const unsigned char *w, *x0, *x1;
} mps_sums;

/* Four terms: `up` brings their bits to the top of each byte, and with 0 is a word's last. `bits`,
   `up` and `two` are constants. */
#if MPS_DSP_ASSEMBLY

/* 20 instructions for 16 products, and those that get a word of weights into `a` and `b`. */
#define MPS_TWO(GET_A, GET_B, ...)                                                                \
    __asm__ volatile("ldr %[o0], [%[x0]], #4\n\t"                                                 \
                     "ldr %[o1], [%[x1]], #4\n\t" GET_A "uxtb16 %[e0], %[o0]\n\t"                 \
                     "uxtb16 %[o0], %[o0], ror #8\n\t"                                            \
                     "uxtb16 %[e1], %[o1]\n\t"                                                    \
                     "uxtb16 %[o1], %[o1], ror #8\n\t"                                            \
                     "sxtb16 %[b], %[a]\n\t"                                                      \
                     "sxtb16 %[a], %[a], ror #8\n\t"                                              \
                     "smlad %[a0], %[e0], %[b], %[a0]\n\t"                                        \
                     "smlad %[a1], %[e1], %[b], %[a1]\n\t" GET_B                                  \
                     "smlad %[a0], %[o0], %[a], %[a0]\n\t"                                        \
                     "smlad %[a1], %[o1], %[a], %[a1]\n\t"                                        \
                     "sxtb16 %[a], %[b]\n\t"                                                      \
                     "sxtb16 %[b], %[b], ror #8\n\t"                                              \
                     "smlad %[b0], %[e0], %[a], %[b0]\n\t"                                        \
                     "smlad %[b1], %[e1], %[a], %[b1]\n\t"                                        \
                     "smlad %[b0], %[o0], %[b], %[b0]\n\t"                                        \
                     "smlad %[b1], %[o1], %[b], %[b1]"                                            \
                     : [a0] "+r"(s->a0), [a1] "+r"(s->a1), [b0] "+r"(s->b0), [b1] "+r"(s->b1),    \
                       [w] "+r"(s->w), [x0] "+r"(s->x0), [x1] "+r"(s->x1), [e0] "=&r"(e0),        \
                       [o0] "=&r"(o0), [e1] "=&r"(e1), [o1] "=&r"(o1), [a] "=&r"(a), [b] "=&r"(b) \
                     : __VA_ARGS__                                                                \
                     : "memory")
#define MPS_ONE(GET_A, GET_B, ...)                                                           \
    __asm__ volatile("ldr %[o0], [%[x0]], #4\n\t" GET_A "uxtb16 %[e0], %[o0]\n\t"            \
                     "uxtb16 %[o0], %[o0], ror #8\n\t"                                       \
                     "sxtb16 %[b], %[a]\n\t"                                                 \
                     "sxtb16 %[a], %[a], ror #8\n\t"                                         \
                     "smlad %[a0], %[e0], %[b], %[a0]\n\t" GET_B                             \
                     "smlad %[a0], %[o0], %[a], %[a0]\n\t"                                   \
                     "sxtb16 %[a], %[b]\n\t"                                                 \
                     "sxtb16 %[b], %[b], ror #8\n\t"                                         \
                     "smlad %[b0], %[e0], %[a], %[b0]\n\t"                                   \
                     "smlad %[b0], %[o0], %[b], %[b0]"                                       \
                     : [a0] "+r"(s->a0), [b0] "+r"(s->b0), [w] "+r"(s->w), [x0] "+r"(s->x0), \
                       [e0] "=&r"(e0), [o0] "=&r"(o0), [a] "=&r"(a), [b] "=&r"(b)            \
                     : __VA_ARGS__                                                           \
                     : "memory")
#define MPS_UP(x) "lsl %[" x "], %[" x "], %[up]\n\t"
#define MPS_MASK(x) "and %[" x "], %[" x "], %[mask]\n\t"

static inline MPS_INLINE void mps_quad(int bits, int up, int two, mps_sums *s) {
    const int32_t mask = bits == 4 ? INT32_C(-0x0f0f0f10) : INT32_C(-0x3f3f3f40); /* f0, c0 */
    uint32_t e0, o0, e1, o1, a, b;
    if (bits == 8) {
        if (two)
            MPS_TWO("ldr %[a], [%[w]], #4\n\t", "ldr %[b], [%[w]], #4\n\t", "n"(0));
        else
            MPS_ONE("ldr %[a], [%[w]], #4\n\t", "ldr %[b], [%[w]], #4\n\t", "n"(0));
    } else if (up) {
        if (two)
            MPS_TWO("ldr %[a], [%[w]]\n\t" MPS_UP("a") MPS_MASK("a"),
                    "ldr %[b], [%[w], #4]\n\t" MPS_UP("b") MPS_MASK("b"), [up] "n"(up),
                    [mask] "n"(mask));
        else
            MPS_ONE("ldr %[a], [%[w]]\n\t" MPS_UP("a") MPS_MASK("a"),
                    "ldr %[b], [%[w], #4]\n\t" MPS_UP("b") MPS_MASK("b"), [up] "n"(up),
                    [mask] "n"(mask));
    } else {
        if (two)
            MPS_TWO("ldr %[a], [%[w]], #4\n\t" MPS_MASK("a"),
                    "ldr %[b], [%[w]], #4\n\t" MPS_MASK("b"), [mask] "n"(mask));
        else
            MPS_ONE("ldr %[a], [%[w]], #4\n\t" MPS_MASK("a"),
                    "ldr %[b], [%[w]], #4\n\t" MPS_MASK("b"), [mask] "n"(mask));
    }
}

#else

/* Without DSP weights are those numbers themselves. */
static inline MPS_INLINE int mps_field(int bits, int up, const unsigned char *byte) {
    const int32_t top = (int32_t)((uint32_t)*byte << (24 + up));
    return MPS_DSP ? (top >> (32 - bits)) * (1 << (8 - bits)) : top >> (32 - bits);
}

static inline MPS_INLINE void mps_term(int bits, int up, int two, int i, mps_sums *s) {
    const int a = mps_field(bits, up, s->w + i), b = mps_field(bits, up, s->w + 4 + i);
    s->a0 += (uint32_t)(s->x0[i] * a), s->b0 += (uint32_t)(s->x0[i] * b);
    if (two)
        s->a1 += (uint32_t)(s->x1[i] * a), s->b1 += (uint32_t)(s->x1[i] * b);
}

static inline MPS_INLINE void mps_quad(int bits, int up, int two, mps_sums *s) {
    mps_term(bits, up, two, 0, s), mps_term(bits, up, two, 1, s);
    mps_term(bits, up, two, 2, s), mps_term(bits, up, two, 3, s);
    s->x0 += 4;
    if (two)
        s->x1 += 4;
    if (up == 0)
        s->w += 8;
}

#endif

#if defined(__thumb__) && !defined(__thumb2__) && defined(__GNUC__)

/* On Armv6-M eight registers multiply and the upper ones hold the sums, which compilers do not do
   when they optimize for size. 4 instructions for a product. */
#define MPS_WEIGHT(AT, UP, DOWN) \
    "ldrb %[a], [%[w], #" AT "]\n\tlsls %[a], %[a], #" UP "\n\tasrs %[a], %[a], #" DOWN "\n\t"
#define MPS_TWICE(SUM0, SUM1)                                                                     \
    "movs %[t], %[a]\n\tmuls %[t], %[x], %[t]\n\tadd " SUM0 ", %[t]\n\tmuls %[a], %[y], %[a]\n\t" \
    "add " SUM1 ", %[a]\n\t"
#define MPS_ONCE(SUM) "muls %[a], %[x], %[a]\n\tadd " SUM ", %[a]\n\t"
#define MPS_TERM_2(X, A, B, UP, DOWN)                                                      \
    "ldrb %[x], [%[x0], #" X "]\n\tldrb %[y], [%[x1], #" X "]\n\t" MPS_WEIGHT(A, UP, DOWN) \
        MPS_TWICE("r8", "r9") MPS_WEIGHT(B, UP, DOWN) MPS_TWICE("r10", "r11")
#define MPS_TERM_1(X, A, B, UP, DOWN)                                       \
    "ldrb %[x], [%[x0], #" X "]\n\t" MPS_WEIGHT(A, UP, DOWN) MPS_ONCE("r8") \
        MPS_WEIGHT(B, UP, DOWN) MPS_ONCE("r10")
#define MPS_QUAD(TERM, X0, X1, X2, X3, UP, DOWN) \
    TERM(X0, "0", "4", UP, DOWN)                 \
    TERM(X1, "1", "5", UP, DOWN) TERM(X2, "2", "6", UP, DOWN) TERM(X3, "3", "7", UP, DOWN)
/* `values`: the four sums and where weights end. */
#define MPS_LOOP(BODY, CODES)                                                                 \
    __asm__ volatile(                                                                         \
        ".syntax unified\n\t"                                                                 \
        "mov %[x], r8\n\tpush {%[x]}\n\tmov %[x], r9\n\tpush {%[x]}\n\t"                      \
        "mov %[x], r10\n\tpush {%[x]}\n\tmov %[x], r11\n\tpush {%[x]}\n\tpush {%[t]}\n\t"     \
        "ldr %[x], [%[t]]\n\tmov r8, %[x]\n\tldr %[x], [%[t], #4]\n\tmov r9, %[x]\n\t"        \
        "ldr %[x], [%[t], #8]\n\tmov r10, %[x]\n\tldr %[x], [%[t], #12]\n\tmov r11, %[x]\n\t" \
        "ldr %[x], [%[t], #16]\n\tmov r12, %[x]\n\t"                                          \
        "1:\n\t" BODY "adds %[w], #8\n\tadds %[x0], #" CODES "\n\tadds %[x1], #" CODES "\n\t" \
        "cmp %[w], r12\n\tbeq 2f\n\tb 1b\n\t"                                                 \
        "2:\n\tpop {%[t]}\n\tmov %[x], r8\n\tstr %[x], [%[t]]\n\t"                            \
        "mov %[x], r9\n\tstr %[x], [%[t], #4]\n\tmov %[x], r10\n\tstr %[x], [%[t], #8]\n\t"   \
        "mov %[x], r11\n\tstr %[x], [%[t], #12]\n\tpop {%[x]}\n\tmov r11, %[x]\n\t"           \
        "pop {%[x]}\n\tmov r10, %[x]\n\tpop {%[x]}\n\tmov r9, %[x]\n\tpop {%[x]}\n\t"         \
        "mov r8, %[x]"                                                                        \
        : [w] "+l"(w), [x0] "+l"(x0), [x1] "+l"(x1), [t] "+l"(t), [x] "=&l"(x), [y] "=&l"(y), \
          [a] "=&l"(a)                                                                        \
        :                                                                                     \
        : "memory", "cc", "r12")

#define MPS_QUAD_8(TERM) MPS_QUAD(TERM, "0", "1", "2", "3", "24", "24")
#define MPS_QUADS_4(TERM)                          \
    MPS_QUAD(TERM, "0", "1", "2", "3", "28", "28") \
    MPS_QUAD(TERM, "4", "5", "6", "7", "24", "28")
#define MPS_QUADS_2(TERM)                            \
    MPS_QUAD(TERM, "0", "1", "2", "3", "30", "30")   \
    MPS_QUAD(TERM, "4", "5", "6", "7", "28", "30")   \
    MPS_QUAD(TERM, "8", "9", "10", "11", "26", "30") \
    MPS_QUAD(TERM, "12", "13", "14", "15", "24", "30")

static inline MPS_INLINE void mps_words(int bits, int two, int words, mps_sums *s) {
    const unsigned char *w = s->w, *x0 = s->x0, *x1 = s->x1;
    uintptr_t values[5] = {s->a0, s->a1, s->b0, s->b1, (uintptr_t)(s->w + 8 * words)};
    uintptr_t *t = values;
    uint32_t x, y, a;
    if (words == 0)
        return;
    if (bits == 8 && two)
        MPS_LOOP(MPS_QUAD_8(MPS_TERM_2), "4");
    else if (bits == 8)
        MPS_LOOP(MPS_QUAD_8(MPS_TERM_1), "4");
    else if (bits == 4 && two)
        MPS_LOOP(MPS_QUADS_4(MPS_TERM_2), "8");
    else if (bits == 4)
        MPS_LOOP(MPS_QUADS_4(MPS_TERM_1), "8");
    else if (two)
        MPS_LOOP(MPS_QUADS_2(MPS_TERM_2), "16");
    else
        MPS_LOOP(MPS_QUADS_2(MPS_TERM_1), "16");
    s->w = w, s->x0 = x0, s->x1 = x1;
    s->a0 = values[0], s->a1 = values[1], s->b0 = values[2], s->b1 = values[3];
}

#else

/* A word of each channel: 4, 8 or 16 terms. */
static inline MPS_INLINE void mps_word(int bits, int two, mps_sums *s) {
    if (bits == 2)
        mps_quad(2, 6, two, s), mps_quad(2, 4, two, s), mps_quad(2, 2, two, s);
    if (bits == 4)
        mps_quad(4, 4, two, s);
    mps_quad(bits, 0, two, s);
}

/* `words` words of each channel; `bits` and `two` are constants. */
static inline MPS_INLINE void mps_words(int bits, int two, int words, mps_sums *s) {
#if MPS_DSP_ASSEMBLY
    const int unrolled = bits / 2; /* 1, 2, 4 words are 4 steps */
    const unsigned char *end = s->w + 8 * (words / unrolled * unrolled);
    while (s->w != end) {
        mps_word(bits, two, s);
        if (bits > 2)
            mps_word(bits, two, s);
        if (bits > 4)
            mps_word(bits, two, s), mps_word(bits, two, s);
    }
    for (end += 8 * (words % unrolled); s->w != end;)
        mps_word(bits, two, s);
#else
    const unsigned char *end = s->w + 8 * words;
    while (s->w != end)
        mps_word(bits, two, s);
#endif
}

#endif

#endif
