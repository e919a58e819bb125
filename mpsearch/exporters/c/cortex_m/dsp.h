/* Two products at once: the DSP extension of Cortex-M4, M7 and M33, the same in C where
   MPS_DSP_TWIN asks for it, and else MPS_DSP is 0 and kernels multiply byte by byte.

   What includes this first is optimized for speed, whatever the rest is compiled for: firmware is
   often built with -Os, which doubles the instructions of these loops. */
#ifndef MPS_DSP_H
#define MPS_DSP_H

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2")
#define MPS_SMALL __attribute__((optimize("Os"))) /* what is done once for a layer or a block */
#else
#define MPS_SMALL
#endif

#include "constants.h"

static inline uint32_t mps_load_word(const unsigned char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, 4);
    return word;
}

/* Packed codes one after the other, see mps_weight. */
typedef struct {
    const uint8_t *from;
    uint32_t held;
    int bits, left;
} mps_reader;

static inline mps_reader mps_reader_at(const mps_layer *layer, size_t code) {
    const size_t bit = code * (size_t)layer->bits;
    mps_reader r = {layer->weights + bit / 8, 0, layer->bits, 0};
    if (bit % 8) {
        r.held = (uint32_t)*r.from++ >> bit % 8;
        r.left = 8 - (int)(bit % 8);
    }
    return r;
}

static inline int mps_next(mps_reader *r) {
    const uint32_t sign = UINT32_C(1) << (r->bits - 1);
    uint32_t code;
    if (r->left < r->bits) {
        r->held |= (uint32_t)*r->from++ << r->left;
        r->left += 8;
    }
    code = r->held & (2 * sign - 1);
    r->held >>= r->bits, r->left -= r->bits;
    return (int)(code ^ sign) - (int)sign;
}

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && !defined(MPS_PORTABLE)
#define MPS_DSP 1
#define MPS_DSP_ASSEMBLY 1
#define MPS_DSP_1(name, code)                            \
    static inline MPS_INLINE uint32_t name(uint32_t x) { \
        uint32_t y;                                      \
        __asm__(code : "=r"(y) : "r"(x));                \
        return y;                                        \
    }
#define MPS_DSP_2(name, code)                                        \
    static inline MPS_INLINE uint32_t name(uint32_t x, uint32_t z) { \
        uint32_t y;                                                  \
        __asm__(code : "=r"(y) : "r"(x), "r"(z));                    \
        return y;                                                    \
    }
/* bytes 0 and 2, or 1 and 3, as two halfwords */
MPS_DSP_1(mps_signed_even, "sxtb16 %0, %1")
MPS_DSP_1(mps_signed_odd, "sxtb16 %0, %1, ror #8")
MPS_DSP_1(mps_even, "uxtb16 %0, %1")
MPS_DSP_1(mps_odd, "uxtb16 %0, %1, ror #8")
/* the lower halves of both, or the upper halves; x's comes first */
MPS_DSP_2(mps_lower, "pkhbt %0, %1, %2, lsl #16")
MPS_DSP_2(mps_higher, "pkhtb %0, %2, %1, asr #16")
/* sum + two products of halfwords */
static inline MPS_INLINE uint32_t mps_dual(uint32_t x, uint32_t w, uint32_t sum) {
    uint32_t y;
    __asm__("smlad %0, %1, %2, %3" : "=r"(y) : "r"(x), "r"(w), "r"(sum));
    return y;
}
/* c + the upper half of a product */
static inline MPS_INLINE int32_t mps_upper(int32_t x, int32_t m, int32_t c) {
    int32_t y;
    __asm__("smmla %0, %1, %2, %3" : "=r"(y) : "r"(x), "r"(m), "r"(c));
    return y;
}
static inline MPS_INLINE int32_t mps_byte(int32_t x) {
    int32_t y;
    __asm__("usat %0, #8, %1" : "=r"(y) : "r"(x));
    return y;
}

#else
#define MPS_DSP_ASSEMBLY 0

#if defined(MPS_DSP_TWIN)
#define MPS_DSP 1
static inline uint32_t mps_even(uint32_t x) { return x & 0xff00ff; }
static inline uint32_t mps_odd(uint32_t x) { return x >> 8 & 0xff00ff; }
static inline uint32_t mps_signed_even(uint32_t x) {
    return (uint16_t)(int8_t)x | (uint32_t)(uint16_t)(int8_t)(x >> 16) << 16;
}
static inline uint32_t mps_signed_odd(uint32_t x) { return mps_signed_even(x >> 8); }
static inline uint32_t mps_lower(uint32_t x, uint32_t z) { return (x & 0xffff) | z << 16; }
static inline uint32_t mps_higher(uint32_t x, uint32_t z) {
    return x >> 16 | (z & UINT32_C(0xffff0000));
}
static inline int32_t mps_half(uint32_t x) { return (int16_t)(uint16_t)x; }
static inline uint32_t mps_dual(uint32_t x, uint32_t w, uint32_t sum) {
    return sum + (uint32_t)(mps_half(x) * mps_half(w)) +
           (uint32_t)(mps_half(x >> 16) * mps_half(w >> 16));
}
#else
#define MPS_DSP 0
#endif

#if defined(__thumb__) && !defined(__thumb2__)
/* without a 64-bit product: by halves, of which m has 31 bits */
static inline int32_t mps_upper(int32_t x, int32_t m, int32_t c) {
    const int32_t xh = x >> 16, mh = m >> 16, xl = x & 0xffff, ml = m & 0xffff;
    const int32_t middle = xh * ml + (int32_t)((uint32_t)xl * (uint32_t)ml >> 16);
    return c + xh * mh + (middle >> 16) + (((middle & 0xffff) + xl * mh) >> 16);
}
#else
static inline int32_t mps_upper(int32_t x, int32_t m, int32_t c) {
    return c + (int32_t)((int64_t)x * m >> 32);
}
#endif
static inline int32_t mps_byte(int32_t x) { return x < 0 ? 0 : x > 255 ? 255 : x; }

#endif

#endif
